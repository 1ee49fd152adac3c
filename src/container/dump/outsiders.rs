//! Tasks that belong to a container but not to its tree: what `runc exec` starts has its parent outside.
//!
//! CRIU leaves them out of the images without a word, and they die with the PID namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::process::{Namespaces, Stat};

/// `f_type` of proc.
const PROC_MAGIC: u64 = 0x9fa0;
/// So many are named.
const NAMED_LIMIT: usize = 20;
/// Ancestors are followed so far: deeper trees do not exist, but a loop might be read from a changing /proc.
const DEPTH_LIMIT: usize = 10_000;
/// Cgroups below the container's that are looked into.
const CGROUPS_LIMIT: usize = 10_000;

/// A task that is in the container but not in its tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Outsider {
    pub(super) pid: i32,
    pub(super) comm: String,
}

/// Each with its name.
pub(super) fn described(outsiders: &[Outsider]) -> Vec<String> {
    outsiders.iter().map(|Outsider { pid, comm }| format!("{pid} ({comm})")).collect()
}

/// Where the tasks of a container are to be found.
#[derive(Clone, Debug)]
pub(super) struct Members {
    init: i32,
    cgroups: BTreeSet<PathBuf>,
    /// Those of them that are looked at while the container stands still: exec puts a process into all.
    decisive: BTreeSet<PathBuf>,
    /// The PID namespace, where it is the container's own.
    pid_namespace: Option<u64>,
}

impl Members {
    /// Of the container with that first process, in these cgroups. `shares_pids`: others live in its PID namespace, too.
    pub(super) fn of(init: i32, cgroups: &BTreeMap<String, PathBuf>, shares_pids: bool) -> Self {
        let own = Namespaces::read("/proc/self/ns".as_ref()).pid;
        let theirs = Namespaces::read(format!("/proc/{init}/ns").as_ref()).pid;
        // The mount point of a hierarchy, which is no cgroup of the container's, holds everybody.
        let is_own = |path: &&PathBuf| path.join("cgroup.procs").exists() && path.parent().is_some_and(is_cgroup);
        let pid_namespace = (theirs != 0 && theirs != own && !shares_pids).then_some(theirs);
        let all: BTreeSet<PathBuf> = cgroups.values().filter(is_own).cloned().collect();
        let decisive = cgroups.iter().filter(|(name, _)| ["", "pids"].contains(&name.as_str()));
        let decisive: BTreeSet<PathBuf> = decisive.map(|(_, path)| path).filter(is_own).cloned().collect();
        let decisive = if decisive.is_empty() { all.clone() } else { decisive };
        Self { init, cgroups: all, decisive, pid_namespace }
    }

    /// Those that are not below the first process now.
    pub(super) fn outsiders(&self) -> Vec<Outsider> {
        self.outsiders_in(&self.cgroups)
    }

    /// The same for a container that stands still: it takes a tenth of a millisecond for a small one.
    pub(super) fn outsiders_quickly(&self) -> Vec<Outsider> {
        self.outsiders_in(&self.decisive)
    }

    fn outsiders_in(&self, cgroups: &BTreeSet<PathBuf>) -> Vec<Outsider> {
        let mut candidates = BTreeSet::new();
        for directory in cgroups {
            tasks_below(directory, &mut candidates);
        }
        // Each task is read once.
        let mut tasks: BTreeMap<i32, Stat> = BTreeMap::new();
        let unseen = self.pid_namespace.map(|namespace| (namespace, self.tasks_of_namespace()));
        if let Some((namespace, count)) = unseen {
            // Its own /proc lists as many as its cgroups do, but for those in other cgroups: only then all are searched.
            if count.is_none_or(|count| count > candidates.len()) {
                candidates.extend(everybody().filter(|pid| pid_namespace_of(*pid) == Some(namespace)));
            }
        }
        let mut found: Vec<Outsider> = Vec::new();
        for pid in candidates {
            let Some(comm) =
                stat(pid, &mut tasks).filter(|task| !matches!(task.state, 'Z' | 'X')).map(|task| task.comm)
            else {
                continue;
            };
            if found.len() < NAMED_LIMIT && !self.is_below(pid, &mut tasks) {
                found.push(Outsider { pid, comm });
            }
        }
        found
    }

    fn is_below(&self, pid: i32, tasks: &mut BTreeMap<i32, Stat>) -> bool {
        let mut current = pid;
        for _ in 0..DEPTH_LIMIT {
            if current == self.init {
                return true;
            }
            match stat(current, tasks) {
                // It, or its parent, has ended meanwhile: nobody to worry about.
                None => return true,
                Some(task) if task.ppid <= 1 => return false,
                Some(task) => current = task.ppid,
            }
        }
        true
    }

    /// How many tasks the container's own /proc shows; `None` where that is no /proc of its PID namespace's.
    fn tasks_of_namespace(&self) -> Option<usize> {
        let root = rustix::fs::open(
            format!("/proc/{}/root", self.init),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let proc = rustix::fs::openat2(&root, "proc", flags, Mode::empty(), resolve).ok()?;
        if rustix::fs::fstatfs(&proc).ok()?.f_type as u64 != PROC_MAGIC {
            return None;
        }
        let mut count = 0;
        let mut first = false;
        for entry in rustix::fs::Dir::read_from(&proc).ok()?.flatten() {
            let name = entry.file_name().to_bytes();
            if name.iter().all(u8::is_ascii_digit) {
                count += 1;
                first |= name == b"1";
            }
        }
        // A /proc of another namespace may lack PID 1, or have many more: both make the search a whole one.
        first.then_some(count)
    }
}

/// Whether a directory is a cgroup, rather than what hierarchies are mounted in.
fn is_cgroup(directory: &Path) -> bool {
    directory.join("cgroup.procs").exists()
}

/// The processes in a cgroup and those below it.
fn tasks_below(directory: &Path, found: &mut BTreeSet<i32>) {
    let mut waiting = vec![directory.to_path_buf()];
    for _ in 0..CGROUPS_LIMIT {
        let Some(directory) = waiting.pop() else { return };
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        // A task of another PID namespace than ours is shown as 0.
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(below.map(|entry| entry.path()));
    }
}

fn stat(pid: i32, known: &mut BTreeMap<i32, Stat>) -> Option<Stat> {
    if let Some(stat) = known.get(&pid) {
        return Some(stat.clone());
    }
    let stat = Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    known.insert(pid, stat.clone());
    Some(stat)
}

fn everybody() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn pid_namespace_of(pid: i32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_below_and_a_parent_is_not() {
        let mut child = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().expect("sleep");
        let own = std::process::id() as i32;
        let below = |init, pid| {
            let members = Members { init, cgroups: BTreeSet::new(), decisive: BTreeSet::new(), pid_namespace: None };
            members.is_below(pid, &mut BTreeMap::new())
        };
        assert!(below(own, child.id() as i32));
        assert!(!below(child.id() as i32, own));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(below(own, i32::MAX), "one that is gone is nobody to worry about");
    }
}
