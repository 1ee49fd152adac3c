//! What a restore that did not come to its end may have left: tasks that hang for ever, as nobody is left to finish them.
//!
//! CRIU kills what it made when its client goes away or refuses. A CRIU that is killed itself leaves its tasks in the middle
//! of being restored. While a restore is under way this process is a child subreaper, so that such orphans become its own
//! children and nobody else's.
//!
//! Several restores may be under way in one process: it is a subreaper until the last of them is through, and each knows its
//! tasks by their PIDs. Of trees with PID namespaces of their own only one at a time: nothing tells whose an orphan in such a
//! namespace is.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::{get_child_subreaper, set_child_subreaper};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use procfs::process::{Process, Stat};

use super::silence::silence;
use crate::error::{Error, Result};

/// How long killed tasks may take to be gone.
const GRACE: Duration = Duration::from_secs(10);

/// Knows which tasks a restore has made.
#[derive(Debug)]
pub(super) struct Remains {
    /// CRIU itself, which is not killed here.
    criu: i32,
    /// When the restore began, in clock ticks since boot.
    since_ticks: u64,
    /// The PIDs that the restore takes in this process's PID namespace.
    pids: BTreeSet<i32>,
    /// This process's PID namespace.
    namespace: Option<PathBuf>,
    /// Whether the tree brings a PID namespace of its own, where all of its numbers are free.
    is_inside: bool,
    /// That this process adopts orphans.
    adopting: Option<Adopting>,
}

/// The restores that are under way in this process.
#[derive(Debug, Default)]
struct UnderWay {
    all: usize,
    /// Of trees with PID namespaces of their own.
    inside: usize,
    /// Whether this process became a child subreaper for them.
    turned_on: bool,
}

static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay { all: 0, inside: 0, turned_on: false });

/// Keeps this process a child subreaper.
#[derive(Debug)]
struct Adopting {
    is_inside: bool,
}

impl Adopting {
    fn begin(is_inside: bool) -> Result<Self> {
        let failed = |errno: Errno| Error::system("become a child subreaper", errno);
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if is_inside && under_way.inside > 0 {
            let what = "this process is restoring another one; use a process for each";
            return Err(Error::system(
                "restore a tree with a PID namespace of its own",
                io::Error::new(io::ErrorKind::ResourceBusy, what),
            ));
        }
        if under_way.all == 0 && !get_child_subreaper().map_err(failed)? {
            set_child_subreaper(true).map_err(failed)?;
            under_way.turned_on = true;
        }
        under_way.all += 1;
        under_way.inside += usize::from(is_inside);
        Ok(Self { is_inside })
    }
}

impl Drop for Adopting {
    fn drop(&mut self) {
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.all -= 1;
        under_way.inside -= usize::from(self.is_inside);
        if under_way.all == 0 && std::mem::take(&mut under_way.turned_on) {
            // Cannot fail: it has succeeded before.
            let _ = set_child_subreaper(false);
        }
    }
}

impl Remains {
    /// From here on orphans of `criu`, which is to restore `pids`, become children of this process. Without `pids` the tree has
    /// a PID namespace of its own.
    ///
    /// # Errors
    /// [`Error::System`] with [`io::ErrorKind::ResourceBusy`] within if this process is restoring another one of these.
    pub(super) fn watch(criu: i32, pids: BTreeSet<i32>) -> Result<Self> {
        let is_inside = pids.is_empty();
        let adopting = Some(Adopting::begin(is_inside)?);
        let namespace = namespace_of(std::process::id());
        Ok(Self { criu, since_ticks: ticks_since_boot()?, pids, namespace, is_inside, adopting })
    }

    /// The tree runs, and is nobody's remains: its orphans are not this process's.
    pub(super) fn release(&mut self) {
        self.adopting = None;
    }

    /// Sends all that the restore made a SIGKILL, and waits for nothing.
    pub(super) fn signal(&self) {
        for pid in self.made() {
            silence(pid);
            // One that has gone needs none.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Kills all that the restore made and waits until it is gone. Gives what was killed, and what did not go.
    pub(super) fn kill(&mut self) -> (BTreeSet<i32>, BTreeSet<i32>) {
        let deadline = Instant::now() + GRACE;
        let mut killed = BTreeSet::new();
        loop {
            let left = self.made();
            for pid in &left {
                if killed.insert(*pid) {
                    silence(*pid);
                }
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
                // Succeeds for our own children only; others are reaped by their parents, which are killed as well.
                let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
            }
            if left.is_empty() || Instant::now() >= deadline {
                self.release();
                return (killed, left);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The descendants of this process that are younger than the restore and are its tasks: by their PID, or as they are in
    /// a PID namespace that is not ours.
    fn made(&self) -> BTreeSet<i32> {
        let here = i32::try_from(std::process::id()).unwrap_or_default();
        let processes: HashMap<i32, Stat> = pids().filter_map(|pid| Some((pid, stat_of(pid)?))).collect();
        let descends = |pid: i32| {
            let mut at = pid;
            // As deep as there are processes: a table read while it changes may go in a circle.
            for _ in 0..processes.len() {
                match processes.get(&at) {
                    Some(stat) if stat.ppid == here => return true,
                    Some(stat) => at = stat.ppid,
                    None => return false,
                }
            }
            false
        };
        let young = processes.iter().filter(|(pid, stat)| **pid != self.criu && stat.starttime >= self.since_ticks);
        let ours = |pid: &i32| match self.is_inside {
            false => self.pids.contains(pid),
            true => namespace_of(pid.unsigned_abs()).is_some_and(|own| Some(own) != self.namespace),
        };
        young.map(|(pid, _)| *pid).filter(|pid| ours(pid) && descends(*pid)).collect()
    }
}

fn stat_of(pid: i32) -> Option<Stat> {
    Process::new(pid).ok()?.stat().ok()
}

/// What tells PID namespaces apart; `None` for a process that is gone, a zombie among them.
fn namespace_of(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Now, in the unit and from the origin of a process's start time.
fn ticks_since_boot() -> Result<u64> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|errno| Error::system("read the clock", errno))?;
    let nanoseconds = Duration::from(now).as_nanos();
    let per_second = u128::try_from(per_second).unwrap_or(100);
    Ok(u64::try_from(nanoseconds * per_second / 1_000_000_000).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_beside_each_other_share_the_flag_and_only_one_has_a_pid_namespace() {
        let flag = || get_child_subreaper().unwrap();
        let plain = || BTreeSet::from([i32::MAX]);
        let mut first = Remains::watch(1, plain()).unwrap();
        let second = Remains::watch(1, plain()).unwrap();
        let inside = Remains::watch(1, BTreeSet::new()).unwrap();
        let refused = Remains::watch(1, BTreeSet::new()).unwrap_err();
        assert!(refused.to_string().contains("PID namespace of its own"), "{refused}");
        first.release();
        drop(inside);
        assert!(flag(), "the second is under way");
        drop(Remains::watch(1, BTreeSet::new()).unwrap());
        drop(second);
        assert!(!flag(), "none is under way");
    }

    #[test]
    fn this_process_started_before_now() {
        let own = stat_of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.starttime <= ticks_since_boot().unwrap());
    }
}
