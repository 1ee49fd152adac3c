//! Hosts made of namespaces, on one Ethernet segment, for tests that move a tree from one to another.
//!
//! Each host has mount, PID, network, UTS, IPC and cgroup namespaces of its own; an overlay of the machine's root, in which it
//! may write what it likes; /run, /tmp and /dev/shm of its own; a first process that reaps orphans; and `eth0`. Host N has the
//! addresses 10.77.0.N and fd77::N, and its PIDs begin at N*1000, so that PIDs of different hosts collide only where a test
//! wants it. Addresses and names are those of any other bed, which is in other namespaces: several run side by side.
//!
//! ```text
//! test ── pipe ──> keeper: the switch, a bridge in its network namespace
//!                    ├── unshare (kills its child when it dies) ── first process of host a
//!                    └── unshare ── first process of host b
//! ```
//!
//! The keeper takes everything away when the pipe ends: when the [`Bed`] is dropped, and as well when the tests are killed. If
//! the keeper itself is killed, the hosts die with it; only their empty cgroups stay.
//!
//! What two hosts share is the kernel: its sysctls that belong to no namespace, its clock, its page cache.

mod cgroups;
mod host;
mod init;
mod keeper;
mod load;
mod trials;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::until::until;
use crate::{need, programs, spawning};

pub(crate) use host::{Cut, Host, Process};
pub(crate) use load::{Clients, await_steps, echo_server, selfcheck};
pub(crate) use trials::{copy, trials};

/// A keeper that was told to has taken all away by then.
const CLEARED: Duration = Duration::from_secs(30);

/// What this program does instead of testing where it was started as a part of a bed.
pub(crate) fn as_helper() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    match words.next()?.as_str() {
        keeper::ROLE => Some(keeper::main(&words.next()?)),
        init::ROLE => Some(init::main(&words.next()?)),
        trials::ABANDON => {
            let failed = trials::abandon().err()?;
            eprintln!("{}", failed.message().unwrap_or_default());
            Some(ExitCode::FAILURE)
        }
        _ => None,
    }
}

/// Some hosts and the switch between them. All of it is gone when it is dropped.
pub(crate) struct Bed {
    keeper: Child,
    /// Its end is what the keeper waits for.
    line: Option<ChildStdin>,
    hosts: Vec<Host>,
}

impl Bed {
    /// Starts hosts of these names, numbered from 1. `programs` are built first: the hosts see only what was built by then.
    pub(crate) fn new(hosts: &[&str], programs: &[&str]) -> Result<Self, Failed> {
        for program in programs {
            programs::program(program)?;
        }
        let plan = json!({ "hosts": hosts, "shares": shares()? });
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(keeper::ROLE).arg(plan.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Whoever kills the tests' process group or session does not meet the keeper.
        spawning::own_session(&mut command);
        let mut keeper = command.spawn()?;
        let (line, said) = (keeper.stdin.take(), keeper.stdout.take());
        // From here on everything goes by the drop.
        let mut bed = Self { keeper, line, hosts: Vec::new() };
        let mut answer = String::new();
        BufReader::new(said.ok_or("no pipe")?).read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).map_err(|_| "the keeper of a bed ended before it was up")?;
        if let Some(why) = answer["failed"].as_str() {
            return Err(format!("no bed of hosts: {why}").into());
        }
        let switch = i32::try_from(bed.keeper.id())?;
        for (name, made) in hosts.iter().zip(answer["hosts"].as_array().ok_or("no hosts")?) {
            bed.hosts.push(Host::new(name, bed.hosts.len() + 1, switch, made)?);
        }
        Ok(bed)
    }

    /// The host of that name.
    ///
    /// # Panics
    /// If the bed was not made with it.
    pub(crate) fn host(&self, name: &str) -> &Host {
        let found = self.hosts.iter().find(|host| host.name() == name);
        found.unwrap_or_else(|| panic!("the bed has no host {name}"))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.line.take());
        let ended = until("the keeper of a bed to end", CLEARED, || self.keeper.try_wait().ok().flatten());
        match ended {
            // What it could not take away it has said.
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("the keeper of a bed ended with {status}: its hosts' cgroups may be left"),
            Err(failed) => {
                eprintln!("{}", failed.message().unwrap_or_default());
                // Its hosts die with it.
                let _ = self.keeper.kill();
                let _ = self.keeper.wait();
            }
        }
    }
}

/// What hosts see beside the machine's root, and at the same places: where the sources, the built programs and CRIU lie, if that
/// is below a directory of which each host has its own.
fn shares() -> Result<Vec<String>, Failed> {
    let parents = [std::env::current_exe()?, env!("CARGO_BIN_EXE_crr").into(), need::criu().unwrap_or_default()];
    let mut places = vec![env!("CARGO_MANIFEST_DIR").into(), programs::directory()?];
    places.extend(parents.iter().filter_map(|path| Some(path.parent()?.to_owned())));
    places.retain(|path| path.is_absolute() && init::OWN.iter().any(|own| path.starts_with(own)));
    places.iter().map(|path| Ok(path.to_str().ok_or("a path that is not UTF-8")?.to_owned())).collect()
}
