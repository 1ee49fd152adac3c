//! File locks and leases.

use crate::process::LockKind;
use crate::request::DumpSwitch;

use super::examine::{Examination, described, lacks, need};

pub(super) fn look(examination: &mut Examination<'_>) {
    for task in &examination.tree.tasks {
        for descriptor in &task.descriptors {
            let Some(lock) = descriptor.locks.first() else { continue };
            if descriptor.locks.iter().any(|lock| lock.kind == LockKind::Other) {
                examination.findings.will_not(
                    "unknown-lock",
                    task.pid(),
                    format!(
                        "{} holds a lock of a kind that CRIU does not know on {}",
                        described(task),
                        descriptor.path.display()
                    ),
                    "give up the lock or close the file",
                );
            } else if lacks(examination.intent, DumpSwitch::FileLocks) {
                need(&mut examination.needs.file_locks, task.pid(), || {
                    let kind = match lock.kind {
                        LockKind::Posix => "a lock (fcntl)",
                        LockKind::Flock => "a lock (flock)",
                        LockKind::OpenFile => "a lock (open file description)",
                        LockKind::Lease | LockKind::Other => "a lease",
                    };
                    format!("{} holds {kind} on {}", described(task), descriptor.path.display())
                });
            }
        }
    }
}
