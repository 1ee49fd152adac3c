//! Publishing a checkpoint: it is written beside its place and becomes what it is by one rename.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use super::directory::{Directory, kind};
use super::names::{FILES, INVENTORY, REMAPS, is_checkpoint_name};
use super::parallel::in_parallel;
use super::record::{RECORD_NAME, Record};
use super::trust::{self, Trust};
use super::{Checkpoint, problem};
use crate::error::{DirectoryProblem, Distrust, DistrustReason, Error, Result};

/// Another crr may remove a stale directory under our hands this many times.
const ATTEMPT_LIMIT: u32 = 8;
/// So many files are flushed at the same time.
const FLUSHING_THREADS: usize = 16;

/// Whether what is written is also made to survive a crash of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flush {
    /// It is on the disk before going on.
    #[default]
    Disk,
    /// It is left to the kernel (`--no-sync`).
    Leave,
}

/// A moment in publishing or taking back, told to the caller right after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// All files and `DIR.partial` itself are on the disk.
    Flushed,
    /// `DIR.partial` has become DIR.
    Renamed,
    /// The directory that holds DIR is on the disk.
    PlaceFlushed,
    /// DIR has become `DIR.partial` again.
    RenamedBack,
    /// DIR is what it was before the dump.
    Restored,
    /// The log has become `DIR.failed.log`.
    LogKept,
    /// What was in `DIR.partial` is gone.
    Cleared,
}

/// A checkpoint being written, in `DIR.partial`.
///
/// Dropped it is removed, and DIR is as it was: also after it was published, until [`Partial::stay`] says that the tree may be
/// gone.
#[derive(Debug)]
pub struct Partial {
    place: Directory,
    name: OsString,
    partial_name: OsString,
    directory: Directory<Lock>,
    before: Before,
    stage: Stage,
    stays: bool,
}

/// What DIR was before the dump.
#[derive(Clone, Copy, Debug)]
enum Before {
    Absent,
    Empty { mode: u32, uid: u32, gid: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Written,
    Published,
    Done,
}

/// A directory that is locked where its filesystem can do that.
#[derive(Debug)]
pub(super) enum Lock {
    Held(Flock<OwnedFd>),
    Unsupported(OwnedFd),
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(lock) => lock.as_fd(),
            Self::Unsupported(fd) => fd.as_fd(),
        }
    }
}

impl Lock {
    /// `None` if another process holds it.
    pub(super) fn take(fd: OwnedFd) -> Option<Self> {
        match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Some(Self::Held(lock)),
            Err((_, Errno::EWOULDBLOCK)) => None,
            Err((fd, _)) => Some(Self::Unsupported(fd)),
        }
    }
}

