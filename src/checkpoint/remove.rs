//! Removing a checkpoint, so that no half of one is ever left under its name.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;

use super::directory::Directory;
use super::names::{INVENTORY, is_checkpoint_name};
use super::partial::{Lock, Step, mount_id, place_of};
use super::record::{RECORD_NAME, Record};
use super::trust::Trust;
use super::{Checkpoint, problem};
use crate::error::{DirectoryProblem, Error, Result};

/// So many foreign files are named.
const NAMED_LIMIT: usize = 10;

impl Checkpoint {
    /// Removes a checkpoint, and the names that CRIU made for it below `root` in the directories of its files. A removal
    /// that was cut short is brought to its end. `at` is told of each step.
    ///
    /// A network lock is not touched: undo it before, while the record is there.
    ///
    /// # Errors
    /// [`Error::Directory`] if DIR is no checkpoint, or holds files that are not a checkpoint's: nothing is removed then.
    /// [`Error::Untrusted`] if others could exchange DIR under our hands.
    pub fn remove(dir: &Path, root: &Path, trust: Trust, mut at: impl FnMut(Step)) -> Result<()> {
        let (place, name) = place_of(dir, trust)?;
        let mut hidden = OsString::from(".");
        hidden.push(&name);
        hidden.push(".crr-removed");
        if place.stat(&name)?.is_none() {
            return match open(&place, &hidden)? {
                Some(rest) => clear(&place, &rest, &hidden, at),
                None => Err(problem(dir, DirectoryProblem::NotFound)),
            };
        }
        let Some(directory) = open(&place, &name)? else { return Err(problem(dir, DirectoryProblem::NotADirectory)) };
        check(dir, &directory)?;
        let locked = Lock::take(directory.file_descriptor()?);
        if locked.is_none() {
            return Err(problem(dir, DirectoryProblem::InUse(directory.path().into())));
        }
        // A record that cannot be read must not keep a checkpoint from being removed.
        if let Ok(Some(record)) = Record::read(&directory) {
            record.remaps.clear(root)?;
        }
        if let Some(rest) = open(&place, &hidden)? {
            clear(&place, &rest, &hidden, |_| {})?;
        }
        if mount_id(&directory)? != mount_id(&place)? {
            // It cannot be renamed, nor removed itself. Without an inventory it is no checkpoint any more.
            directory.unlink(OsStr::new(INVENTORY), Type::File)?;
            directory.clear()?;
            at(Step::Cleared);
            return Ok(());
        }
        renameat(&place, name.as_os_str(), &place, hidden.as_os_str())
            .map_err(|errno| Error::io("rename", place.path_of(&name))(errno.into()))?;
        at(Step::RenamedBack);
        clear(&place, &directory, &hidden, at)
    }
}

/// The directory of that name; `None` if there is none.
fn open(place: &Directory, name: &OsStr) -> Result<Option<Directory>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(place, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(Directory::new(fd, place.path_of(name)))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(Error::io("open", place.path_of(name))(errno.into())),
    }
}

fn check(dir: &Path, directory: &Directory) -> Result<()> {
    let entries = directory.entries()?;
    let has = |name: &str| entries.iter().any(|entry| entry.os_name() == name);
    if !has(INVENTORY) && !has(RECORD_NAME) {
        return Err(problem(dir, DirectoryProblem::NotACheckpoint));
    }
    let foreign = entries.iter().filter(|entry| !is_checkpoint_name(entry.os_name()));
    let mut names: Vec<_> = foreign.map(|entry| entry.os_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    names.truncate(NAMED_LIMIT);
    Err(problem(dir, DirectoryProblem::ForeignFiles(names)))
}

fn clear(place: &Directory, directory: &Directory, name: &OsStr, mut at: impl FnMut(Step)) -> Result<()> {
    directory.clear()?;
    at(Step::Cleared);
    place.unlink(name, Type::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn checkpoint(dir: &Path) {
        fs::create_dir_all(dir.join("files")).unwrap();
        for name in ["inventory.img", "crr.json", "dump.log", "stats-dump", "files/0"] {
            fs::write(dir.join(name), "x").unwrap();
        }
    }

    fn remove(dir: &Path) -> Result<()> {
        Checkpoint::remove(dir, Path::new("/"), Trust::Anyone, |_| {})
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_checkpoint_is_removed_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        checkpoint(&dir.path().join("a"));
        remove(&dir.path().join("a")).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_no_checkpoint_or_holds_other_files_is_left_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("dump.log"), "x").unwrap();
        let error = remove(&path).unwrap_err();
        assert!(matches!(error, Error::Directory { problem: DirectoryProblem::NotACheckpoint, .. }), "{error}");
        checkpoint(&path);
        fs::write(path.join("thesis.txt"), "x").unwrap();
        let error = remove(&path).unwrap_err();
        assert!(error.to_string().contains("`thesis.txt`"), "{error}");
        assert_eq!(names(&path).len(), 6);
        let error = remove(&dir.path().join("none")).unwrap_err();
        assert!(matches!(error, Error::Directory { problem: DirectoryProblem::NotFound, .. }), "{error}");
    }

    #[test]
    fn a_removal_that_was_cut_short_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        checkpoint(&path);
        let cut = std::panic::catch_unwind(|| {
            Checkpoint::remove(&path, Path::new("/"), Trust::Anyone, |step| assert_ne!(step, Step::RenamedBack))
        });
        assert!(cut.is_err() && !path.exists() && names(dir.path()) == [".a.crr-removed"]);
        remove(&path).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_linked_name_leads_to_the_checkpoint_and_its_parent_images_stay() {
        let dir = tempfile::tempdir().unwrap();
        checkpoint(&dir.path().join("parent-images"));
        checkpoint(&dir.path().join("a"));
        std::os::unix::fs::symlink("../parent-images", dir.path().join("a/parent")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        remove(&dir.path().join("link")).unwrap();
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, ["link", "parent-images"]);
        assert_eq!(names(&dir.path().join("parent-images")).len(), 5);
    }
}
