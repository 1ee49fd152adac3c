//! Who may have written a checkpoint: restore runs what the images say, as root.
//!
//! A directory is believed if nobody but root and the caller could have put anything into it: they own it, all that is in
//! it and every directory above it, and nobody else may write any of these. POSIX access lists need no look of their own:
//! what one grants is limited by its mask, and the mask is what the group bits of the mode show.
//!
//! The path is walked one name at a time from `/`, each name opened below the descriptor of the one before without
//! following links, so that what was checked is what is opened in the end.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::getuid;

use super::directory::{Directory, kind};
use crate::error::{Distrust, DistrustReason, Error, Result};

/// As many symbolic links as the kernel follows in one path.
const LINK_LIMIT: u32 = 40;
/// A chain of parent images is not longer than this.
const PARENT_LIMIT: u32 = 1024;
/// No more than this many reasons are collected.
const REASON_LIMIT: usize = 1000;

/// The user for whom crr runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    uid: u32,
}

impl Caller {
    /// The real user or, where root runs crr, the user who called sudo (`$SUDO_UID`).
    pub fn current() -> Self {
        let sudo = std::env::var("SUDO_UID").ok();
        Self::from_parts(getuid().as_raw(), sudo.as_deref())
    }

    /// This user.
    pub fn user(uid: u32) -> Self {
        Self { uid }
    }

    fn from_parts(real: u32, sudo: Option<&str>) -> Self {
        let sudo = sudo.and_then(|text| text.parse().ok());
        Self { uid: if real == 0 { sudo.unwrap_or(0) } else { real } }
    }

    pub(crate) fn may_own(self, stat: &FileStat) -> bool {
        stat.st_uid == 0 || stat.st_uid == self.uid
    }
}

/// Which checkpoint directories are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that only root and the caller can have written.
    Owners(Caller),
    /// All (`--trust-images`).
    Anyone,
}

impl Trust {
    /// Only what root and the present caller can have written.
    pub fn owners() -> Self {
        Self::Owners(Caller::current())
    }
}

/// Opens a directory (`O_PATH`) and says why it, or one above it, is not to be believed. What is in it is not looked at.
///
/// # Errors
/// [`Error::Io`] if it is not there or is no directory.
pub(crate) fn open_directory(path: &Path, trust: Trust) -> Result<(Directory, Vec<Distrust>)> {
    let absolute = std::path::absolute(path).map_err(Error::io("find", path))?;
    let mut walk = Walk::new(trust);
    let root = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::io("open", "/")(errno.into()))?;
    let (fd, real) = walk.resolve(root, PathBuf::from("/"), &absolute)?;
    let stat = fstat(&fd).map_err(|errno| Error::io("look at", path)(errno.into()))?;
    if kind(&stat) != SFlag::S_IFDIR {
        return Err(Error::io("open", path)(Errno::ENOTDIR.into()));
    }
    Ok((Directory::new(fd, real), walk.found))
}

/// Opens the directory in which a checkpoint is to be made: one that others may write is not believed, unless it is
/// sticky, so that nobody can take away what the caller makes there.
pub(crate) fn open_place(path: &Path, trust: Trust) -> Result<(Directory, Vec<Distrust>)> {
    let (directory, found) = open_directory(path, trust)?;
    let stat = fstat(&directory).map_err(|errno| Error::io("look at", path)(errno.into()))?;
    let mut walk = Walk::new(trust);
    walk.found = found;
    walk.judge_passage(&stat, directory.path(), None);
    Ok((directory, walk.found))
}

/// Adds to what was found on the way why a checkpoint directory, and all that is in it, is not to be believed.
pub(crate) fn contents(directory: &Directory<impl AsFd>, trust: Trust, found: Vec<Distrust>) -> Result<Vec<Distrust>> {
    let mut walk = Walk::new(trust);
    walk.found = found;
    if trust != Trust::Anyone {
        walk.contents(&directory.borrowed(), PARENT_LIMIT)?;
    }
    Ok(walk.found)
}

/// [`Error::Untrusted`] unless there is nothing to say.
pub(crate) fn believed(dir: &Path, found: Vec<Distrust>) -> Result<()> {
    if found.is_empty() { Ok(()) } else { Err(Error::Untrusted { dir: dir.into(), found }) }
}

struct Walk {
    trust: Trust,
    links: u32,
    /// Device and inode of the directories looked into, as links may lead in a circle.
    seen: HashSet<(u64, u64)>,
    found: Vec<Distrust>,
}

impl Walk {
    fn new(trust: Trust) -> Self {
        Self { trust, links: 0, seen: HashSet::new(), found: Vec::new() }
    }

    fn report(&mut self, path: &Path, why: DistrustReason) {
        let distrust = Distrust { path: path.into(), why };
        if self.found.len() < REASON_LIMIT && !self.found.contains(&distrust) {
            self.found.push(distrust);
        }
    }

