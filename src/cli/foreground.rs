//! Being the parent of a program until it ends: as criu and runc do without `--detach`.

use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use super::failure::Failure;
use super::passing::{Meaning, Signals};

/// Waits for the end of `root`, a child of this process, and sends on the signals that come meanwhile. The exit code is the
/// program's.
pub(crate) async fn wait(root: i32, signals: &Signals) -> Result<ExitCode, Failure> {
    loop {
        // First of all: it may have ended before anybody listened.
        if let Some(status) = ended(root)? {
            return Ok(exit_code(status.exit_status(), status.terminating_signal()));
        }
        let Ok(arrived) = signals.next().await else {
            return Err(crr::Error::system("catch signals", std::io::ErrorKind::BrokenPipe).into());
        };
        let root = Pid::from_raw(root);
        // Asked each time: a program may change its group.
        let together = getpgid(Some(root)).is_ok_and(|group| group == getpgrp());
        if arrived.meaning(together) == Meaning::PassOn {
            // One that has just ended needs no signal any more.
            let _ = kill(root, arrived.signal);
        }
    }
}

/// Reaps `root` if it has ended.
fn ended(root: i32) -> Result<Option<WaitIdStatus>, Failure> {
    let attempt = |source| crr::Error::system(format!("wait for PID {root}"), source);
    let pid = rustix::process::Pid::from_raw(root)
        .ok_or_else(|| attempt(std::io::Error::from(std::io::ErrorKind::InvalidInput)))?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    Ok(waitid(WaitId::Pid(pid), options).map_err(|errno| attempt(errno.into()))?)
}

/// As a shell tells it: the status, or 128+N for signal N.
fn exit_code(status: Option<i32>, signal: Option<i32>) -> ExitCode {
    let code = status.or(signal.map(|signal| 128 + signal)).and_then(|code| u8::try_from(code & 0xff).ok());
    ExitCode::from(code.unwrap_or(u8::MAX))
}

/// The terminal on standard input, given back to the process group that had it.
///
/// A job may make a group of its own the terminal's foreground group; when it ends nobody is left there, and the next read of
/// whoever comes after it would fail.
#[derive(Debug)]
pub(crate) struct Terminal(Option<Pid>);

impl Terminal {
    /// Remembers who has it.
    pub(crate) fn remember() -> Self {
        Self(tcgetpgrp(std::io::stdin().as_fd()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let Some(before) = self.0 else { return };
        let stdin = std::io::stdin();
        if tcgetpgrp(stdin.as_fd()).is_ok_and(|now| now != before) {
            // Whoever is not in the foreground is stopped for trying, unless the signal is blocked.
            let mut stop = SigSet::empty();
            stop.add(Signal::SIGTTOU);
            let _ = stop.thread_block();
            let _ = tcsetpgrp(stdin.as_fd(), before);
            let _ = stop.thread_unblock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_a_shells() {
        let same = |code: ExitCode, number: u8| format!("{code:?}") == format!("{:?}", ExitCode::from(number));
        assert!(same(exit_code(Some(0), None), 0));
        assert!(same(exit_code(Some(3), None), 3));
        assert!(same(exit_code(Some(255), None), 255));
        assert!(same(exit_code(None, Some(9)), 137));
        assert!(same(exit_code(None, Some(64)), 192));
    }
}
