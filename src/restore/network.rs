//! The network lock that the dump left for this restore.

use super::problem::Remarks;
use super::subject::Subject;
use crate::host::netlock::{Connection, Ledger, Locks, Owner};

/// What is needed to find the lock again. CRIU removes it when the connections are there; this is for one that stayed.
#[derive(Debug)]
pub(super) struct Lock {
    run_id: Option<String>,
    connections: Vec<Connection>,
}

impl Lock {
    /// The lock of this dump, if it can have left one here.
    pub(super) fn of(subject: &Subject) -> Option<Self> {
        let connections = subject.local.clone();
        (!connections.is_empty()).then(|| Self { run_id: subject.run_id.clone(), connections })
    }

    /// Removes what is left of it, now that the connections are there.
    pub(super) fn remove(self, remarks: &mut Remarks) {
        let locks = Locks::look();
        let owner = Owner { run_id: self.run_id.as_deref(), connections: &self.connections };
        for lock in locks.of(owner) {
            if let Err(error) = lock.remove() {
                remarks.warn(format!("the network lock of the dump is still there: {error}"));
            }
        }
        if let Some(Err(error)) = self.run_id.map(|run_id| Ledger::default().forget(&run_id)) {
            remarks.warn(format!("the note about the network lock is still there: {error}"));
        }
    }
}
