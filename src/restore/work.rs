//! CRIU's working directory: where it writes its log and statistics.
//!
//! The checkpoint itself is left unchanged, so that it can be on a read-only file system and be restored again.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};
use crate::images::{Images, RestoreStatistics};

/// Where private working directories are made, if it can be made; else in `$TMPDIR`.
const PLACE: &str = "/run/crr";

/// How their names begin.
const NAME: &str = "restore.";

/// How long the log of a restore that failed is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// CRIU's working directory.
#[derive(Debug)]
pub(super) struct WorkDirectory {
    path: PathBuf,
    /// Whether it was made for this restore, and goes with it.
    private: bool,
    /// The directory itself where CRIU has it in a mount namespace of its own; a private one has no path here then.
    inside: Option<OwnedFd>,
}

impl WorkDirectory {
    /// The directory the caller names, or a new private one.
    pub(super) fn new(given: Option<&Path>) -> Result<Self> {
        if let Some(given) = given {
            return Ok(Self { path: given.to_path_buf(), private: false, inside: None });
        }
        let path = Self::make(Path::new(PLACE)).or_else(|_| {
            let place = std::env::temp_dir();
            Self::make(&place).map_err(|errno| Error::io("make a directory in", &place)(errno.into()))
        })?;
        Ok(Self { path, private: true, inside: None })
    }

    /// One that is open already, in the mount namespace that CRIU works in.
    pub(super) fn inside(directory: OwnedFd, given: Option<&Path>) -> Self {
        let path = given.map(Path::to_path_buf);
        Self { private: path.is_none(), path: path.unwrap_or_default(), inside: Some(directory) }
    }

    fn make(place: &Path) -> nix::Result<PathBuf> {
        if place == Path::new(PLACE) {
            // That it exists is the usual case; whatever else is wrong shows right below.
            let _ = DirBuilder::new().mode(0o700).create(place);
        }
        nix::unistd::mkdtemp(&place.join(format!("{NAME}XXXXXX")))
    }

    /// Opens it for CRIU.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        if let Some(inside) = &self.inside {
            return inside.try_clone().map_err(|source| Error::system("copy a descriptor", source));
        }
        open(&self.path, flags, Mode::empty())
            .map_err(|errno| Error::io("open the directory", &self.path)(errno.into()))
    }

    /// What CRIU measured, after success.
    pub(super) fn statistics(&self) -> Option<RestoreStatistics> {
        let images = match &self.inside {
            Some(inside) => Images::from_directory(inside.try_clone().ok()?, &self.path),
            None => Images::open(&self.path).ok()?,
        };
        images.restore_statistics().ok()
    }

    /// Removes a private one with all that is in it.
    pub(super) fn remove(self) {
        // Here rather than at the start: nobody waits for the tree any more.
        sweep(Path::new(PLACE));
        if self.private && self.inside.is_none() {
            // What stays is a directory in /run, of which nobody needs to hear after a restore that worked.
            let _ = fs::remove_dir_all(&self.path);
        }
    }

    /// Keeps the log of a restore that failed; its path, if CRIU wrote one. Without one a private directory is removed.
    pub(super) fn keep(self, log: &str) -> Option<PathBuf> {
        if let (Some(inside), true) = (&self.inside, self.private) {
            return take_out(inside, log);
        }
        let path = self.path.join(log);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.len() > 0 => Some(path),
            _ => {
                self.remove();
                None
            }
        }
    }
}

/// Copies the log out of a directory that goes with its mount namespace.
fn take_out(inside: &OwnedFd, log: &str) -> Option<PathBuf> {
    let file =
        openat(inside.as_fd(), log, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut file = fs::File::from(file);
    if file.metadata().ok()?.len() == 0 {
        return None;
    }
    let path = WorkDirectory::new(None).ok()?.path.join(log);
    let mut copy = fs::File::create_new(&path).ok()?;
    std::io::copy(&mut file, &mut copy).ok()?;
    Some(path)
}

/// Removes what killed restores left, and logs of failed ones that nobody has asked for in a while.
fn sweep(place: &Path) {
    let old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().ok()?.modified().ok()?;
        Some(entry.file_name().as_encoded_bytes().starts_with(NAME.as_bytes()) && modified.elapsed().ok()? > KEPT)
    };
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if old(&entry) == Some(true) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_is_old_is_swept_and_what_is_not_ours_is_left() {
        let place = tempfile::tempdir().unwrap();
        for (name, age) in [("restore.old", 2 * KEPT), ("restore.new", KEPT / 2), ("locks", 2 * KEPT)] {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("restore.log"), "x").unwrap();
            fs::File::open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        sweep(place.path());
        let mut left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["locks", "restore.new"]);
    }

    #[test]
    fn the_log_of_a_failed_restore_is_kept_and_an_empty_directory_is_not() {
        let place = tempfile::tempdir().unwrap();
        let directory = |name: &str| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            WorkDirectory { path, private: true, inside: None }
        };
        assert_eq!(directory("empty").keep("restore.log"), None);
        assert!(!place.path().join("empty").exists());
        let failed = directory("failed");
        fs::write(failed.path.join("restore.log"), "Error").unwrap();
        assert_eq!(failed.keep("restore.log"), Some(place.path().join("failed/restore.log")));
        assert!(place.path().join("failed/restore.log").exists());
    }
}
