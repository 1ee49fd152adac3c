//! Freezing a cgroup as a whole, and the [`Guard`] who thaws it when whoever had it frozen is gone.
//!
//! Version 1 has a hierarchy of its own for it (`freezer.state`), version 2 a file in each cgroup (`cgroup.freeze`). A frozen
//! task runs no instruction of its program, whatever signal it is sent; of version 1 it does not even die before it is thawed.
//!
//! CRIU freezes a tree by ptrace, one task after another, which takes 0.3 ms where nothing moves. A tree in which processes
//! fork and end all the time it cannot catch up with: then its cgroup is frozen first (`tests/host/kill/frozen.rs`).

mod guard;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use guard::Guard;

use super::{Layout, Membership};
use crate::error::{Error, Result};

/// Freezing takes 0.4 to 1.3 ms; to look more often would make it no faster.
const LOOK: Duration = Duration::from_micros(300);

/// The two versions of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// What a cgroup has been told to be. It may be frozen all the same, if one above it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Its tasks run.
    Thawed,
    /// Its tasks stand still, and those of all cgroups below it.
    Frozen,
}

/// A cgroup that can be frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freezer {
    directory: PathBuf,
    version: Version,
}

impl Freezer {
    /// The cgroup at `directory`: of version 2, or of version 1's hierarchy `freezer`.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such directory, or if it cannot be frozen: the root of a hierarchy never can.
    pub fn of(directory: &Path) -> Result<Self> {
        let directory = directory.canonicalize().map_err(Error::io("find the cgroup", directory))?;
        for version in [Version::V1, Version::V2] {
            let freezer = Self { directory: directory.clone(), version };
            if freezer.control().exists() {
                return Ok(freezer);
            }
        }
        let why = io::Error::new(io::ErrorKind::InvalidInput, "it has neither freezer.state nor cgroup.freeze");
        Err(Error::io("freeze the cgroup", directory)(why))
    }

    /// Where the cgroup is: an absolute path without links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file that freezes and thaws.
    pub(super) fn control(&self) -> PathBuf {
        self.directory.join(match self.version {
            Version::V1 => "freezer.state",
            Version::V2 => "cgroup.freeze",
        })
    }

    /// What the cgroup has been told to be.
    ///
    /// # Errors
    /// [`Error::Io`] if it is gone.
    pub fn setting(&self) -> Result<Setting> {
        let path = self.directory.join(match self.version {
            Version::V1 => "freezer.self_freezing",
            Version::V2 => "cgroup.freeze",
        });
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Ok(if text.trim() == "1" { Setting::Frozen } else { Setting::Thawed })
    }

    /// Whether all its tasks stand still.
    ///
    /// # Errors
    /// [`Error::Io`] if it is gone.
    pub fn is_frozen(&self) -> Result<bool> {
        let (name, frozen) = match self.version {
            Version::V1 => ("freezer.state", "FROZEN"),
            Version::V2 => ("cgroup.events", "frozen 1"),
        };
        let path = self.directory.join(name);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Ok(text.lines().any(|line| line.trim() == frozen))
    }

    /// Tells the cgroup what to be, and does not wait.
    ///
    /// # Errors
    /// [`Error::Io`] if it is gone.
    pub fn set(&self, setting: Setting) -> Result<()> {
        let path = self.control();
        fs::write(&path, self.word(setting)).map_err(Error::io("write", &path))
    }

    pub(super) fn word(&self, setting: Setting) -> &'static str {
        match (self.version, setting) {
            (Version::V1, Setting::Thawed) => "THAWED",
            (Version::V1, Setting::Frozen) => "FROZEN",
            (Version::V2, Setting::Thawed) => "0",
            (Version::V2, Setting::Frozen) => "1",
        }
    }

    /// Freezes the cgroup and waits until all its tasks stand still.
    ///
    /// # Errors
    /// [`Error::NotFrozen`] if they do not within `limit`, [`Error::Io`] if the cgroup is gone. It was told to freeze all the
    /// same: whoever called this has it thawed.
    pub(super) fn freeze(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            // Version 1 may overlook a task that was being born; it is told again.
            self.set(Setting::Frozen)?;
            if self.is_frozen()? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotFrozen { cgroup: self.directory.clone(), limit });
            }
            thread::sleep(LOOK);
        }
    }

    /// Whether a process is in it, or in a cgroup below it.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such process, or no /proc.
    pub fn holds(&self, pid: i32) -> Result<bool> {
        let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let own = inode(&self.directory);
        let layout = Layout::read()?;
        let directories = Membership::of(pid)?.0.into_iter().filter_map(|(name, path)| {
            let hierarchy = layout.hierarchy(&name)?;
            hierarchy.directory(&path)
        });
        Ok(own.is_some() && directories.into_iter().any(|path| path.ancestors().any(|above| inode(above) == own)))
    }
}
