//! What of the tree's is open outside of it as well.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::process::{Extra, Holders, Kind, LockKind, Memory, Tree, Wanted};

use super::examine::{Examination, described};

/// How far up the ancestors of the root are asked for memory that they share with the tree.
const ANCESTORS: usize = 8;

/// Searches for whoever has the tree's pipes, sockets, terminals and locks open.
pub(super) fn holders(tree: &Tree) -> Holders {
    let mut wanted = Wanted::default();
    let mut slaves = BTreeSet::new();
    let mut masters = BTreeSet::new();
    for descriptor in tree.tasks.iter().flat_map(|task| &task.descriptors) {
        match (&descriptor.kind, &descriptor.extra) {
            (Kind::Pipe | Kind::Socket, _) => {
                wanted.inodes.insert(descriptor.inode);
            }
            (Kind::CharacterDevice, Extra::PtyMaster(index)) => {
                masters.insert(PathBuf::from(format!("/dev/pts/{index}")));
            }
            (Kind::CharacterDevice, _) => {
                slaves.insert(descriptor.path.clone());
            }
            _ if descriptor.locks.iter().any(|lock| matches!(lock.kind, LockKind::Flock | LockKind::OpenFile)) => {
                wanted.paths.insert(descriptor.path.clone());
            }
            _ => {}
        }
    }
    wanted.paths.extend(masters.difference(&slaves).cloned());
    let peers = tree.sockets.values().filter_map(|socket| socket.unix.as_ref()).map(|unix| unix.peer);
    wanted.inodes.extend(peers.filter(|peer| *peer != 0));
    Holders::search(|pid| tree.has(pid), &wanted)
}

/// Memory that the tree shares with whoever started it.
pub(super) fn look(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    if tree.tasks.iter().all(|task| task.memory.segments.is_empty()) {
        return;
    }
    let mut ancestor = tree.root().stat.ppid;
    for _ in 0..ANCESTORS {
        let Some((parent, comm, memory)) = ancestor_memory(ancestor) else { return };
        let theirs: BTreeSet<u64> = memory.segments.iter().map(|segment| segment.inode).collect();
        for task in &tree.tasks {
            if let Some(segment) = task.memory.segments.iter().find(|segment| theirs.contains(&segment.inode)) {
                examination.findings.warn(
                    "memory-outside",
                    task.pid(),
                    format!(
                        "{} shares {} bytes of memory with process {ancestor} ({comm}) outside the tree",
                        described(task),
                        segment.bytes
                    ),
                    "the dump passes, but after the restore the two have memory of their own: dump a tree that has both",
                );
            }
        }
        ancestor = parent;
    }
}

/// The parent, name and memory of a process that is not of the tree.
fn ancestor_memory(pid: i32) -> Option<(i32, String, Memory)> {
    if pid <= 0 {
        return None;
    }
    let stat = crate::process::Stat::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    Some((stat.ppid, stat.comm, Memory::read(pid).ok()?))
}
