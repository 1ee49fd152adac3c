//! PIDs that a restore needs, and what holds them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;
use tokio::io::Interest;

use crate::swrk::readiness;

/// How often a PID that is about to be free is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A PID that is not free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// The PID.
    pub pid: i32,
    /// What holds it.
    pub by: TakenBy,
}

/// What holds a PID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TakenBy {
    /// A process or thread of this name.
    Task(String),
    /// A process of this name that has ended and waits for its parent, the second value, to take note.
    Zombie(String, i32),
    /// A process group that this process is still in.
    Group(i32),
    /// A session that this process is still in.
    Session(i32),
}

impl Taken {
    /// Whether it will be free without anybody's doing.
    fn is_dying(&self) -> bool {
        match self.by {
            TakenBy::Zombie(..) => true,
            TakenBy::Task(_) => false,
            // The last member of a tree that was killed keeps it until it is reaped.
            TakenBy::Group(member) | TakenBy::Session(member) => Stat::of(member).is_none_or(|stat| stat.has_ended()),
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.pid;
        match &self.by {
            TakenBy::Task(name) => write!(f, "PID {pid} belongs to `{}`", crate::escape::escape(name)),
            TakenBy::Zombie(name, parent) => {
                let name = crate::escape::escape(name);
                write!(
                    f,
                    "PID {pid} belongs to `{name}`, which has ended but was not reaped by its parent, PID {parent}"
                )
            }
            TakenBy::Group(member) => write!(f, "PID {pid} is a process group that PID {member} is still in"),
            TakenBy::Session(member) => write!(f, "PID {pid} is a session that PID {member} is still in"),
        }
    }
}

/// Those of `pids` that are not free, in their order.
///
/// A PID is free when no task has it and no process has it as its process group or session.
pub fn taken(pids: &BTreeSet<i32>) -> Vec<Taken> {
    let probe = Probe::new();
    let pids: BTreeSet<i32> = pids.iter().copied().filter(|pid| !probe.is_free(*pid)).collect();
    let mut found: Vec<Taken> = pids.iter().filter_map(|&pid| Some(Taken { pid, by: holder(pid)? })).collect();
    // Groups and sessions outlive their leaders: only a look at every process shows whose they are.
    let free: BTreeSet<i32> = pids.iter().copied().filter(|pid| found.iter().all(|taken| taken.pid != *pid)).collect();
    if !free.is_empty() {
        found.extend(outlived(&free));
        found.sort_by_key(|taken| taken.pid);
        found.dedup_by_key(|taken| taken.pid);
    }
    found
}

/// Waits until `pids` are free, but for those that something alive holds and not beyond `deadline`; returns those that are not.
///
/// A process that was killed a moment ago keeps its PID until its parent takes note, which takes PID 1 up to a second.
pub async fn await_free(pids: &BTreeSet<i32>, deadline: Instant) -> Vec<Taken> {
    loop {
        let found = taken(pids);
        if !found.iter().any(Taken::is_dying) || Instant::now() >= deadline {
            return found;
        }
        // A zombie gives no event when it is reaped: its pidfd is readable already.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// As [`taken`], but the numbers are of the PID namespace that has this inode, which is below this process's own. All
/// processes are looked at.
pub fn taken_inside(namespace: u64, pids: &BTreeSet<i32>) -> Vec<Taken> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        let innermost = |key: &str| -> Option<i32> {
            let (_, numbers) = status.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == key)?;
            // Of one that is in no namespace below ours there is one number.
            numbers.split_whitespace().skip(1).last()?.parse().ok()
        };
        let [Some(own), group, session] = ["NSpid", "NSpgid", "NSsid"].map(innermost) else { continue };
        let Some(number) = [Some(own), group, session].into_iter().flatten().find(|number| pids.contains(number))
        else {
            continue;
        };
        let Some(stat) = Stat::of(pid) else { continue };
        let is_dying = matches!(stat.state, 'Z' | 'X' | 'x');
        // One that has ended shows no namespaces any more: it may be another's, which is soon known.
        let is_there = fs::read_link(format!("/proc/{pid}/ns/pid"))
            .is_ok_and(|link| link.to_str() == Some(&format!("pid:[{namespace}]")));
        if is_dying || is_there {
            let by = match is_dying {
                true => TakenBy::Zombie(stat.name, stat.parent),
                false if number == own => TakenBy::Task(stat.name),
                false if Some(number) == group => TakenBy::Group(pid),
                false => TakenBy::Session(pid),
            };
            found.push(Taken { pid: number, by });
        }
    }
    found.sort_by_key(|taken| taken.pid);
    found.dedup_by_key(|taken| taken.pid);
    found
}