impl Partial {
    /// Makes `DIR.partial`, with mode 0700, for a DIR that is absent or an empty directory.
    ///
    /// # Errors
    /// [`Error::Directory`] names what is wrong with DIR and the cure, [`Error::Untrusted`] those above it whom others may
    /// write, so that they could exchange the checkpoint.
    pub fn create(dir: &Path, trust: Trust) -> Result<Self> {
        let (place, name) = place_of(dir, trust)?;
        let before = examine(dir, &place, &name)?;
        let mut partial_name = name.clone();
        partial_name.push(".partial");
        let path = place.path_of(&partial_name);
        for _ in 0..ATTEMPT_LIMIT {
            match mkdirat(&place, partial_name.as_os_str(), Mode::S_IRWXU) {
                Ok(()) => {}
                Err(Errno::EEXIST) => {
                    remove_stale(dir, &place, &partial_name, trust)?;
                    continue;
                }
                Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
                    return Err(problem(dir, DirectoryProblem::Unwritable));
                }
                Err(errno) => return Err(Error::io("make", &path)(errno.into())),
            }
            let Some(directory) = lock(&place, &partial_name)? else { continue };
            fchmod(&directory, Mode::S_IRWXU).map_err(|errno| Error::io("set the mode of", &path)(errno.into()))?;
            let stage = Stage::Written;
            return Ok(Self { place, name, partial_name, directory, before, stage, stays: false });
        }
        Err(problem(dir, DirectoryProblem::InUse(path)))
    }

    /// DIR, where the checkpoint will be.
    pub fn path(&self) -> PathBuf {
        self.place.path_of(&self.name)
    }

    /// `DIR.partial`, where it is written; DIR once it is published.
    pub fn partial_path(&self) -> PathBuf {
        self.directory.path().into()
    }

    /// Whether it has become DIR.
    pub fn is_published(&self) -> bool {
        self.stage == Stage::Published
    }

    /// Writes a file of mode 0600 beside the images, one of [`CONTAINER_FILES`](super::CONTAINER_FILES).
    ///
    /// # Errors
    /// [`Error::Io`] if it is there already or cannot be written.
    pub fn add(&self, name: &str, content: &[u8]) -> Result<()> {
        use std::io::Write as _;

        let written = self.directory.create(OsStr::new(name)).and_then(|mut file| file.write_all(content));
        written.map_err(Error::io("write", self.directory.path_of(name)))
    }

    /// Makes the checkpoint DIR: with [`Flush::Disk`] all of it is on the disk first, and the rename is before this returns.
    /// `at` is told of each step.
    ///
    /// # Errors
    /// [`Error::Directory`] if DIR has been filled meanwhile, [`Error::Io`] otherwise; [`is_published`](Self::is_published)
    /// says whether the rename was done before the failure.
    pub fn publish(&mut self, flush: Flush, mut at: impl FnMut(Step)) -> Result<()> {
        if flush == Flush::Disk {
            flush_files(&self.directory)?;
            at(Step::Flushed);
        }
        // A directory replaces only an empty directory: whatever has come to be there meanwhile is safe.
        renameat(&self.place, self.partial_name.as_os_str(), &self.place, self.name.as_os_str()).map_err(|errno| {
            let path = self.path();
            match errno {
                Errno::ENOTEMPTY | Errno::EEXIST => problem(&path, DirectoryProblem::NotEmpty("new files".into())),
                Errno::ENOTDIR => problem(&path, DirectoryProblem::NotADirectory),
                Errno::EBUSY => problem(&path, DirectoryProblem::MountPoint),
                _ => Error::io("rename to", path)(errno.into()),
            }
        })?;
        self.moved(Stage::Published);
        at(Step::Renamed);
        if flush == Flush::Disk {
            self.place.flush()?;
            at(Step::PlaceFlushed);
        }
        Ok(())
    }

    /// From here on the tree may be gone, and what was published stays whatever happens.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// Takes back what [`publish`](Self::publish) did: DIR is as it was before the dump. Only for a tree that is known to
    /// run on.
    ///
    /// # Errors
    /// [`Error::Io`] if DIR cannot be renamed or made again.
    pub fn unpublish(&mut self, mut at: impl FnMut(Step)) -> Result<()> {
        if self.stage != Stage::Published {
            return Ok(());
        }
        let path = self.path();
        renameat(&self.place, self.name.as_os_str(), &self.place, self.partial_name.as_os_str())
            .map_err(|errno| Error::io("rename back", &path)(errno.into()))?;
        self.moved(Stage::Written);
        at(Step::RenamedBack);
        if let Before::Empty { mode, uid, gid } = self.before {
            let failed = |errno: Errno| Error::io("make again", &path)(errno.into());
            mkdirat(&self.place, self.name.as_os_str(), Mode::S_IRWXU).map_err(failed)?;
            let again = self.place.directory(&self.name)?;
            fchown(&again, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
            fchmod(&again, Mode::from_bits_truncate(mode)).map_err(failed)?;
        }
        at(Step::Restored);
        Ok(())
    }

    /// Gives the checkpoint up: DIR is as it was, `DIR.partial` is gone, and the file `log` of it, if there is one, is now
    /// `DIR.failed.log` (mode 0600), whose path is returned.
    ///
    /// # Errors
    /// [`Error::Io`] for the first step that fails; what can be removed is removed all the same.
    pub fn abandon(mut self, log: Option<&str>, mut at: impl FnMut(Step)) -> Result<Option<PathBuf>> {
        self.unpublish(&mut at)?;
        let kept = log.map_or(Ok(None), |log| self.keep_log(log));
        at(Step::LogKept);
        self.stage = Stage::Done;
        let removed = self.remove(&mut at);
        let kept = kept?;
        removed.map(|()| kept)
    }

    /// Ends the writing: DIR is there to stay.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no descriptor left; DIR stays all the same.
    pub fn finish(mut self, record: Record) -> Result<Checkpoint> {
        self.stage = Stage::Done;
        let fd = self.directory.file_descriptor()?;
        Ok(Checkpoint { directory: Directory::new(fd, self.directory.path()), record: Some(record) })
    }

    fn moved(&mut self, stage: Stage) {
        self.stage = stage;
        let name = if stage == Stage::Published { &self.name } else { &self.partial_name };
        self.directory.set_path(self.place.path_of(name));
    }

    fn keep_log(&self, log: &str) -> Result<Option<PathBuf>> {
        let file = match self.directory.file(OsStr::new(log)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", self.directory.path_of(log))(error)),
        };
        let mut kept = self.name.clone();
        kept.push(".failed.log");
        let path = self.place.path_of(&kept);
        fchmod(&file, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| Error::io("set the mode of", &path)(errno.into()))?;
        renameat(&self.directory, log, &self.place, kept.as_os_str())
            .map_err(|errno| Error::io("keep the log as", &path)(errno.into()))?;
        Ok(Some(path))
    }

    fn remove(&self, mut at: impl FnMut(Step)) -> Result<()> {
        self.directory.clear()?;
        at(Step::Cleared);
        self.place.unlink(&self.partial_name, Type::Directory)
    }
}

