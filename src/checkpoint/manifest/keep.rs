//! `--with-files`: the files themselves in the checkpoint, and putting them where another host lacks them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, SFlag, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::{Manifest, OutsideFile, Use};
use crate::checkpoint::directory::Directory;
use crate::checkpoint::names::FILES;
use crate::checkpoint::root::Root;
use crate::checkpoint::seen::{Seen, copy_content};
use crate::error::{Error, Result};

impl Manifest {
    /// Copies every plain file that is not kept yet into `DIR/files`, sharing blocks where the filesystem can.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read or `directory` not be written.
    pub fn keep(&mut self, root: &Path, directory: impl AsFd, path: &Path) -> Result<()> {
        self.keep_those(root, directory, path, |_| true)
    }

    /// The same for those files alone that a tree which runs on may change. While it is held, as they must fit the images.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn keep_changing(&mut self, root: &Path, directory: impl AsFd, path: &Path) -> Result<()> {
        // Programs and libraries are large, and nobody writes to what is being run.
        self.keep_those(root, directory, path, |file| file.build_id.is_none() && !file.uses.contains(&Use::Executable))
    }

    fn keep_those(
        &mut self,
        root: &Path,
        directory: impl AsFd,
        path: &Path,
        wanted: impl Fn(&OutsideFile) -> bool,
    ) -> Result<()> {
        let root = Root::open(root)?;
        let store = store(&Directory::new(directory.as_fd(), path), FILES)?;
        let next = self.0.iter().filter_map(|file| file.kept).max().map_or(0, |last| last + 1);
        let wanted = |file: &&mut OutsideFile| file.is_plain() && file.kept.is_none() && wanted(file);
        for (number, file) in (next..).zip(self.0.iter_mut().filter(wanted)) {
            let from = match root.read(&file.path) {
                Ok(from) => from,
                // Hidden by a mount; CRIU has its own way to it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", root.path_of(&file.path))(error)),
            };
            store_copy(&from, &store, number)?;
            let metadata = from.metadata().map_err(Error::io("look at", root.path_of(&file.path)))?;
            file.seen = Some(Seen::of(&metadata));
            file.kept = Some(number);
        }
        Ok(())
    }

    /// Makes the kept files that are missing below `root`, with owner, mode and time, and the directories that they and the
    /// tree need. What is there is left as it is. Gives what was made.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be made; those made before stay.
    pub fn put_back(&self, root: &Path, directory: impl AsFd, path: &Path) -> Result<Vec<PathBuf>> {
        let root = Root::open(root)?;
        let checkpoint = Directory::new(directory.as_fd(), path);
        let mut made = Vec::new();
        for file in &self.0 {
            let is_missing = matches!(file.look(&root), Err(error) if error.kind() == io::ErrorKind::NotFound);
            if is_missing && put_back(&root, &checkpoint, file)? {
                made.push(file.path.clone());
            }
        }
        Ok(made)
    }
}

fn put_back(root: &Root, checkpoint: &Directory<impl AsFd>, file: &OutsideFile) -> Result<bool> {
    let failed = |error: Errno| Error::io("make", root.path_of(&file.path))(error.into());
    match (file.kept, file.kind()) {
        (Some(number), _) => {
            if let Some(parent) = file.path.parent() {
                root.make_directories(parent)?;
            }
            let (parent, name) = root.parent(&file.path)?;
            let Some(seen) = &file.seen else { return Ok(false) };
            make_copy(&checkpoint.directory(OsStr::new(FILES))?, number, seen, &parent, name)
        }
        (None, Some(SFlag::S_IFDIR)) => {
            root.make_directories(&file.path)?;
            if let Some(mode) = file.mode {
                let made = root
                    .get(&file.path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
                    .map_err(Error::io("open", &file.path))?;
                fchmod(&made, Mode::from_bits_truncate(mode)).map_err(failed)?;
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The directory of that name in a checkpoint, made if need be.
pub(in crate::checkpoint) fn store(checkpoint: &Directory<impl AsFd>, name: &str) -> Result<Directory> {
    let failed = |errno: Errno| Error::io("make", checkpoint.path_of(name))(errno.into());
    match mkdirat(checkpoint, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let store = checkpoint.directory(OsStr::new(name))?;
    // Whatever the umask says.
    fchmod(&store, Mode::S_IRWXU).map_err(failed)?;
    Ok(store)
}

/// Copies a file into a store under a number.
pub(in crate::checkpoint) fn store_copy(from: &File, store: &Directory<impl AsFd>, number: u32) -> Result<()> {
    let name = number.to_string();
    let to = store.create(OsStr::new(&name)).map_err(Error::io("create", store.path_of(&name)))?;
    copy_content(from, &to).map_err(Error::io("write", store.path_of(&name)))
}

/// Makes a file from a store under a name that is free, whole from its first moment; `false` if the name is taken.
pub(in crate::checkpoint) fn make_copy(
    store: &Directory<impl AsFd>,
    number: u32,
    seen: &Seen,
    parent: &Directory<impl AsFd>,
    name: &OsStr,
) -> Result<bool> {
    let stored = number.to_string();
    let path = parent.path_of(name);
    let from = store.file(OsStr::new(&stored)).map_err(Error::io("read", store.path_of(&stored)))?;
    let failed = |attempt| Error::io(attempt, &path);
    let fill = |to: &File| copy_content(&from, to).and_then(|()| seen.apply(to));
    // Without a name until it is whole, so that a killed crr leaves nothing.
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(parent, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(to) => {
            let to = File::from(to);
            fill(&to).map_err(failed("write"))?;
            let descriptor = format!("/proc/self/fd/{}", to.as_raw_fd());
            is_made(linkat(parent, descriptor.as_str(), parent, name, AtFlags::AT_SYMLINK_FOLLOW))
                .map_err(failed("create"))
        }
        // Not every filesystem has such files.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {
            make_by_rename(fill, parent, name).map_err(failed("create"))
        }
        Err(errno) => Err(failed("create")(errno.into())),
    }
}

/// The same by way of a name that no program looks for.
fn make_by_rename(
    fill: impl FnOnce(&File) -> io::Result<()>,
    parent: &Directory<impl AsFd>,
    name: &OsStr,
) -> io::Result<bool> {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".crr-new");
    let remove = || unlinkat(parent, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
    // Of a crr that was killed.
    let _ = remove();
    let to = parent.create(&temporary)?;
    let made = fill(&to).and_then(|()| {
        let flags = RenameFlags::RENAME_NOREPLACE;
        is_made(renameat2(parent, temporary.as_os_str(), parent, name, flags))
    });
    if !matches!(made, Ok(true)) {
        let _ = remove();
    }
    made
}

fn is_made(made: nix::Result<()>) -> io::Result<bool> {
    match made {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn a_filesystem_without_nameless_files_gets_the_file_by_rename() {
        let dir = tempfile::tempdir().unwrap();
        let parent = Directory::new(File::open(dir.path()).unwrap(), dir.path());
        let make = |content: &'static str| {
            make_by_rename(|mut to| to.write_all(content.as_bytes()), &parent, OsStr::new("a")).unwrap()
        };
        fs::write(dir.path().join(".a.crr-new"), "left by a killed crr").unwrap();
        assert!(make("one"));
        assert!(!make("two"), "a name that is taken is not replaced");
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_copy_that_fails_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let parent = Directory::new(File::open(dir.path()).unwrap(), dir.path());
        make_by_rename(|_| Err(io::Error::other("no room")), &parent, OsStr::new("a")).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
