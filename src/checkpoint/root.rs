//! The root directory that the paths in images are relative to: `/`, or that of the tree's mount namespace.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

use super::directory::Directory;
use crate::error::{Error, Result};

/// A root directory. No path, link or `..` leads out of it.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| Error::io("open", path)(errno.into()))?;
        Ok(Self { fd, path: path.into() })
    }

    /// The path of something in it, for messages.
    pub(super) fn path_of(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Opens what the path leads to there.
    pub(super) fn get(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(&self.fd, path, how)?.into())
    }

    /// A file to read, without waiting for whoever is at the other end of it.
    pub(super) fn read(&self, path: &Path) -> io::Result<File> {
        self.get(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
    }

    /// What is there, without opening it.
    pub(super) fn look(&self, path: &Path) -> io::Result<std::fs::Metadata> {
        self.get(path, OFlag::O_PATH)?.metadata()
    }

    /// The same, of the last name itself where that is a symbolic link.
    pub(super) fn look_at_link(&self, path: &Path) -> io::Result<std::fs::Metadata> {
        self.get(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?.metadata()
    }

    /// The directory that holds a name, and the name.
    pub(super) fn parent<'a>(&self, path: &'a Path) -> Result<(Directory, &'a OsStr)> {
        let failed = Error::io("find", self.path_of(path));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(Errno::EISDIR.into()));
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = self.get(parent, flags).map_err(Error::io("open", self.path_of(parent)))?;
        Ok((Directory::new(directory.into(), self.path_of(parent)), name))
    }

    /// Makes a directory and those above it, mode 0755, where they are missing.
    pub(super) fn make_directories(&self, path: &Path) -> Result<()> {
        let mut reached = PathBuf::from("/");
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let next = reached.join(name);
            if matches!(self.look(&next), Err(error) if error.kind() == io::ErrorKind::NotFound) {
                let (parent, name) = self.parent(&next)?;
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(Error::io("make", self.path_of(&next))(errno.into())),
                }
            }
            reached = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_link_nor_dots_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/hostname"), "inside").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for path in ["/etc/hostname", "/link/hostname", "/../../etc/hostname"] {
            let content = io::read_to_string(root.read(Path::new(path)).unwrap()).unwrap();
            assert_eq!(content, "inside", "{path}");
        }
    }

    #[test]
    fn missing_directories_are_made_and_present_ones_left() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.make_directories(Path::new("/a/b/c")).unwrap();
        std::fs::write(dir.path().join("a/b/c/file"), "x").unwrap();
        root.make_directories(Path::new("/a/b/c/d")).unwrap();
        assert!(dir.path().join("a/b/c/d").is_dir() && dir.path().join("a/b/c/file").exists());
    }
}
