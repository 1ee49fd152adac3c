//! What a restore that did not come to its end may have left: tasks that hang for ever, as nobody is left to finish them.
//!
//! CRIU kills what it made when its client goes away or refuses. A CRIU that is killed itself leaves its tasks in the middle
//! of being restored. While a restore is under way this process is a child subreaper, so that such orphans become its own
//! children and nobody else's.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
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
    /// Whether this process became a child subreaper for the restore.
    adopting: bool,
}

impl Remains {
    /// From here on orphans of `criu`, which is to restore `pids`, become children of this process.
    pub(super) fn watch(criu: i32, pids: BTreeSet<i32>) -> Result<Self> {
        let failed = |errno: Errno| Error::system("become a child subreaper", errno);
        let adopting = !get_child_subreaper().map_err(failed)?;
        if adopting {
            set_child_subreaper(true).map_err(failed)?;
        }
        let namespace = namespace_of(std::process::id());
        Ok(Self { criu, since_ticks: ticks_since_boot()?, pids, namespace, adopting })
    }

    /// The tree runs, and is nobody's remains: its orphans are not this process's.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.adopting) {
            // Cannot fail: it has succeeded before.
            let _ = set_child_subreaper(false);
        }
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
        let ours = |pid: &i32| {
            self.pids.contains(pid) || namespace_of(pid.unsigned_abs()).is_some_and(|own| Some(own) != self.namespace)
        };
        young.map(|(pid, _)| *pid).filter(|pid| ours(pid) && descends(*pid)).collect()
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.release();
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
    fn this_process_started_before_now() {
        let own = stat_of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.starttime <= ticks_since_boot().unwrap());
    }
}
