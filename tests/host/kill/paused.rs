//! A crr that has stopped itself at a step, and the ways to go on from there.

use std::fs;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::await_end;
use crate::crr::{Ran, Running};
use crate::until::{SOON, until};
use crate::victim::state;

/// The longest that anything may take after a kill.
const LIMIT: Duration = Duration::from_secs(60);

/// The exit status of a program that SIGKILL has ended, as [`Ran`] tells it.
pub(crate) const KILLED: i32 = 137;

/// What ends, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// crr gets a SIGINT.
    CtrlC,
    /// crr gets a SIGTERM.
    Terminate,
    /// CRIU gets a SIGKILL.
    Criu,
    /// crr gets a SIGKILL.
    Crr,
}

impl Kill {
    /// All of them; the one that leaves the most comes last.
    pub(crate) const ALL: [Self; 4] = [Self::CtrlC, Self::Terminate, Self::Criu, Self::Crr];
}

/// A crr that stands still, and its CRIU.
pub(crate) struct Paused {
    running: Running,
    /// CRIU, unless it has ended already.
    pub(crate) criu: Option<i32>,
}

impl Paused {
    /// Starts a command of crr and waits until it stands still at `step`.
    pub(crate) fn start(command: &mut Command, step: &str) -> Result<Self, Failed> {
        Self::of(Running::start(command.env("CRR_TEST_PAUSE_AT", step))?, step)
    }

    /// Waits until a crr that was told to stand still at `step` does so.
    pub(crate) fn of(running: Running, step: &str) -> Result<Self, Failed> {
        let pid = running.pid();
        let stands = until(format_args!("crr to stand still at {step}"), SOON, || match state(pid) {
            Some('T') => Some(true),
            None | Some('Z' | 'X') => Some(false),
            _ => None,
        })?;
        if !stands {
            let Ran { code, stdout, stderr, .. } = running.end(SOON)?;
            return Err(format!("crr ended before {step} ({code}):\n{stdout}{stderr}").into());
        }
        let criu = children(pid).first().copied().filter(|criu| state(*criu) != Some('Z'));
        Ok(Self { running, criu })
    }

    /// crr's PID.
    pub(crate) fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Sends crr a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill(Pid::from_raw(self.running.pid()), signal)?)
    }

    /// Lets crr go on, to its end.
    pub(crate) fn go_on(self) -> Result<Ran, Failed> {
        self.signal(Signal::SIGCONT)?;
        self.running.end(LIMIT)
    }

    /// Kills, and waits for the end of both.
    pub(crate) fn strike(self, what: Kill) -> Result<Ran, Failed> {
        let criu = self.criu;
        let ran = match what {
            Kill::CtrlC | Kill::Terminate => {
                self.signal(if what == Kill::CtrlC { Signal::SIGINT } else { Signal::SIGTERM })?;
                self.go_on()?
            }
            Kill::Criu => {
                if let Some(criu) = criu {
                    kill(Pid::from_raw(criu), Signal::SIGKILL)?;
                    await_end(criu)?;
                }
                self.go_on()?
            }
            Kill::Crr => {
                self.signal(Signal::SIGKILL)?;
                self.running.end(LIMIT)?
            }
        };
        criu.map_or(Ok(()), await_end)?;
        Ok(ran)
    }
}

/// The children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    of_task.flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>()).collect()
}
