//! The files outside the images that a restore needs: what the tree had open, mapped or ran, and its directories.
//!
//! CRIU stores no more of such a file than its path, size, mode and build-id, and refuses a restore where one of these
//! differs. What it does not look at, the content, is hashed here after the dump.

mod build_id;
mod collect;
mod compare;
mod forecast;
mod keep;
mod mend;

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;
use serde::{Deserialize, Serialize};

pub use self::compare::{Difference, DifferenceKind};
pub(super) use self::keep::{make_copy, store, store_copy};
use super::parallel::hashed_in_parallel;
use super::root::Root;
pub use super::seen::Seen;
use super::seen::kind_of;
use super::sums;
use crate::error::Result;

/// Larger files are not hashed.
const HASH_LIMIT_BYTES: u64 = 64 << 20;

/// The files outside the images, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest(Vec<OutsideFile>);

/// One file outside the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutsideFile {
    /// Its path in the mount namespace of the tree.
    #[serde(with = "super::text")]
    pub path: PathBuf,
    /// What for.
    pub uses: Vec<Use>,
    /// Its size in bytes, where CRIU insists on it (not of a file that was only appended to).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Type and permissions as `st_mode`, on which CRIU insists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Its build-id in hexadecimal, padded to words of four bytes, on which CRIU insists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The file at the dump, if it could be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// The BLAKE3 hash of its content at the dump, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Its name in `DIR/files`, if it is kept there (`--with-files`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<u32>,
}

/// What a task does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// It is the program.
    Executable,
    /// It is mapped.
    Mapped,
    /// It is open for reading.
    Read,
    /// It is open for writing only.
    Write,
    /// It is the current directory.
    CurrentDirectory,
    /// It is the root directory.
    RootDirectory,
}

impl OutsideFile {
    /// What kind of file it is; nothing where CRIU did not say (before 3.15).
    fn kind(&self) -> Option<SFlag> {
        self.mode.map(kind_of).or(self.seen.as_ref().map(Seen::kind))
    }

    /// What is there now. Only a descriptor of the link itself (O_PATH and O_NOFOLLOW) has the mode of a symbolic link.
    fn look(&self, root: &Root) -> io::Result<Metadata> {
        if self.mode.is_some_and(|mode| kind_of(mode) == SFlag::S_IFLNK) {
            root.look_at_link(&self.path)
        } else {
            root.look(&self.path)
        }
    }

    fn is_plain(&self) -> bool {
        self.kind() == Some(SFlag::S_IFREG)
    }

    fn is_hashed(&self) -> bool {
        let read = |use_: &Use| matches!(use_, Use::Executable | Use::Mapped | Use::Read);
        self.is_plain() && self.uses.iter().any(read)
    }
}

impl Manifest {
    /// The files, sorted by path.
    pub fn files(&self) -> &[OutsideFile] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hashes what is open for reading or mapped, up to 64 MiB each. What has changed since [`collect`](Self::collect) or
    /// cannot be read gets no hash.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if there is no such `root`.
    pub fn hash(&mut self, root: &Path) -> Result<()> {
        let root = Root::open(root)?;
        let wanted = self.0.iter().enumerate().filter(|(_, file)| file.is_hashed());
        let sized = wanted.filter_map(|(index, file)| Some((index, file.seen.as_ref()?.size_bytes)));
        let sized = sized.filter(|(_, size)| *size <= HASH_LIMIT_BYTES).collect();
        for (index, hash) in hashed_in_parallel(sized, |&index| hash_unchanged(&root, &self.0[index])) {
            self.0[index].blake3 = hash;
        }
        Ok(())
    }
}

/// The hash of a file, if it is still the one that was seen, before and after reading it.
fn hash_unchanged(root: &Root, file: &OutsideFile) -> Option<String> {
    let seen = file.seen.as_ref()?;
    let opened = root.read(&file.path).ok()?;
    let unchanged = || Some(Seen::of(&opened.metadata().ok()?).is_unchanged(seen));
    if !unchanged()? {
        return None;
    }
    let sum = sums::hash(opened.try_clone().ok()?).ok()?;
    unchanged()?.then_some(sum.blake3)
}

#[cfg(test)]
mod tests;
