//! One directory by its descriptor: what is in it, and changing it so that no name is ever half written.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use crate::error::{Error, Result};

/// How deep a checkpoint's own directories may be nested before it is taken for something else.
const DEPTH_LIMIT: u32 = 8;

/// A directory, open. The path is for messages only.
#[derive(Debug)]
pub(crate) struct Directory<F = OwnedFd> {
    fd: F,
    path: PathBuf,
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: CString,
    pub(crate) inode: u64,
}

impl Entry {
    pub(crate) fn os_name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.to_bytes())
    }
}

/// The file type bits of a mode.
pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

impl<F: AsFd> AsFd for Directory<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd> Directory<F> {
    pub(crate) fn new(fd: F, path: impl Into<PathBuf>) -> Self {
        Self { fd, path: path.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// After a rename.
    pub(crate) fn set_path(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// The path of a name in it, for messages.
    pub(crate) fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A descriptor of its own.
    pub(crate) fn file_descriptor(&self) -> Result<OwnedFd> {
        self.fd.as_fd().try_clone_to_owned().map_err(Error::io("open", &self.path))
    }

    /// A copy that only borrows the descriptor.
    pub(crate) fn borrowed(&self) -> Directory<BorrowedFd<'_>> {
        Directory { fd: self.fd.as_fd(), path: self.path.clone() }
    }

    /// All names in it but `.` and `..`, in no order.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        self.entries_up_to(usize::MAX)
    }

    /// The first names in it.
    pub(crate) fn entries_up_to(&self, limit: usize) -> Result<Vec<Entry>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let failed = |errno: Errno| Error::io("list", &self.path)(errno.into());
        let mut dir = Dir::openat(&self.fd, ".", flags, Mode::empty()).map_err(failed)?;
        let mut entries = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if entries.len() == limit {
                break;
            }
            entries.push(Entry { name: entry.file_name().to_owned(), inode: entry.ino() });
        }
        Ok(entries)
    }

    /// What the name itself is (a symbolic link is not followed); `None` if there is no such name.
    pub(crate) fn stat(&self, name: &OsStr) -> Result<Option<FileStat>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::io("look at", self.path_of(name))(errno.into())),
        }
    }

    /// A directory in it; a symbolic link is refused.
    pub(crate) fn directory(&self, name: &OsStr) -> Result<Directory> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path = self.path_of(name);
        let fd =
            openat(&self.fd, name, flags, Mode::empty()).map_err(|errno| Error::io("open", &path)(errno.into()))?;
        Ok(Directory { fd, path })
    }

    /// A plain file in it, to read; anything else is refused, and nothing is waited for.
    pub(crate) fn file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        if kind(&fstat(&fd)?) != SFlag::S_IFREG {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
        }
        Ok(fd.into())
    }

    /// A file in it that did not exist, to write, readable by its owner only.
    pub(crate) fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(&self.fd, name, flags, mode)?;
        // Whatever the umask takes away.
        fchmod(&file, mode)?;
        Ok(file.into())
    }

    /// The content of a plain file in it, or `None` if there is no such name. A file above `limit` bytes is given up on
    /// after `limit + 1`.
    pub(crate) fn read(&self, name: &OsStr, limit: u64) -> Result<Option<Vec<u8>>> {
        let failed = |source| Error::io("read", self.path_of(name))(source);
        let file = match self.file(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut content = Vec::new();
        file.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
        Ok(Some(content))
    }

    /// Replaces a file in it: at every moment the name is the whole old or the whole new file.
    pub(crate) fn replace(&self, name: &str, content: &[u8], flush: bool) -> Result<()> {
        let temporary = format!("{name}.new");
        let path = self.path_of(&temporary);
        match unlinkat(&self.fd, temporary.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::io("remove", &path)(errno.into())),
        }
        let mut file = self.create(OsStr::new(&temporary)).map_err(Error::io("create", &path))?;
        file.write_all(content).map_err(Error::io("write", &path))?;
        if flush {
            file.sync_all().map_err(Error::io("flush", &path))?;
        }
        renameat(&self.fd, temporary.as_str(), &self.fd, name)
            .map_err(|errno| Error::io("rename", &path)(errno.into()))?;
        if flush {
            self.flush()?;
        }
        Ok(())
    }

    /// Flushes the directory itself: its names, not the files.
    pub(crate) fn flush(&self) -> Result<()> {
        fsync(&self.fd).map_err(|errno| Error::io("flush", &self.path)(errno.into()))
    }

    /// Every plain file below it, by name relative to it (`files/3`), sorted; anything else is left out.
    pub(crate) fn files(&self) -> Result<Vec<OsString>> {
        let mut found = Vec::new();
        self.borrowed().files_into(Path::new(""), DEPTH_LIMIT, &mut found)?;
        found.sort();
        Ok(found)
    }

    fn files_into(&self, prefix: &Path, depth: u32, found: &mut Vec<OsString>) -> Result<()> {
        for entry in self.entries()? {
            let name = entry.os_name();
            let Some(stat) = self.stat(name)? else { continue };
            if kind(&stat) == SFlag::S_IFREG {
                found.push(prefix.join(name).into_os_string());
            } else if kind(&stat) == SFlag::S_IFDIR && depth > 0 {
                self.directory(name)?.files_into(&prefix.join(name), depth - 1, found)?;
            }
        }
        Ok(())
    }

    /// Removes all that is in it. Symbolic links are removed, never followed.
    pub(crate) fn clear(&self) -> Result<()> {
        self.borrowed().clear_to(DEPTH_LIMIT)
    }

    fn clear_to(&self, depth: u32) -> Result<()> {
        for entry in self.entries()? {
            let name = entry.os_name();
            let is_directory = self.stat(name)?.is_some_and(|stat| kind(&stat) == SFlag::S_IFDIR);
            if is_directory && depth > 0 {
                self.directory(name)?.clear_to(depth - 1)?;
            }
            self.unlink(name, if is_directory { Type::Directory } else { Type::File })?;
        }
        Ok(())
    }

    /// Removes one name; that it is gone already is no error.
    pub(crate) fn unlink(&self, name: &OsStr, what: Type) -> Result<()> {
        let flag = if what == Type::Directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        match unlinkat(&self.fd, name, flag) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::io("remove", self.path_of(name))(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Directory {
        Directory::new(File::open(path).unwrap().into(), path)
    }

    #[test]
    fn replacing_leaves_the_new_content_and_no_other_name() {
        let dir = tempfile::tempdir().unwrap();
        let directory = open(dir.path());
        std::fs::write(dir.path().join("a.new"), "left by a killed writer").unwrap();
        directory.replace("a", b"one", false).unwrap();
        directory.replace("a", b"two", true).unwrap();
        assert_eq!(directory.read(OsStr::new("a"), 100).unwrap().unwrap(), b"two");
        assert_eq!(directory.files().unwrap(), ["a"]);
    }

    #[test]
    fn reading_stops_one_byte_above_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [7; 1000]).unwrap();
        assert_eq!(open(dir.path()).read(OsStr::new("a"), 10).unwrap().unwrap().len(), 11);
    }

    #[test]
    fn a_fifo_and_a_symbolic_link_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let directory = open(dir.path());
        directory.read(OsStr::new("fifo"), 10).unwrap_err();
        directory.read(OsStr::new("link"), 10).unwrap_err();
        assert!(directory.read(OsStr::new("none"), 10).unwrap().is_none());
    }

    #[test]
    fn clearing_does_not_follow_a_symbolic_link_out() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("a/out")).unwrap();
        open(dir.path()).clear().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}
