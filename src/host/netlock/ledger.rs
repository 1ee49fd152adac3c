//! Which checkpoint a lock belongs to, as long as the lock can exist.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Connection, Lock, Owner};
use crate::error::Result;
use crate::host::runtime::RuntimeDirectory;

const PREFIX: &str = "lock-";

/// Notes, one for each dump that left a lock, saying which checkpoint it is for.
///
/// Locks end at the next boot, and so do the notes: they are in [`RuntimeDirectory`].
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    directory: RuntimeDirectory,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The run ID of the dump.
    pub run_id: String,
    /// The directory of the checkpoint. Absolute.
    pub checkpoint: PathBuf,
    /// The connections that are locked.
    pub connections: Vec<Connection>,
}

impl Entry {
    /// Whether it speaks of `lock`.
    pub fn owns(&self, lock: &Lock) -> bool {
        lock.belongs_to(Owner { run_id: Some(&self.run_id), connections: &self.connections })
    }
}

impl Ledger {
    /// A ledger in another directory than `/run/crr`.
    pub fn at(directory: RuntimeDirectory) -> Self {
        Self { directory }
    }

    /// Notes that a dump leaves a lock. To be called before the tree is killed.
    ///
    /// # Errors
    /// As [`RuntimeDirectory::write`].
    pub fn note(&self, entry: &Entry) -> Result<()> {
        self.directory.write(&file_name(&entry.run_id), entry)
    }

    /// Forgets the lock of a dump, which was removed.
    ///
    /// # Errors
    /// As [`RuntimeDirectory::remove`].
    pub fn forget(&self, run_id: &str) -> Result<()> {
        self.directory.remove(&file_name(run_id))
    }

    /// All notes.
    pub fn entries(&self) -> Vec<Entry> {
        self.directory.names(PREFIX).iter().filter_map(|name| self.directory.read(name)).collect()
    }

    /// Those of `locks` whose checkpoint is not known: no note speaks of it, or the directory noted is gone.
    pub fn unknown<'a>(&self, locks: &'a [Lock]) -> Vec<&'a Lock> {
        let entries = self.entries();
        let known = |lock: &Lock| entries.iter().any(|entry| is_there(&entry.checkpoint) && entry.owns(lock));
        locks.iter().filter(|lock| !known(lock)).collect()
    }
}

fn is_there(checkpoint: &Path) -> bool {
    checkpoint.join("inventory.img").exists()
}

/// A run ID is a UUID; anything else in an image must not choose a path.
fn file_name(run_id: &str) -> String {
    let safe: String = run_id.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    format!("{PREFIX}{safe}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_while_its_checkpoint_is_there() {
        let scratch = tempfile::tempdir().expect("directory");
        let ledger = Ledger::at(RuntimeDirectory::at(scratch.path().join("run")));
        let checkpoint = scratch.path().join("img");
        std::fs::create_dir(&checkpoint).expect("directory");
        std::fs::write(checkpoint.join("inventory.img"), "").expect("file");
        let run_id = "8f891d4e-0afd-47be-8439-0123456789ab";
        let locks = [Lock::Table { name: "CRIU-8f891d4e-0afd-47be-84".into() }];
        assert_eq!(ledger.unknown(&locks).len(), 1, "nothing is noted");
        let entry = Entry { run_id: run_id.into(), checkpoint: checkpoint.clone(), connections: Vec::new() };
        ledger.note(&entry).expect("noted");
        assert_eq!(ledger.entries(), [entry]);
        assert_eq!(ledger.unknown(&locks).len(), 0);
        std::fs::remove_dir_all(&checkpoint).expect("removed");
        assert_eq!(ledger.unknown(&locks).len(), 1, "the checkpoint is gone");
        ledger.forget(run_id).expect("forgotten");
        assert_eq!(ledger.entries(), []);
    }

    #[test]
    fn a_run_id_chooses_no_path() {
        assert_eq!(file_name("../../etc/passwd"), "lock-etcpasswd.json");
    }
}