impl AsFd for Partial {
    /// The directory that CRIU writes to; the same one before and after publishing.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.stage == Stage::Published && !self.stays {
            // What cannot be taken back is whole, and stays.
            let _ = self.unpublish(|_| {});
        }
        if self.stage == Stage::Written {
            // There is nobody to tell; the next dump to DIR removes what is left.
            let _ = self.remove(|_| {});
        }
    }
}

/// The directory that is to hold DIR, and DIR's name in it.
pub(super) fn place_of(dir: &Path, trust: Trust) -> Result<(Directory, OsString)> {
    let is_missing =
        |error: &Error| matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    let is_no_directory = |error: &Error| matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(Errno::ENOTDIR as i32));
    let real = match trust::open_directory(dir, Trust::Anyone) {
        Ok((directory, _)) => directory.path().to_path_buf(),
        Err(error) if is_no_directory(&error) => return Err(problem(dir, DirectoryProblem::NotADirectory)),
        Err(error) if is_missing(&error) => std::path::absolute(dir).map_err(Error::io("find", dir))?,
        Err(error) => return Err(error),
    };
    let (Some(above), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(problem(dir, DirectoryProblem::NoName));
    };
    let (place, mut found) = trust::open_place(above, trust)
        .map_err(|error| if is_missing(&error) { problem(dir, DirectoryProblem::ParentMissing) } else { error })?;
    if real != std::path::absolute(dir).map_err(Error::io("find", dir))? {
        // Links on the way to the real place count as well.
        let (_, more) = trust::open_directory(dir, trust).map_or_else(|_| trust::open_directory(above, trust), Ok)?;
        found.extend(more.into_iter().filter(|distrust| !found.contains(distrust)).collect::<Vec<_>>());
    }
    trust::believed(dir, found)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(&place, ".", flags, Mode::empty()).map_err(|errno| Error::io("open", above)(errno.into()))?;
    Ok((Directory::new(fd, place.path()), name.to_owned()))
}

