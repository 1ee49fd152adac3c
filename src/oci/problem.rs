//! What can be wrong with a file or directory of a container.

use std::fmt;
use std::path::PathBuf;

/// Why a container, its bundle or a file of it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// There is no container of that id below the runtime's root.
    NoContainer,
    /// The state directory has neither runc's nor crun's state file.
    NoState,
    /// The directory holds no config.json.
    NoBundle,
    /// The root file system that config.json names is no directory.
    NoRootfs(PathBuf),
    /// It is no plain file.
    NotPlain,
    /// It has more than this many bytes.
    TooLarge(u64),
    /// It is no JSON, or not of the format that its name says; what the parser said.
    Malformed(String),
    /// One value of it makes no sense.
    Field {
        /// The value's name, with dots: `process.cwd`.
        name: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// The state belongs to another id than that of its directory.
    OtherId(String),
}

impl Problem {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoContainer => {
                "`runc list` and `crun list` show the ids; for an engine's containers name its root with --runtime-root"
            }
            Self::NoState => {
                "a runtime died while it made or removed this container; look into the directory, and remove it if nothing is mounted below it"
            }
            Self::NoBundle => "name the directory that holds the container's config.json with --bundle",
            Self::NoRootfs(_) => "put the container's root file system there, or correct root.path in config.json",
            Self::NotPlain | Self::TooLarge(_) | Self::Malformed(_) | Self::OtherId(_) => {
                "it was not written by a runc or crun that crr knows; check with `runc state ID` or `crun state ID`"
            }
            Self::Field { .. } => "correct it; `runc spec` writes an example of a config.json",
        }
    }

    pub(super) fn field(name: impl Into<String>, wrong: impl Into<String>) -> Self {
        Self::Field { name: name.into(), wrong: wrong.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoContainer => f.write_str("there is no such container"),
            Self::NoState => f.write_str("it has neither runc's state.json nor crun's status"),
            Self::NoBundle => f.write_str("it has no config.json"),
            Self::NoRootfs(path) => write!(f, "its root file system `{}` is no directory", path.display()),
            Self::NotPlain => f.write_str("it is no plain file"),
            Self::TooLarge(limit) => write!(f, "it is larger than {limit} bytes"),
            Self::Malformed(what) => write!(f, "it is malformed: {what}"),
            Self::Field { name, wrong } => write!(f, "its {name} {wrong}"),
            Self::OtherId(id) => write!(f, "it is the state of `{id}`"),
        }
    }
}
