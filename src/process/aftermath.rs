//! What is left of a tree after something went wrong: looked at, never assumed.

use std::fs;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::stat::Stat;
use super::status::Status;

/// The mapping that CRIU's parasite lives in. A CRIU that is killed in mid-dump leaves it behind.
pub const PARASITE: &str = "/memfd:CRIUMFD";

/// The longest wait for tasks that are being killed to be gone.
const DYING: Duration = Duration::from_secs(5);

/// No tree has more.
const TASKS_LIMIT: usize = 1 << 20;

/// A task that is expected to be there: PID and start time together name it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its PID.
    pub pid: i32,
    /// When it began, in clock ticks since boot.
    pub start_time_ticks: u64,
}

impl Expected {
    /// The task that has this PID now; `None` for a zombie, which nothing can happen to any more.
    pub fn now(pid: i32) -> Option<Self> {
        let stat = Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
        (!matches!(stat.state, 'Z' | 'X')).then_some(Self { pid, start_time_ticks: stat.start_time_ticks })
    }

    /// The tasks of the tree below `root`, which comes first. Complete where none of them can fork.
    pub fn tree(root: i32) -> Vec<Self> {
        let mut found: Vec<Self> = Self::now(root).into_iter().collect();
        let mut next = 0;
        while let Some(task) = found.get(next).copied().filter(|_| found.len() < TASKS_LIMIT) {
            next += 1;
            let threads = fs::read_dir(format!("/proc/{}/task", task.pid)).into_iter().flatten().flatten();
            for thread in threads {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
                found.extend(children.filter_map(Self::now));
            }
        }
        found
    }
}

/// The state of each task that was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Aftermath {
    /// Tasks that are there.
    pub alive: Vec<i32>,
    /// Tasks that have ended, or are zombies.
    pub gone: Vec<i32>,
    /// Tasks that somebody traces, and so may hold.
    pub traced: Vec<i32>,
    /// Tasks that are stopped.
    pub stopped: Vec<i32>,
    /// Tasks that hold the parasite mapping of a CRIU that was killed.
    pub parasites: Vec<i32>,
}

impl Aftermath {
    /// Looks at every task, after those that are being killed are gone: a pending SIGKILL counts as an end.
    pub fn look(tasks: &[Expected]) -> Self {
        let deadline = Instant::now() + DYING;
        loop {
            let (aftermath, dying) = Self::look_once(tasks);
            if dying == 0 || Instant::now() >= deadline {
                return aftermath;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn look_once(tasks: &[Expected]) -> (Self, usize) {
        let mut aftermath = Self::default();
        let mut dying = 0;
        for task in tasks {
            let Some((stat, status)) = read(task) else {
                aftermath.gone.push(task.pid);
                continue;
            };
            match stat.state {
                'Z' | 'X' => aftermath.gone.push(task.pid),
                _ => {
                    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
                    if (status.pending | status.shared_pending) & SIGKILL != 0 {
                        dying += 1;
                    }
                    aftermath.alive.push(task.pid);
                    if status.tracer != 0 {
                        aftermath.traced.push(task.pid);
                    }
                    if stat.state == 'T' {
                        aftermath.stopped.push(task.pid);
                    }
                    if has_parasite(task.pid) {
                        aftermath.parasites.push(task.pid);
                    }
                }
            }
        }
        (aftermath, dying)
    }

    /// Whether every task is there, untraced and without a parasite.
    pub fn is_unharmed(&self) -> bool {
        self.gone.is_empty() && self.traced.is_empty() && self.parasites.is_empty()
    }
}

/// Whether a CRIU that was killed has left its parasite mapping in the task. False where that cannot be read.
pub fn has_parasite(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(PARASITE))
}

fn read(task: &Expected) -> Option<(Stat, Status)> {
    let directory = format!("/proc/{}", task.pid);
    let stat = Stat::parse(&fs::read(format!("{directory}/stat")).ok()?)?;
    if stat.start_time_ticks != task.start_time_ticks {
        return None;
    }
    let mut status = Status::default();
    for line in fs::read(format!("{directory}/status")).ok()?.split(|byte| *byte == b'\n') {
        status.take(line);
    }
    Some((stat, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_unharmed_and_one_that_never_was_is_gone() {
        let own = i32::try_from(std::process::id()).expect("a PID");
        let here = Expected::now(own).expect("this process");
        let aftermath = Aftermath::look(&[here]);
        assert_eq!(aftermath.alive, [own]);
        assert!(aftermath.gone.is_empty() && aftermath.parasites.is_empty());
        let other = Expected { start_time_ticks: here.start_time_ticks + 1, ..here };
        assert_eq!(Aftermath::look(&[other]).gone, [own]);
    }

    #[test]
    fn a_child_that_was_killed_is_gone_when_looked_at() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        let expected = Expected::now(child.id() as i32).expect("the child");
        assert!(Aftermath::look(&[expected]).alive.contains(&expected.pid));
        let tree = Expected::tree(std::process::id() as i32);
        assert!(tree.contains(&expected) && tree[0].pid == std::process::id() as i32);
        child.kill().expect("kill");
        assert_eq!(Aftermath::look(&[expected]).gone, [expected.pid]);
        child.wait().expect("wait");
    }
}
