//! A conversation with one CRIU process: packets out, packets in, and the watch on a CRIU that does not answer.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::launch::Launch;
use super::reaper::{Exit, Reaping};
use super::socket::Packet;
use super::watch::{Hang, Pulse, Watch};
use super::worker::Worker;
use crate::error::{Error, Result};

/// How often a silent CRIU is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long a CRIU that has nothing more to do may take to end: it does so within a millisecond.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// One CRIU process, the name of what it is doing, and how long it may take.
#[derive(Debug)]
pub(crate) struct Channel {
    worker: Option<Worker>,
    pid: i32,
    pub(crate) attempt: &'static str,
    pub(crate) watch: Watch,
    /// When a CRIU that owes an answer is looked at next, and what was seen since when.
    look: Option<Instant>,
    pulse: Option<(Pulse, Instant)>,
    /// An answer that is sent before the next packet is awaited.
    owed: Option<Vec<u8>>,
}

impl Channel {
    /// Starts CRIU with `inherited` open in it under the same numbers.
    pub(crate) fn open(launch: &Launch, inherited: &[BorrowedFd<'_>]) -> Result<Self> {
        let worker = Worker::spawn(launch, inherited)?;
        let pid = worker.pid();
        Ok(Self {
            worker: Some(worker),
            pid,
            attempt: "start",
            watch: Watch::default(),
            look: None,
            pulse: None,
            owed: None,
        })
    }

    /// CRIU's PID.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Our end of the socket to CRIU, while it is open.
    pub(crate) fn line(&self) -> Option<BorrowedFd<'_>> {
        self.worker.as_ref().and_then(Worker::line)
    }

    /// Sends one packet. Cancel-safe.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let attempt = self.attempt;
        match &self.worker {
            None => Err(Error::Closed { attempt }),
            Some(worker) => match worker.send(bytes).await {
                Ok(()) => Ok(()),
                // CRIU is gone: how it went says more than the failed call.
                Err(source) if gone(&source) => Err(self.hangup().await),
                Err(source) => Err(Error::Talk { attempt, source }),
            },
        }
    }

    /// Receives one packet, watching `images` for growth meanwhile. CRIU's end without a packet is an error.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: a packet is taken whole or not at all.
    pub(crate) async fn recv(&mut self, images: Option<&OwnedFd>) -> Result<Packet> {
        let attempt = self.attempt;
        if let Some(bytes) = self.owed.take() {
            self.refuse(&bytes);
        }
        let received = loop {
            let Some(worker) = &self.worker else { return Err(Error::Closed { attempt }) };
            // Kept here, not in the future: a caller that asks again and again must not start the clock anew.
            let look = *self.look.get_or_insert_with(|| Instant::now() + LOOK);
            match tokio::time::timeout_at(look.into(), worker.recv()).await {
                Ok(received) => break received,
                // What it has made may hold its end of the socket: then there is no end of file.
                Err(_elapsed) if has_ended(self.pid) => break Ok(None),
                Err(_elapsed) => self.look(images)?,
            }
        };
        (self.look, self.pulse) = (None, None);
        match received {
            Ok(Some(packet)) => Ok(packet),
            Ok(None) => Err(self.hangup().await),
            Err(source) if gone(&source) => Err(self.hangup().await),
            Err(source) => Err(Error::Talk { attempt, source }),
        }
    }

    /// Looks at a CRIU that has not answered for a while.
    fn look(&mut self, images: Option<&OwnedFd>) -> Result<()> {
        let attempt = self.attempt;
        let now = Instant::now();
        self.look = Some(now + LOOK);
        if self.watch.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Error::Hang { attempt, hang: Hang::Deadline });
        }
        let Some(limit) = self.watch.silence else { return Ok(()) };
        let pulse = Pulse::of(images, self.pid);
        match &self.pulse {
            Some((before, since)) if *before == pulse => match now.duration_since(*since) >= limit {
                true => Err(Error::Hang { attempt, hang: Hang::Silence(limit) }),
                false => Ok(()),
            },
            _ => {
                self.pulse = Some((pulse, now));
                Ok(())
            }
        }
    }

    /// Sends a refusal without waiting; where that is impossible, closes the socket, which means the same.
    pub(crate) fn refuse(&mut self, bytes: &[u8]) {
        if self.worker.as_ref().is_some_and(|worker| worker.try_send(bytes).is_err()) {
            self.close();
        }
    }

    /// Sends a refusal when the next packet is awaited; closing the socket comes before it.
    pub(crate) fn refuse_later(&mut self, bytes: Vec<u8>) {
        self.owed = Some(bytes);
    }

    /// Closes the socket and leaves CRIU to a thread that reaps it.
    pub(crate) fn close(&mut self) {
        self.worker = None;
    }

    /// Closes the socket and hands CRIU to a thread that kills it when it shows no sign of life for `grace`.
    pub(crate) fn abandon(&mut self, grace: Duration) -> Option<Reaping> {
        self.worker.take().and_then(|worker| worker.abandon(grace))
    }

    /// Closes the socket and waits for CRIU's end; `None` for one that does not end, which is left to a thread.
    pub(crate) async fn wait(&mut self) -> Option<Exit> {
        tokio::time::timeout(LAST_BREATH, self.worker.take()?.wait()).await.ok().flatten()
    }

    /// CRIU went away: waits for its exit status.
    async fn hangup(&mut self) -> Error {
        let attempt = self.attempt;
        match self.wait().await {
            Some(exit) => Error::Hangup { attempt, status: exit.status, stderr: exit.stderr },
            None => Error::Closed { attempt },
        }
    }
}

/// Whether a child of ours has ended and was not reaped.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rfind(')').is_some_and(|at| stat[at..].starts_with(") Z"))
}

fn gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}
