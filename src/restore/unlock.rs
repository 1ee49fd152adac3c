//! Giving up the connections of a checkpoint that will not be restored here.

use std::os::fd::AsFd;
use std::path::Path;

use super::subject::Subject;
use crate::checkpoint::{Checkpoint, Trust};
use crate::error::{Error, Result};
use crate::host::netlock::{Ledger, Lock, Locks, Owner};
use crate::images::Images;

/// What [`unlock`] did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Unlocked {
    /// The locks that were removed.
    pub removed: Vec<Lock>,
    /// What could not be looked at, and why.
    pub unread: Vec<String>,
}

/// Removes the network lock that the dump of a checkpoint left on this host. From then on the kernel answers the peers that
/// there is no such connection, and they end: a restore with `--tcp-established` is not possible any more.
///
/// # Errors
/// As [`Checkpoint::open`]; [`Error::Image`] if the images do not say whose lock it is; [`Error::System`] if a lock cannot be
/// removed.
pub fn unlock(directory: &Path, trust: Trust) -> Result<Unlocked> {
    let checkpoint = Checkpoint::open(directory, trust)?;
    let copy = checkpoint.as_fd().try_clone_to_owned().map_err(Error::io("open", checkpoint.path()))?;
    let subject = Subject::read(&Images::from_directory(copy, checkpoint.path()))?;
    let Locks { found, unread } = Locks::look();
    let owner = Owner { run_id: subject.run_id.as_deref(), connections: &subject.connections };
    let mut removed = Vec::new();
    for lock in found.into_iter().filter(|lock| lock.belongs_to(owner)) {
        lock.remove()?;
        removed.push(lock);
    }
    if let Some(run_id) = &subject.run_id {
        Ledger::default().forget(run_id)?;
    }
    Ok(Unlocked { removed, unread })
}
