//! What a process that holds a migration writes down before it acts: `/var/lib/crr/migrations/ID/record.json`.
//!
//! The record is replaced as a whole: another file is written, flushed, and renamed, and the directory is flushed. Whoever is
//! killed in between leaves the old record or the new one ([`Journal::write`]); `tests` below kills a writer after each step.
//!
//! | killed after | left |
//! |---|---|
//! | the directory was made | a directory without a record: of no migration; the next to look removes it |
//! | `record.json.new` was made, written or flushed | the old record, and a file that the next write replaces |
//! | it was renamed | the new record |
//! | `record.json` was removed | no record, which means abort; the next to look removes the directory |
//!
//! **Where.** Records must outlive a reboot, so they are not in /run: a source that has committed must know it when it comes up
//! again, or it would say *abort* to the target that asks, and that has the only copy left. Sockets and images of a migration
//! are in /run/crr/migrations/ID and on a tmpfs: they are worth nothing after a reboot, as both trees then are gone.
//! [`Entry::boot`] tells whether what a record names can still be there.
//!
//! **Who.** The process that holds a migration has its directory locked (`flock`) as long as it lives. A journal that nobody
//! holds is of a process that died: whoever locks it goes on from its record ([`Journal::take_up`]).

mod entry;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

pub use self::entry::{Entry, RecordedAddress, RecordedReuse, RecordedTask, State, TaskCgroup};
use crate::error::{Error, Result};
use crate::wire::Id;

/// Where records are kept.
pub const PLACE: &str = "/var/lib/crr/migrations";

const NAME: &str = "record.json";
const NEW: &str = "record.json.new";
/// A tree of 30,000 tasks with a descriptor each takes about 8 MiB.
const SIZE_LIMIT: u64 = 64 << 20;

/// The journal of a migration that this process holds.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Holds the lock.
    directory: OwnedFd,
}

/// A record that could not be written or removed.
#[derive(Debug)]
pub struct Unwritten {
    /// What is on disk now.
    pub stands: Stands,
    /// Why.
    pub source: Error,
}

/// What is on disk after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// What was there before: for [`Machine::unwritten`](super::machine::Machine::unwritten).
    Before,
    /// Nobody knows. The process must end without doing anything, and the next one goes by what it reads.
    Unknown,
}

/// A moment in which a writer may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Made,
    Written,
    Flushed,
    Renamed,
    Removed,
}

/// A migration that has a directory here.
#[derive(Debug)]
pub struct Listed {
    /// Which.
    pub id: Id,
    /// Whether a process holds it.
    pub is_held: bool,
    /// Its record. An unreadable one is not an absent one: nothing may be concluded from it.
    pub entry: Result<Option<Entry>>,
}