/// Waits until `pids` are free in the PID namespace that has this inode, but for those that something alive holds and not
/// beyond `deadline`; those that something alive holds. Blocks.
pub fn await_free_inside(namespace: u64, pids: &BTreeSet<i32>, deadline: Instant) -> Vec<Taken> {
    loop {
        let mut found = taken_inside(namespace, pids);
        if !found.iter().any(Taken::is_dying) || Instant::now() >= deadline {
            found.retain(|taken| !taken.is_dying());
            return found;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Waits for the end of the processes that have these PIDs now. A zombie has ended; what is no process's PID is not waited for.
///
/// # Panics
/// Outside a tokio runtime that has I/O enabled.
pub async fn await_end(pids: &BTreeSet<i32>) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // Of a thread there is none; it ends with its process.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if let Ok(ended) = readiness::watch(process, Interest::READABLE) {
            // It stays readable.
            let _ = ended.readable().await;
        }
    }
}

/// Asks the kernel whether it knows a number at all, which is much less work than to look for whom it is in use.
///
/// A file can be given an owner who is told when it is ready; the kernel takes any number that is a task, a process group or
/// a session, in this process's PID namespace, and says ESRCH to others.
struct Probe(Option<File>);

impl Probe {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Only true where it is certain.
    fn is_free(&self, pid: i32) -> bool {
        let Some(file) = self.0.as_ref().filter(|_| pid > 0) else { return false };
        // SAFETY: F_SETOWN takes an integer and touches nothing but the open file, which is ours alone and is never asked to
        // send a signal.
        let owned = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, pid) };
        owned != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    }
}

/// The task that has this PID. `/proc/N` exists for threads too, though it is not listed.
fn holder(pid: i32) -> Option<TakenBy> {
    let stat = Stat::of(pid)?;
    Some(match stat.has_ended() {
        true => TakenBy::Zombie(stat.name, stat.parent),
        false => TakenBy::Task(stat.name),
    })
}

fn outlived(pids: &BTreeSet<i32>) -> Vec<Taken> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(member) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(stat) = Stat::of(member) else { continue };
        if pids.contains(&stat.group) {
            found.push(Taken { pid: stat.group, by: TakenBy::Group(member) });
        } else if pids.contains(&stat.session) {
            found.push(Taken { pid: stat.session, by: TakenBy::Session(member) });
        }
    }
    found
}

/// The beginning of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    parent: i32,
    group: i32,
    session: i32,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    fn parse(text: &str) -> Option<Self> {
        // The name is in parentheses and may hold anything, parentheses too.
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let name = text.get(open + 1..close)?.to_owned();
        let mut words = text.get(close + 1..)?.split_whitespace();
        let state = words.next()?.chars().next()?;
        let mut number = || words.next()?.parse().ok();
        Some(Self { name, state, parent: number()?, group: number()?, session: number()? })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_spaces() {
        let stat = Stat::parse("17 (a) R (b) S 1 16 15 0 -1").expect("parsed");
        assert_eq!(stat, Stat { name: "a) R (b".into(), state: 'S', parent: 1, group: 16, session: 15 });
        for bad in ["", "17", "17 (x", "17 ) (", "17 (x) S", "17 (x) S 1 2", "17 (x) S one 2 3"] {
            assert_eq!(Stat::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_live_process_and_a_thread_hold_their_pids() {
        let own = std::process::id() as i32;
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let found = taken(&BTreeSet::from([own, thread]));
        assert!(found.iter().all(|taken| matches!(taken.by, TakenBy::Task(_))), "{found:?}");
        assert_eq!(found.len(), if own == thread { 1 } else { 2 });
    }

    #[tokio::test]
    async fn a_zombie_is_waited_for_and_free_when_reaped() {
        let mut child = Command::new("true").spawn().expect("true");
        let pid = child.id() as i32;
        let ended = || holder(pid).is_some_and(|by| matches!(by, TakenBy::Zombie(..)));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ended() {
            assert!(Instant::now() < deadline, "`true` does not end");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let pids = BTreeSet::from([pid]);
        let still = await_free(&pids, Instant::now()).await;
        assert_eq!(still, [Taken { pid, by: TakenBy::Zombie("true".into(), std::process::id() as i32) }]);
        let reaper = async {
            tokio::task::yield_now().await;
            child.wait().expect("reaped")
        };
        let (free, _) = tokio::join!(await_free(&pids, deadline), reaper);
        assert_eq!(free, []);
    }

    #[test]
    fn a_process_group_outlives_its_leader() {
        // The shell leads a group, starts a member that waits for its input to end, says its PID, and ends.
        let mut leader = Command::new("sh")
            .args(["-c", "{ cat <&3 >/dev/null & } 3<&0; echo $!"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let group = leader.id() as i32;
        let input = leader.stdin.take();
        let output = leader.wait_with_output().expect("sh");
        let member: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a PID");
        assert_eq!(taken(&BTreeSet::from([group])), [Taken { pid: group, by: TakenBy::Group(member) }]);
        drop(input);
    }
}
