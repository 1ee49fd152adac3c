//! What a restore of a container makes on this host, written down before it is made: `/run/crr/container-….json`.
//!
//! The file is locked for as long as the crr that wrote it lives. One that nobody holds is of a crr that was killed:
//! [`Journal::abandoned`] finds it, and [`Abandoned::undo`] removes what it names. Whoever is killed before `post-restore` is
//! answered leaves what has never run, and all of it is removed; afterwards CRIU goes on alone and the container runs, unless
//! CRIU was killed too.
//!
//! | killed | left |
//! |---|---|
//! | before the file is there | nothing |
//! | after | what the file names: the container's directory in the runtime's root without a state.json, empty cgroups, a directory of a clone |
//! | while CRIU works | CRIU finds the end of its socket and kills what it made; the rest as above |
//! | after `post-restore` was answered | a container that runs, and the file, which the next run removes |

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::scene::{self, Init};
use crate::error::{Error, Result};
use crate::host::RuntimeDirectory;

const PLACE: &str = "/run/crr";
const PREFIX: &str = "container-";
const VERSION: u32 = 1;
/// A journal names a dozen paths.
const SIZE_LIMIT: u64 = 1 << 20;
/// A crr that looks for what was left holds a journal for less; one that restores the container, for longer.
const LOOKED_AT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// What is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    version: u32,
    /// The container's name.
    pub(crate) id: String,
    /// Its directory in the runtime's root.
    pub(crate) state: PathBuf,
    /// Directories of cgroups that are made, those below others last.
    pub(crate) cgroups_made: Vec<PathBuf>,
    /// Directories of cgroups that the tree is put into: what is in them is of this restore.
    pub(crate) cgroups: Vec<PathBuf>,
    /// A directory of ours for a clone.
    pub(crate) clone: Option<PathBuf>,
    /// The tree's root, when `post-restore` is about to be answered.
    pub(crate) init: Option<Init>,
}

impl Entry {
    pub(crate) fn new(id: &str, state: &Path) -> Self {
        Self { version: VERSION, id: id.into(), state: state.into(), ..Self::default() }
    }

    /// Removes what is named here, of a tree that does not run. Goes on where something cannot be removed, and says so.
    pub(crate) fn undo(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut note = |result: io::Result<()>, path: &Path| {
            if let Err(error) = result {
                left.push(format!("`{}` is left: {error}", path.display()));
            }
        };
        for directory in &self.cgroups {
            note(cgroup::kill(directory), directory);
        }
        for directory in self.cgroups_made.iter().rev() {
            note(cgroup::remove(directory), directory);
        }
        note(scene::remove_state(&self.state), &self.state);
        if let Some(clone) = &self.clone {
            note(scene::remove_clone(clone), clone);
        }
        left
    }
}

/// The journal of a restore under way.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    entry: Entry,
}

impl Journal {
    /// Writes down that `entry` is about to be made.
    ///
    /// # Errors
    /// [`Error::Io`]. [`io::ErrorKind::WouldBlock`] within if another crr is restoring the same container.
    pub(crate) fn begin(entry: Entry) -> Result<Self> {
        RuntimeDirectory::at(PLACE).make()?;
        let digest = blake3::hash(entry.state.as_os_str().as_encoded_bytes()).to_hex();
        let path = Path::new(PLACE).join(format!("{PREFIX}{}.json", &digest[..16]));
        let deadline = Instant::now() + LOOKED_AT;
        loop {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let file = options.open(&path).map_err(Error::io("open", &path))?;
            match lock(&file) {
                // A crr that looks for what was left holds it for a moment, also before anything is written.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(LOOK);
                    continue;
                }
                locked => locked.map_err(Error::io("lock", &path))?,
            }
            // Between the two its last owner may have removed it.
            if is_same(&file, &path) {
                let mut journal = Self { path, file, entry };
                journal.write()?;
                return Ok(journal);
            }
        }
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Writes down what is about to be made as well.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Entry)) -> Result<()> {
        change(&mut self.entry);
        self.write()
    }

    /// One write: whoever is killed has written all of it or nothing. What is left of a longer one before is not read.
    fn write(&mut self) -> Result<()> {
        let written = (|| {
            let mut bytes = serde_json::to_vec(&self.entry)?;
            bytes.push(b'\n');
            self.file.write_all_at(&bytes, 0)?;
            self.file.set_len(bytes.len() as u64)
        })();
        written.map_err(Error::io("write", &self.path))
    }

    /// The container is there to stay.
    pub(crate) fn keep(self) -> Result<()> {
        scene::release_state(&self.entry.state).map_err(Error::io("remove a mark in", &self.entry.state))?;
        self.end()
    }

    /// There is nothing to undo any more.
    pub(crate) fn end(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }

    /// The journals that nobody holds.
    pub(crate) fn abandoned() -> Vec<Abandoned> {
        let names = RuntimeDirectory::at(PLACE).names(PREFIX);
        names.iter().filter_map(|name| Abandoned::take(&Path::new(PLACE).join(name))).collect()
    }
}

/// The journal of a crr that was killed. It is locked: two that clean up do not get in each other's way.
#[derive(Debug)]
pub(crate) struct Abandoned {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
    entry: Option<Entry>,
}

/// What became of a container whose crr was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs: nothing has to be undone.
    Runs,
    /// It has never run.
    Unfinished,
}

impl Abandoned {
    fn take(path: &Path) -> Option<Self> {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(path).ok()?;
        let metadata = file.metadata().ok()?;
        let is_sound = metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_sound || metadata.len() > SIZE_LIMIT || lock(&file).is_err() || !is_same(&file, path) {
            return None;
        }
        let mut text = Vec::new();
        (&file).take(SIZE_LIMIT).read_to_end(&mut text).ok()?;
        let first = serde_json::Deserializer::from_slice(&text).into_iter::<Entry>().next();
        let entry = first.and_then(Result::ok).filter(|entry| entry.version == VERSION);
        Some(Self { path: path.to_path_buf(), _file: file, entry })
    }

    /// The container.
    pub(crate) fn id(&self) -> &str {
        self.entry.as_ref().map_or("", |entry| &entry.id)
    }

    pub(crate) fn fate(&self) -> Fate {
        match self.entry.as_ref().and_then(|entry| entry.init) {
            Some(init) if init.is_alive() && !init.hangs() => Fate::Runs,
            // It ran and has ended since: its runtime knows it as stopped.
            Some(init) if !init.is_alive() => Fate::Runs,
            _ => Fate::Unfinished,
        }
    }

    /// Removes what the killed crr has left, and the journal. Says what could not be removed.
    pub(crate) fn undo(self) -> Vec<String> {
        let mut left = match (self.fate(), &self.entry) {
            (Fate::Unfinished, Some(entry)) => entry.undo(),
            (Fate::Runs, Some(entry)) => {
                let released = scene::release_state(&entry.state);
                released
                    .err()
                    .map(|error| format!("`{}` is left: {error}", entry.state.display()))
                    .into_iter()
                    .collect()
            }
            (_, None) => Vec::new(),
        };
        if left.is_empty() {
            if let Err(error) = fs::remove_file(&self.path) {
                left.push(format!("`{}` is left: {error}", self.path.display()));
            }
        }
        left
    }
}

/// Takes the lock that goes with the last descriptor of this opening.
fn lock(file: &File) -> io::Result<()> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another crr is restoring this container"))
        }
        other => Ok(other?),
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => inode(open) == inode(named),
        _ => false,
    }
}