impl Journal {
    /// Begins the journal of a new migration in `place`, such as [`PLACE`]. There is no record yet.
    ///
    /// # Errors
    /// [`Error::Io`]; [`io::ErrorKind::AlreadyExists`] within if there is one of this name.
    pub fn create(place: &Path, id: Id) -> Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(place).map_err(Error::io("make", place))?;
        check_private(place)?;
        let path = place.join(id.to_string());
        let made = DirBuilder::new().mode(0o700).create(&path).and_then(|()| {
            let directory = open(&path)?;
            lock(&directory)?;
            // Who looks for what was left may have removed it in between.
            if !is_same(&directory, &path) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            rustix::fs::fsync(open(place)?)?;
            Ok(directory)
        });
        let directory = made.map_err(Error::io("make", &path))?;
        Ok(Self { path, directory })
    }

    /// Takes up a journal that nobody holds. `None` if there is no record: then the directory is removed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`io::ErrorKind::WouldBlock`] within if a process holds it. [`Error::Journal`] if it cannot be read.
    pub fn take_up(place: &Path, id: Id) -> Result<Option<(Self, Entry)>> {
        let path = place.join(id.to_string());
        check_private(place)?;
        let directory = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        lock(&directory).map_err(Error::io("lock", &path))?;
        if !is_same(&directory, &path) {
            return Ok(None);
        }
        let mut journal = Self { path, directory };
        match read(&journal.path)? {
            Some(entry) => Ok(Some((journal, entry))),
            None => {
                journal.clear();
                Ok(None)
            }
        }
    }

    /// All journals in `place`, by id. Removes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if the place cannot be read or is not private to this user. One that is not there has none.
    pub fn list(place: &Path) -> Result<Vec<Listed>> {
        let entries = match fs::read_dir(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", place))?,
        };
        check_private(place)?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("read", place))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<Id>().ok()) else { continue };
            let path = place.join(&name);
            // A shared lock: those who list do not take each other for holders.
            let held = |directory| rustix::fs::flock(directory, FlockOperation::NonBlockingLockShared).is_err();
            let is_held = open(&path).is_ok_and(held);
            found.push(Listed { id, is_held, entry: read(&path) });
        }
        found.sort_by_key(|listed| listed.id);
        Ok(found)
    }

    /// Replaces the record. When this returns without an error it is durable.
    ///
    /// # Errors
    /// [`Unwritten`], which says what is on disk.
    pub fn write(&mut self, entry: &Entry) -> Result<(), Unwritten> {
        self.write_seen(entry, &mut |_| {})
    }

    fn write_seen(&mut self, entry: &Entry, seen: &mut dyn FnMut(Moment)) -> Result<(), Unwritten> {
        let path = self.path.join(NAME);
        let bytes = entry.to_bytes().map_err(|problem| self.stands(Error::Journal { path: path.clone(), problem }))?;
        if let Err(source) = self.write_new(&bytes, seen) {
            // It would take room that the next record needs.
            let _ = rustix::fs::unlinkat(&self.directory, NEW, AtFlags::empty());
            return Err(self.stands(Error::Io { attempt: "write", path, source }));
        }
        // What a failed rename did not do it has not done.
        rustix::fs::renameat(&self.directory, NEW, &self.directory, NAME)
            .map_err(|errno| self.stands(Error::Io { attempt: "write", path: path.clone(), source: errno.into() }))?;
        seen(Moment::Renamed);
        rustix::fs::fsync(&self.directory).map_err(|errno| Unwritten {
            stands: Stands::Unknown,
            source: Error::Io { attempt: "flush", path: self.path.clone(), source: errno.into() },
        })
    }

    fn write_new(&self, bytes: &[u8], seen: &mut dyn FnMut(Moment)) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.directory, NEW, flags, Mode::from_raw_mode(0o600))?);
        seen(Moment::Made);
        file.write_all(bytes)?;
        seen(Moment::Written);
        file.sync_all()?;
        seen(Moment::Flushed);
        Ok(())
    }

    /// Removes the record, and then what is left of the directory. When this returns without an error there is none.
    ///
    /// # Errors
    /// [`Unwritten`], which says what is on disk.
    pub fn erase(&mut self) -> Result<(), Unwritten> {
        self.erase_seen(&mut |_| {})
    }

    fn erase_seen(&mut self, seen: &mut dyn FnMut(Moment)) -> Result<(), Unwritten> {
        let failed = |stands, errno: rustix::io::Errno| Unwritten {
            stands,
            source: Error::Io { attempt: "remove", path: self.path.join(NAME), source: errno.into() },
        };
        match rustix::fs::unlinkat(&self.directory, NAME, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(failed(Stands::Before, errno)),
        }
        seen(Moment::Removed);
        rustix::fs::fsync(&self.directory).map_err(|errno| failed(Stands::Unknown, errno))?;
        self.clear();
        Ok(())
    }

    /// Removes a directory without a record. What cannot be removed now is by the next who looks.
    fn clear(&mut self) {
        let _ = rustix::fs::unlinkat(&self.directory, NEW, AtFlags::empty());
        let _ = fs::remove_dir(&self.path);
    }

    fn stands(&self, source: Error) -> Unwritten {
        Unwritten { stands: Stands::Before, source }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The record in a journal's directory.
fn read(directory: &Path) -> Result<Option<Entry>> {
    let path = directory.join(NAME);
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("open", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
    Entry::parse(&bytes).map(Some).map_err(|problem| Error::Journal { path, problem })
}

fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}

fn lock(directory: &OwnedFd) -> io::Result<()> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another crr holds this migration"))
        }
        locked => Ok(locked?),
    }
}

fn is_same(directory: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(directory), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Whoever else could write there could have a tree run twice.
fn check_private(place: &Path) -> Result<()> {
    let metadata = place.symlink_metadata().map_err(Error::io("look at", place))?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    match metadata.is_dir() && own && metadata.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(Error::Io {
            attempt: "trust",
            path: place.into(),
            source: io::Error::new(io::ErrorKind::PermissionDenied, "it is not this user's alone to write"),
        }),
    }
}
