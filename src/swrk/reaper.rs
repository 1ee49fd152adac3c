//! Waiting for a CRIU process that nobody talks to any more.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::watch::processor_ticks;

/// So much of what CRIU wrote to its standard error is kept: it writes there only before it has opened its log.
const STDERR_LIMIT: u64 = 16 << 10;

/// How often a process that is waited for is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// So many generations of CRIU's children count as CRIU.
const CHILDREN: u32 = 3;

/// How a CRIU process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard error (at most 16 KiB, lossily decoded): messages from before its log was opened.
    pub stderr: String,
    /// Whether this crate killed it, as it had not ended within the time given.
    pub killed: bool,
}

/// A CRIU process whose socket is closed and that is being waited for by a thread of its own.
///
/// Dropping this changes nothing: the thread goes on, kills the process at its deadline, and reaps it.
#[derive(Debug)]
pub struct Reaping {
    done: oneshot::Receiver<Exit>,
    kill: Arc<AtomicBool>,
    pidfd: Option<OwnedFd>,
}

impl Reaping {
    /// Waits for the end. `None` if its status could not be had.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing; it may be called again.
    pub async fn ended(&mut self) -> Option<Exit> {
        (&mut self.done).await.ok()
    }

    /// Kills the process now. In the middle of a dump this leaves CRIU's parasite mapping in the tasks.
    pub fn kill(&self) {
        self.kill.store(true, Ordering::Relaxed);
        if let Some(pidfd) = &self.pidfd {
            // Fails only for a process that is gone, which is what was wanted.
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
    }
}

/// A CRIU process and all that is needed to wait for it.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) child: Child,
    pub(super) pidfd: OwnedFd,
    pub(super) stderr: File,
}

impl Remains {
    /// Reaps a process that has ended, or blocks until it does.
    pub(super) fn reap(mut self, killed: bool) -> Option<Exit> {
        let status = self.child.wait().ok()?;
        let mut text = Vec::new();
        let _ = self.stderr.rewind();
        let _ = self.stderr.take(STDERR_LIMIT).read_to_end(&mut text);
        Some(Exit { status, stderr: String::from_utf8_lossy(&text).into_owned(), killed })
    }

    /// Waits in a thread of its own, killing the process when it has shown no sign of life for `grace`: one that is writing
    /// memory takes as long as it takes, as a kill would leave its parasite in the tree.
    pub(super) fn reap_in_background(self, grace: Duration) -> Reaping {
        let (send, done) = oneshot::channel();
        let kill = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&kill);
        let pidfd = self.pidfd.try_clone().ok();
        let wait = move || {
            let pid = i32::try_from(self.child.id()).unwrap_or(i32::MAX);
            let ended = wait_while_alive(&self.pidfd, pid, grace);
            if !ended {
                let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
            }
            if let Some(exit) = self.reap(!ended || asked.load(Ordering::Relaxed)) {
                let _ = send.send(exit);
            }
        };
        // Without a thread the process is left to the operating system: it has its end of file and will end by itself.
        let _ = std::thread::Builder::new().name("crr-reaper".into()).stack_size(64 << 10).spawn(wait);
        Reaping { done, kill, pidfd }
    }
}

/// Waits for the process's end; false when it used no processor time for `silence`.
fn wait_while_alive(pidfd: &OwnedFd, pid: i32, silence: Duration) -> bool {
    let look = silence.min(LOOK);
    let mut seen = (processor_ticks(pid, CHILDREN), Instant::now());
    loop {
        if wait_until(pidfd, Instant::now() + look) {
            return true;
        }
        let ticks = processor_ticks(pid, CHILDREN);
        if ticks != seen.0 {
            seen = (ticks, Instant::now());
        } else if seen.1.elapsed() >= silence {
            return false;
        }
    }
}

/// Waits for the process's end; false when `deadline` came first.
fn wait_until(pidfd: &OwnedFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn remains(script: &str) -> Remains {
        let child = Command::new("sh").args(["-c", script]).spawn().expect("a shell");
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).expect("a pidfd");
        let stderr = tempfile::tempfile().expect("a file");
        Remains { child, pidfd, stderr }
    }

    #[tokio::test]
    async fn a_process_that_works_is_not_killed_however_long_it_takes() {
        let grace = Duration::from_millis(500);
        let began = Instant::now();
        let working = remains("n=0; while [ $n -lt 2000000 ]; do n=$((n + 1)); done");
        let exit = working.reap_in_background(grace).ended().await.expect("its end");
        assert!(!exit.killed && exit.status.success(), "{exit:?}");
        assert!(began.elapsed() > grace);
    }

    #[tokio::test]
    async fn a_process_that_sleeps_is_killed_after_its_grace() {
        let exit =
            remains("exec sleep 60").reap_in_background(Duration::from_millis(400)).ended().await.expect("its end");
        assert!(exit.killed);
    }
}
