//! Waiting for names to come to a directory, or to go from it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::swrk::readiness;

/// What the kernel has to tell at a time: names take up to 256 bytes each.
const BUFFER: usize = 4096;

/// Sees what happens to the names in one directory. Nothing that happens after it was made is missed.
#[derive(Debug)]
pub struct DirectoryWatch {
    /// There until it is dropped.
    inotify: Option<AsyncFd<OwnedFd>>,
    path: PathBuf,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The names that came, by being made or by a rename.
    pub came: Vec<OsString>,
    /// The names that went.
    pub went: Vec<OsString>,
    /// The directory itself has gone, or so much happened at once that some of it is not known.
    pub lost: bool,
}

impl DirectoryWatch {
    /// Begins to watch a directory.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not there or is no directory, or this user watches as many as it may.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O enabled.
    pub fn new(directory: &Path) -> Result<Self> {
        let failed = |source: io::Error| Error::io("watch the directory", directory)(source);
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, directory, flags).map_err(|errno| failed(errno.into()))?;
        let inotify = Some(readiness::watch(inotify, Interest::READABLE).map_err(failed)?);
        Ok(Self { inotify, path: directory.to_path_buf() })
    }

    /// Waits until something has happened.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Cancellation
    /// Dropping the future loses nothing; it may be called again.
    pub async fn changes(&self) -> Result<Changes> {
        let failed = |source: io::Error| Error::io("watch the directory", &self.path)(source);
        let Some(inotify) = &self.inotify else { return Err(failed(io::ErrorKind::NotConnected.into())) };
        loop {
            let mut ready = inotify.readable().await.map_err(failed)?;
            let mut changes = Changes::default();
            drain(inotify.get_ref(), &mut changes).map_err(failed)?;
            ready.clear_ready();
            if changes != Changes::default() {
                return Ok(changes);
            }
        }
    }
}

impl Drop for DirectoryWatch {
    /// The kernel takes 5 ms to take such a descriptor back, and whoever has seen what he waited for is in a hurry: a thread
    /// closes it.
    fn drop(&mut self) {
        let inotify = self.inotify.take().map(AsyncFd::into_inner);
        let _ = thread::Builder::new().name("crr-watch".into()).spawn(move || drop(inotify));
    }
}

fn drain(inotify: &OwnedFd, changes: &mut Changes) -> io::Result<()> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
    let mut reader = Reader::new(inotify, &mut buffer);
    loop {
        let event = match reader.next() {
            Ok(event) => event,
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let what = event.events();
        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_os_string());
        if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            changes.came.extend(name);
        } else if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            changes.went.extend(name);
        } else {
            changes.lost = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_that_come_and_go_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let watch = DirectoryWatch::new(directory.path()).unwrap();
        let [a, b] = ["a", "b"].map(|name| directory.path().join(name));
        std::fs::create_dir(&a).unwrap();
        assert_eq!(watch.changes().await.unwrap().came, ["a"]);
        std::fs::rename(&a, &b).unwrap();
        let changes = watch.changes().await.unwrap();
        assert_eq!((changes.came, changes.went), (vec!["b".into()], vec!["a".into()]));
        std::fs::remove_dir(&b).unwrap();
        assert_eq!(watch.changes().await.unwrap().went, ["b"]);
        directory.close().unwrap();
        assert!(watch.changes().await.unwrap().lost);
    }

    #[tokio::test]
    async fn what_is_not_there_cannot_be_watched() {
        let error = DirectoryWatch::new(Path::new("/no/such/directory")).unwrap_err().to_string();
        assert!(error.contains("/no/such/directory"), "{error}");
    }
}