    /// Who owns it, and for all but symbolic links (which have no mode) who may write it.
    fn judge(&mut self, stat: &FileStat, path: &Path) {
        let Trust::Owners(caller) = self.trust else { return };
        if !caller.may_own(stat) {
            self.report(path, DistrustReason::Owner(stat.st_uid));
        }
        if kind(stat) != SFlag::S_IFLNK && stat.st_mode & 0o022 != 0 {
            self.report(path, DistrustReason::Writable(stat.st_mode & 0o7777));
        }
    }

    /// The same for a directory through which the path goes on to `next`: in a sticky one nobody can take another's name
    /// away, so that all depends on who owns `next`, which is judged in its turn.
    fn judge_passage(&mut self, stat: &FileStat, path: &Path, next: Option<(&FileStat, &Path)>) {
        let Trust::Owners(caller) = self.trust else { return };
        if stat.st_mode & Mode::S_ISVTX.bits() == 0 {
            return self.judge(stat, path);
        }
        if !caller.may_own(stat) {
            self.report(path, DistrustReason::Owner(stat.st_uid));
        }
        if let Some((next, next_path)) = next.filter(|(next, _)| !caller.may_own(next)) {
            self.report(next_path, DistrustReason::Owner(next.st_uid));
        }
    }

    /// Walks `path` from `at` and gives what it leads to, opened with `O_PATH`, and the path without symbolic links. All
    /// that is passed through is judged, what is reached is not.
    fn resolve(&mut self, mut at: OwnedFd, mut real: PathBuf, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut pending: VecDeque<OsString> = names(path);
        while let Some(name) = pending.pop_front() {
            let failed = |errno: Errno| Error::io("open", real.join(&name))(errno.into());
            if name == "/" {
                at = open("/", flags, Mode::empty()).map_err(failed)?;
                real = PathBuf::from("/");
                continue;
            }
            if name == ".." {
                at = openat(&at, "..", flags, Mode::empty()).map_err(failed)?;
                real.pop();
                continue;
            }
            let next = openat(&at, name.as_os_str(), flags, Mode::empty()).map_err(failed)?;
            let next_stat = fstat(&next).map_err(failed)?;
            let stat = fstat(&at).map_err(failed)?;
            let next_path = real.join(&name);
            self.judge_passage(&stat, &real, Some((&next_stat, &next_path)));
            if kind(&next_stat) != SFlag::S_IFLNK {
                at = next;
                real = next_path;
                continue;
            }
            self.judge(&next_stat, &next_path);
            self.links += 1;
            if self.links > LINK_LIMIT {
                return Err(failed(Errno::ELOOP));
            }
            let target = readlinkat(&next, OsStr::new("")).map_err(failed)?;
            for name in names(Path::new(&target)).into_iter().rev() {
                pending.push_front(name);
            }
        }
        Ok((at, real))
    }

    fn contents(&mut self, directory: &Directory<impl AsFd>, parents: u32) -> Result<()> {
        let stat = fstat(directory).map_err(|errno| Error::io("look at", directory.path())(errno.into()))?;
        if !self.seen.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.judge(&stat, directory.path());
        for entry in directory.entries()? {
            let name = entry.os_name();
            let path = directory.path_of(name);
            let Some(stat) = directory.stat(name)? else { continue };
            match kind(&stat) {
                SFlag::S_IFREG => self.judge(&stat, &path),
                SFlag::S_IFLNK => self.link(directory, name, parents)?,
                SFlag::S_IFDIR if parents > 0 => self.contents(&directory.directory(name)?, parents - 1)?,
                _ => self.report(&path, DistrustReason::Kind),
            }
        }
        Ok(())
    }

    /// A symbolic link in a checkpoint: `parent`, which leads to the images before it, or one to a file kept elsewhere.
    fn link(&mut self, directory: &Directory<impl AsFd>, name: &OsStr, parents: u32) -> Result<()> {
        self.links = 0;
        let path = directory.path_of(name);
        let start = directory.as_fd().try_clone_to_owned().map_err(Error::io("open", directory.path()))?;
        let Ok((fd, real)) = self.resolve(start, directory.path().into(), Path::new(name)) else {
            self.report(&path, DistrustReason::Dangling);
            return Ok(());
        };
        let stat = fstat(&fd).map_err(|errno| Error::io("look at", &real)(errno.into()))?;
        match kind(&stat) {
            SFlag::S_IFREG => self.judge(&stat, &real),
            SFlag::S_IFDIR if parents > 0 => self.contents(&Directory::new(fd, real), parents - 1)?,
            _ => self.report(&real, DistrustReason::Kind),
        }
        Ok(())
    }
}

/// The names of a path in order; an absolute one begins with `/`.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| !matches!(component, Component::CurDir | Component::Prefix(_)))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests;