/// What DIR is now, or why it cannot be dumped to.
fn examine(dir: &Path, place: &Directory, name: &OsStr) -> Result<Before> {
    let Some(stat) = place.stat(name)? else { return Ok(Before::Absent) };
    if kind(&stat) != SFlag::S_IFDIR {
        return Err(problem(dir, DirectoryProblem::NotADirectory));
    }
    let directory = place.directory(name)?;
    if mount_id(&directory)? != mount_id(place)? {
        return Err(problem(dir, DirectoryProblem::MountPoint));
    }
    let holds = |name| Ok::<_, Error>(directory.stat(OsStr::new(name))?.is_some());
    if holds(INVENTORY)? || holds(RECORD_NAME)? {
        return Err(problem(dir, DirectoryProblem::HoldsCheckpoint));
    }
    match directory.entries_up_to(1)?.first() {
        Some(entry) => {
            let name = entry.os_name().to_string_lossy().into_owned();
            Err(problem(dir, DirectoryProblem::NotEmpty(name)))
        }
        None => Ok(Before::Empty { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }),
    }
}

/// The mount that a descriptor is on.
pub(super) fn mount_id(directory: &Directory<impl AsFd>) -> Result<String> {
    use std::os::fd::AsRawFd as _;

    let path = format!("/proc/self/fdinfo/{}", directory.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    Ok(text.lines().find(|line| line.starts_with("mnt_id:")).unwrap_or_default().to_string())
}

/// Opens and locks the directory of that name; `None` if another process has taken it away or is at it.
fn lock(place: &Directory, name: &OsStr) -> Result<Option<Directory<Lock>>> {
    let path = place.path_of(name);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = match openat(place, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(Error::io("open", path)(errno.into())),
    };
    let stat = fstat(&fd).map_err(|errno| Error::io("look at", &path)(errno.into()))?;
    let Some(lock) = Lock::take(fd) else { return Ok(None) };
    // It may have been removed between opening and locking.
    let same = |now: FileStat| (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino);
    Ok(place.stat(name)?.is_some_and(same).then(|| Directory::new(lock, path)))
}

/// Removes a `DIR.partial` that a killed crr has left.
fn remove_stale(dir: &Path, place: &Directory, name: &OsStr, trust: Trust) -> Result<()> {
    let path = place.path_of(name);
    let Some(stat) = place.stat(name)? else { return Ok(()) };
    if kind(&stat) != SFlag::S_IFDIR {
        return Err(problem(dir, DirectoryProblem::ForeignPartial(path, "no directory at all".into())));
    }
    if let Trust::Owners(caller) = trust {
        if !caller.may_own(&stat) {
            let found = vec![Distrust { path, why: DistrustReason::Owner(stat.st_uid) }];
            return Err(Error::Untrusted { dir: dir.into(), found });
        }
    }
    let Some(stale) = lock(place, name)? else {
        return match place.stat(name)? {
            Some(_) => Err(problem(dir, DirectoryProblem::InUse(path))),
            None => Ok(()),
        };
    };
    if let Some(entry) = stale.entries()?.iter().find(|entry| !is_checkpoint_name(entry.os_name())) {
        let name = entry.os_name().to_string_lossy().into_owned();
        return Err(problem(dir, DirectoryProblem::ForeignPartial(path, name)));
    }
    stale.clear()?;
    place.unlink(name, Type::Directory)
}

/// Flushes every file at once: the filesystem then commits them together. One after the other, 20 files took 90 ms where
/// this took 2, and 500 files seconds where this took 40 ms (ext4; there syncfs(2) was no faster, and it waits for what other
/// programs have written as well).
fn flush_files(directory: &Directory<impl AsFd + Sync>) -> Result<()> {
    let flush = |name: &OsString| directory.file(name).and_then(|file| file.sync_all());
    for (name, flushed) in in_parallel(directory.files()?, FLUSHING_THREADS, flush) {
        flushed.map_err(Error::io("flush", directory.path_of(name)))?;
    }
    // Those below it; itself in the end.
    for name in [FILES, REMAPS] {
        if directory.stat(OsStr::new(name))?.is_some() {
            directory.directory(OsStr::new(name))?.flush()?;
        }
    }
    directory.flush()
}

#[cfg(test)]
mod tests;
