//! What can be wrong with a checkpoint directory, its crr.json, its sums and who may write it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Why a checkpoint is not waited for any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Absence {
    /// It has not come within this time.
    TooLate(Duration),
    /// A dump to that place has failed, and has left CRIU's log in this file.
    DumpFailed(PathBuf),
}

impl Absence {
    /// What a person can do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::TooLate(_) => "look whether anybody dumps to there, or wait longer".into(),
            Self::DumpFailed(log) => format!("see what the dump said, or `crr explain {}`", log.display()),
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLate(time) => write!(f, "none has come in {} s", time.as_secs_f64().round()),
            Self::DumpFailed(_) => f.write_str("the dump to there has failed"),
        }
    }
}

/// Why a directory cannot be dumped to, restored from or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryProblem {
    /// Nothing of that name exists.
    NotFound,
    /// The directory that DIR is to be made in does not exist.
    ParentMissing,
    /// DIR is a file, or something else that is no directory.
    NotADirectory,
    /// DIR, such as `/`, has no name that could be renamed to.
    NoName,
    /// DIR holds a checkpoint.
    HoldsCheckpoint,
    /// DIR holds something else, this name among it.
    NotEmpty(String),
    /// DIR is a mount point, which cannot be renamed over.
    MountPoint,
    /// The directory that DIR is to be made in cannot be written.
    Unwritable,
    /// Another crr is writing this directory (`DIR.partial`).
    InUse(PathBuf),
    /// `DIR.partial` holds files that are not a checkpoint's, this name among them.
    ForeignPartial(PathBuf, String),
    /// DIR is empty.
    Empty,
    /// DIR has no inventory.img.
    NotACheckpoint,
    /// DIR holds files that are not a checkpoint's (at most the first ten).
    ForeignFiles(Vec<String>),
}

impl DirectoryProblem {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound => "check the path",
            Self::ParentMissing => "make the directory above it first",
            Self::NotADirectory | Self::NotEmpty(_) => "name a directory that does not exist yet, or an empty one",
            Self::NoName | Self::MountPoint => "name a directory below it",
            Self::HoldsCheckpoint => "name another directory, or remove the checkpoint with `crr rm`",
            Self::Unwritable => "name a directory in one that crr may write, or run crr as root",
            Self::InUse(_) => "wait for the other dump to end, or name another directory",
            Self::ForeignPartial(..) => "look at it and move it away, or name another directory",
            Self::Empty | Self::NotACheckpoint => "name a directory that `crr dump` or `criu dump` wrote",
            Self::ForeignFiles(_) => "move them out of the directory first",
        }
    }
}

impl fmt::Display for DirectoryProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("it does not exist"),
            Self::ParentMissing => f.write_str("the directory above it does not exist"),
            Self::NotADirectory => f.write_str("it is not a directory"),
            Self::NoName => f.write_str("it has no name of its own"),
            Self::HoldsCheckpoint => f.write_str("it already holds a checkpoint"),
            Self::NotEmpty(name) => write!(f, "it is not empty: it holds `{name}`"),
            Self::MountPoint => f.write_str("it is a mount point"),
            Self::Unwritable => f.write_str("the directory above it cannot be written"),
            Self::InUse(partial) => write!(f, "another crr is writing `{}`", partial.display()),
            Self::ForeignPartial(partial, name) => {
                write!(f, "`{}` is in the way and is not a checkpoint: it holds `{name}`", partial.display())
            }
            Self::Empty => f.write_str("it is empty"),
            Self::NotACheckpoint => f.write_str("it holds no checkpoint (no inventory.img)"),
            Self::ForeignFiles(names) => {
                write!(f, "it holds what is not a checkpoint's: `{}`", names.join("`, `"))
            }
        }
    }
}

/// One reason not to believe a checkpoint directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distrust {
    /// The file, directory or symbolic link.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: DistrustReason,
}

/// What makes a file or directory untrusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DistrustReason {
    /// It belongs to this user, who is neither root nor the caller.
    Owner(u32),
    /// Users other than its owner may write it; the mode, permission bits only.
    Writable(u32),
    /// It is neither a file, a directory nor a symbolic link.
    Kind,
    /// A symbolic link that leads nowhere, or in a circle.
    Dangling,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.why {
            DistrustReason::Owner(uid) => write!(f, "`{path}` belongs to user {uid}"),
            DistrustReason::Writable(mode) => write!(f, "`{path}` may be written by others (mode {mode:04o})"),
            DistrustReason::Kind => write!(f, "`{path}` is neither a file nor a directory"),
            DistrustReason::Dangling => write!(f, "`{path}` is a symbolic link that leads nowhere"),
        }
    }
}

/// What is wrong with a crr.json.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordProblem {
    /// It is not one of crr's.
    Magic,
    /// It was written by a newer crr.
    Version {
        /// The version in the file.
        found: u32,
        /// The newest version that this crr reads.
        known: u32,
    },
    /// It is larger than this many bytes, which no record is.
    TooLarge(u64),
    /// It is no JSON, or not a record's; what the parser said.
    Malformed(String),
}

impl RecordProblem {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Version { .. } => "use the crr that wrote it, or a newer one",
            Self::Magic | Self::TooLarge(_) | Self::Malformed(_) => {
                "copy the directory again; without crr.json crr restores it as one that the criu program wrote"
            }
        }
    }
}

impl fmt::Display for RecordProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("it is not a record of crr"),
            Self::Version { found, known } => {
                write!(f, "it has version {found}, and this crr reads up to version {known}")
            }
            Self::TooLarge(limit) => write!(f, "it is larger than {limit} bytes"),
            Self::Malformed(what) => write!(f, "it is damaged or of a newer crr: {what}"),
        }
    }
}

/// One file of a checkpoint that is not as its sum says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongImage {
    /// The name below the checkpoint directory.
    pub name: String,
    /// What is wrong with it.
    pub problem: ImageProblem,
}

/// How a file differs from its sum.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageProblem {
    /// It is not there.
    Missing,
    /// It is not a plain file.
    Kind,
    /// It is longer or shorter.
    Size {
        /// The size when it was written, in bytes.
        expected_bytes: u64,
        /// The size now, in bytes.
        found_bytes: u64,
    },
    /// Its content is another.
    Content,
    /// It cannot be read; the system's reason.
    Unreadable(String),
}

impl fmt::Display for WrongImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.problem {
            ImageProblem::Missing => write!(f, "`{name}` is missing"),
            ImageProblem::Kind => write!(f, "`{name}` is not a plain file"),
            ImageProblem::Size { expected_bytes, found_bytes } => {
                write!(f, "`{name}` has {found_bytes} bytes instead of {expected_bytes}")
            }
            ImageProblem::Content => write!(f, "`{name}` has another content"),
            ImageProblem::Unreadable(why) => write!(f, "`{name}` cannot be read: {why}"),
        }
    }
}

/// Items as one line of text.
pub(super) fn listed<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
