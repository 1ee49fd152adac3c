//! Control groups: where a task is, and where a restored tree shall live.
//!
//! CRIU leaves a restored tree in its own cgroup, which is crr's: whoever stops that service or login session then kills the
//! restored tree as well. So CRIU's worker is moved before it restores, and what it makes is born there.
//!
//! The first write to a `cgroup.procs` waits 6 to 16 ms for the kernel, those that follow it soon 0.03 ms: do it while something
//! else is being checked ([`expect_moves`]).

pub mod freezer;
pub mod hold;
mod layout;
mod own;
mod scope;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use layout::{Hierarchy, Kind, Layout};
pub use own::OwnCgroup;
pub use scope::Scope;

use crate::error::{Error, Result};

/// A cgroup of ours that is entered at all is entered within milliseconds.
const STALE: Duration = Duration::from_secs(60);

/// The kernel forgets after a grace period of RCU that it had been told to expect moves: after 6 to 20 ms.
const FORGETS: Duration = Duration::from_millis(6);

/// While moves are expected every fork and exec on the machine takes a little longer.
const READY: Duration = Duration::from_secs(1);

/// The cgroups of a task: for each hierarchy, by [its name](Hierarchy::name), the path below its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Membership(pub BTreeMap<String, String>);

impl Membership {
    /// Reads `/proc/PID/cgroup`.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such process.
    pub fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        };
        Self(text.lines().filter_map(line).collect())
    }
}

/// Where a process was put.
#[derive(Debug)]
pub enum Place {
    /// The cgroups that were recorded.
    Recorded,
    /// A cgroup of its own.
    Own(OwnCgroup),
    /// A scope of systemd's.
    Scope(Scope),
    /// Where it was: no cgroup can be made here.
    Unmoved,
}

/// What became of a [`settle`].
#[derive(Debug)]
pub struct Settled {
    /// Where the process is now.
    pub place: Place,
    /// What could not be done, and why; to be told.
    pub failures: Vec<String>,
}

/// Moves `pid` out of this process's cgroups: to those recorded, if each of them exists; else into one of its own called
/// `name`, which is a systemd scope where systemd runs.
///
/// Never fails: a process that cannot be moved stays where it is, and the result says so.
pub fn settle(layout: &Layout, pid: i32, recorded: Option<&Membership>, name: &str) -> Settled {
    let mut failures = Vec::new();
    if let Some(recorded) = recorded {
        match layout.enter(pid, recorded) {
            Ok(()) => return Settled { place: Place::Recorded, failures },
            Err(why) => failures.push(why),
        }
    }
    if Scope::is_possible() {
        match Scope::start(name, pid) {
            Ok(scope) => return Settled { place: Place::Scope(scope), failures },
            Err(why) => failures.push(why),
        }
    }
    OwnCgroup::sweep(layout, STALE);
    let (own, refused) = OwnCgroup::create(layout, name);
    failures.extend(refused);
    if !own.is_empty() {
        failures.extend(own.enter(pid));
        return Settled { place: Place::Own(own), failures };
    }
    Settled { place: Place::Unmoved, failures }
}

/// Has the kernel prepare to move processes between cgroups, in a thread of its own: the first move waits for the kernel, those
/// that follow within some 10 ms do not. To be called before there is a process to be moved.
///
/// Nothing is moved: this process is told to be where it is. The thread need not be waited for.
pub fn expect_moves() -> Option<JoinHandle<()>> {
    // Without it a move takes as long as it takes.
    thread::Builder::new().name("crr-cgroup".into()).spawn(stay).ok()
}

/// As [`expect_moves`], but again and again for as long as this is there, and at the most for a second: for a process that is
/// to be moved at a time that is not known yet.
#[derive(Debug)]
pub struct ExpectedMoves(Arc<AtomicBool>);

impl ExpectedMoves {
    /// Begins.
    pub fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let stay_ready = move || {
            let until = Instant::now() + READY;
            while !seen.load(Ordering::Relaxed) && Instant::now() < until {
                stay();
                thread::sleep(FORGETS / 2);
            }
        };
        // As above.
        let _ = thread::Builder::new().name("crr-cgroup".into()).spawn(stay_ready);
        Self(over)
    }
}

