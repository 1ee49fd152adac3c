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
                continue;
            }
            // A lock of the open file belongs to whoever got the descriptor by fork as well.
            let shared = matches!(lock.kind, LockKind::Flock | LockKind::OpenFile);
            let holder = examination.holders.of_path(&descriptor.path).iter().find(|holder| holder.locks).cloned();
            if let Some(holder) = holder.filter(|_| shared) {
                examination.findings.warn(
                    "lock-outside",
                    task.pid(),
                    format!(
                        "{} shares the lock on {} with process {} ({}) outside the tree",
                        described(task),
                        descriptor.path.display(),
                        holder.pid,
                        holder.comm
                    ),
                    "the dump passes, but the restore waits for that process to give up the lock: let it close the file, or dump a \
                     tree that has both",
                );
            }
            if lacks(examination.intent, DumpSwitch::FileLocks) {
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
