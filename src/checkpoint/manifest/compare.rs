//! What a restore would find different.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;

use super::build_id::build_id;
use super::{HASH_LIMIT_BYTES, Manifest, OutsideFile};
use crate::checkpoint::parallel::hashed_in_parallel;
use crate::checkpoint::root::Root;
use crate::checkpoint::seen::{Seen, kind_of};
use crate::checkpoint::sums;
use crate::error::Result;

/// A file that is not as it was at the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path in the mount namespace of the tree.
    pub path: PathBuf,
    /// What is different.
    pub kind: DifferenceKind,
}

/// How a file differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DifferenceKind {
    /// It is not there.
    Missing,
    /// It cannot be looked at; the system's reason.
    Unreadable(String),
    /// It is another kind of file; both as `st_mode`.
    Type {
        /// At the dump.
        expected: u32,
        /// Now.
        found: u32,
    },
    /// It has other permissions; both as `st_mode`.
    Mode {
        /// At the dump.
        expected: u32,
        /// Now.
        found: u32,
    },
    /// It is longer or shorter.
    Size {
        /// At the dump, in bytes.
        expected_bytes: u64,
        /// Now, in bytes.
        found_bytes: u64,
    },
    /// It is another build of the program or library.
    BuildId {
        /// At the dump, in hexadecimal.
        expected: String,
        /// Now, in hexadecimal.
        found: String,
    },
    /// Its content is another.
    Content,
    /// It was written to; whether its content is another is not known.
    Modified,
}

impl DifferenceKind {
    /// Whether CRIU refuses the restore for it. It restores happily onto a changed file of the same size.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Content | Self::Modified)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.path.display())?;
        match &self.kind {
            DifferenceKind::Missing => f.write_str("is missing"),
            DifferenceKind::Unreadable(why) => write!(f, "cannot be looked at: {why}"),
            DifferenceKind::Type { expected, found } => {
                write!(f, "is a {} and was a {}", kind_name(*found), kind_name(*expected))
            }
            DifferenceKind::Mode { expected, found } => {
                write!(f, "has mode {:04o} and had {:04o}", found & 0o7777, expected & 0o7777)
            }
            DifferenceKind::Size { expected_bytes, found_bytes } => {
                write!(f, "has {found_bytes} bytes and had {expected_bytes}")
            }
            DifferenceKind::BuildId { expected, found } => write!(f, "is build {found} and was {expected}"),
            DifferenceKind::Content => f.write_str("has another content"),
            DifferenceKind::Modified => f.write_str("was written to since"),
        }
    }
}

fn kind_name(mode: u32) -> &'static str {
    match kind_of(mode) {
        SFlag::S_IFREG => "plain file",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        SFlag::S_IFIFO => "named pipe",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFLNK => "symbolic link",
        _ => "file of an unknown kind",
    }
}

impl Manifest {
    /// Every difference, in the order of the paths. A file whose inode, size and time are as they were is not read; nor is
    /// one without a hash.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if there is no such `root`; a file that cannot be looked at is a difference.
    pub fn compare(&self, root: &Path) -> Result<Vec<Difference>> {
        let root = Root::open(root)?;
        let mut found = Vec::new();
        let mut unread = Vec::new();
        for (index, file) in self.0.iter().enumerate() {
            let before = found.len();
            let add = |kind| found.push((index, kind));
            let now = differences(&root, file, add);
            let differs = found.len() > before;
            if let Some(now) =
                now.filter(|now| !differs && !file.seen.as_ref().is_some_and(|seen| seen.is_unchanged(now)))
            {
                unread.push((index, now.size_bytes));
            }
        }
        for (index, kind) in hashed_in_parallel(unread, |&index| content(&root, &self.0[index])) {
            found.extend(kind.map(|kind| (index, kind)));
        }
        found.sort_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(index, kind)| Difference { path: self.0[index].path.clone(), kind }).collect())
    }
}

/// What CRIU would refuse. Gives what the file is now, if it is a plain one.
fn differences(root: &Root, file: &OutsideFile, mut add: impl FnMut(DifferenceKind)) -> Option<Seen> {
    let now = match file.look(root) {
        Ok(metadata) => Seen::of(&metadata),
        Err(error) => {
            add(unreadable(&error));
            return None;
        }
    };
    match file.mode {
        Some(expected) if kind_of(expected) != now.kind() => {
            add(DifferenceKind::Type { expected, found: now.mode });
            return None;
        }
        Some(expected) if expected != now.mode => add(DifferenceKind::Mode { expected, found: now.mode }),
        _ => {}
    }
    if now.kind() != SFlag::S_IFREG {
        return None;
    }
    match file.size_bytes {
        Some(expected_bytes) if expected_bytes != now.size_bytes => {
            add(DifferenceKind::Size { expected_bytes, found_bytes: now.size_bytes });
        }
        _ => {}
    }
    if let Some(expected) = &file.build_id {
        match root.read(&file.path).and_then(|opened| build_id(&opened)) {
            // CRIU takes a file without a build-id for right, as long as its size is.
            Ok(None) => {}
            Ok(Some(id)) => {
                let found = padded_hex(&id);
                if found != *expected {
                    add(DifferenceKind::BuildId { expected: expected.clone(), found });
                }
            }
            Err(error) => add(unreadable(&error)),
        }
    }
    Some(now)
}

fn content(root: &Root, file: &OutsideFile) -> Option<DifferenceKind> {
    let Some(expected) = &file.blake3 else {
        // What was only written to changes as a matter of course.
        return (file.seen.is_some() && file.is_hashed()).then_some(DifferenceKind::Modified);
    };
    let opened = root.read(&file.path);
    let opened = opened.and_then(|opened| Ok((opened.metadata()?.len(), opened)));
    match opened {
        Ok((size_bytes, _)) if size_bytes > HASH_LIMIT_BYTES => Some(DifferenceKind::Content),
        Ok((_, opened)) => match sums::hash(opened) {
            Ok(sum) => (!sum.blake3.eq_ignore_ascii_case(expected)).then_some(DifferenceKind::Content),
            Err(error) => Some(unreadable(&error)),
        },
        Err(error) => Some(unreadable(&error)),
    }
}

fn unreadable(error: &std::io::Error) -> DifferenceKind {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => DifferenceKind::Missing,
        _ => DifferenceKind::Unreadable(error.to_string()),
    }
}

/// A build-id as images hold it: in whole words of four bytes.
pub(super) fn padded_hex(id: &[u8]) -> String {
    let padding = id.len().next_multiple_of(4) - id.len();
    let bytes = id.iter().chain(std::iter::repeat_n(&0, padding));
    bytes.fold(String::with_capacity(2 * id.len()), |hex, byte| hex + &format!("{byte:02x}"))
}