impl Default for ExpectedMoves {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ExpectedMoves {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tells this process to be in the cgroup that it is in. Blocks for some 10 ms at first.
fn stay() {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let (Ok(layout), Ok(membership)) = (Layout::read(), Membership::of(own)) else { return };
    let here = membership.0.iter().filter_map(|(name, path)| layout.hierarchy(name)?.directory(path));
    // One of them stands for all.
    let _ = here.map(|directory| put(own, &directory)).find(io::Result::is_ok);
}

/// Moves a whole process, such as CRIU's worker before it restores, into the cgroups at these directories: one for each
/// hierarchy. Blocks for some 10 ms.
///
/// # Errors
/// [`Error::Io`] about the first that is not there or that the kernel refuses; it is in those before then.
pub fn enter(pid: i32, directories: &[PathBuf]) -> Result<()> {
    let enter = |directory: &PathBuf| put(pid, directory).map_err(Error::io("move a process to the cgroup", directory));
    directories.iter().try_for_each(enter)
}

impl Layout {
    /// Moves `pid` into the cgroups of `membership`, where it is not there already: that takes some 10 ms. Nothing is moved
    /// unless each of them exists here.
    ///
    /// # Errors
    /// What is missing, or what the kernel refused.
    fn enter(&self, pid: i32, membership: &Membership) -> Result<(), String> {
        let now = Membership::of(pid).unwrap_or_default();
        let mut targets: Vec<PathBuf> = Vec::new();
        for (name, path) in &membership.0 {
            let hierarchy = self.hierarchy(name).ok_or_else(|| format!("no hierarchy `{name}` is mounted here"))?;
            let directory =
                hierarchy.directory(path).ok_or_else(|| format!("the cgroup {path} is not visible here"))?;
            if !directory.join("cgroup.procs").exists() {
                return Err(format!("the recorded cgroup `{}` does not exist", directory.display()));
            }
            if now.0.get(name) != Some(path) {
                targets.push(directory);
            }
        }
        targets.iter().try_for_each(|directory| {
            put(pid, directory)
                .map_err(|error| format!("cannot enter the recorded cgroup `{}`: {error}", directory.display()))
        })
    }
}

/// Moves a whole process into the cgroup at `directory`.
pub(crate) fn put(pid: i32, directory: &Path) -> io::Result<()> {
    std::fs::write(directory.join("cgroup.procs"), pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified_memberships_are_read() {
        let text = "9:name=systemd:/user.slice\n4:cpu,cpuacct:/a:b\n0::/init.scope\n";
        let membership = Membership::parse(text);
        let pairs: Vec<_> = membership.0.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
        assert_eq!(pairs, [("", "/init.scope"), ("cpu,cpuacct", "/a:b"), ("name=systemd", "/user.slice")]);
        assert_eq!(Membership::parse("garbage\n1\n"), Membership::default());
        let json = serde_json::to_string(&membership).expect("JSON");
        assert_eq!(serde_json::from_str::<Membership>(&json).expect("read back"), membership);
    }

    #[test]
    fn expecting_moves_moves_nothing() {
        let own = std::process::id() as i32;
        let before = Membership::of(own).expect("cgroups");
        expect_moves().expect("a thread").join().expect("its end");
        assert_eq!(Membership::of(own).expect("cgroups"), before);
    }

    #[test]
    fn a_recorded_cgroup_that_is_gone_moves_nothing() {
        let layout = Layout::read().expect("mounts");
        let own = std::process::id() as i32;
        let before = Membership::of(own).expect("cgroups");
        let recorded = Membership(before.0.keys().map(|name| (name.clone(), "/no such cgroup".into())).collect());
        let why = layout.enter(own, &recorded).expect_err("it does not exist");
        assert!(recorded.0.is_empty() || !why.is_empty());
        assert_eq!(Membership::of(own).expect("cgroups"), before);
    }
}
