//! A running `criu swrk`.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;

use super::launch::Launch;
use super::readiness::watch;
use super::reaper::{Exit, Reaping, Remains};
use super::socket::{Packet, Socket};
use crate::error::{Error, Result};

/// How long a CRIU whose socket was closed may show no sign of life before it is killed, unless the caller says otherwise.
///
/// CRIU looks at its socket only at events, so a dump goes on until its memory is written, and a kill before that
/// would leave its parasite mapping in the tasks.
pub(super) const GRACE: Duration = Duration::from_secs(120);

/// One `criu swrk` process and our end of its socket.
///
/// Dropping it closes the socket, which CRIU takes for a refusal at its next event, and leaves the process to a thread that
/// reaps it.
#[derive(Debug)]
pub(crate) struct Worker {
    pid: i32,
    socket: Option<Socket>,
    remains: Option<Remains>,
}

impl Worker {
    /// Starts CRIU, with `inherited` open in it under the same numbers. It waits for a request and touches nothing until then.
    ///
    /// Must be called within a tokio runtime that has I/O enabled.
    pub(crate) fn spawn(launch: &Launch, inherited: &[BorrowedFd<'_>]) -> Result<Self> {
        let (socket, theirs) = match launch.neighbour.as_ref() {
            Some(neighbour) => Socket::of(neighbour.take_pair().ok_or(Error::Closed { attempt: "start" })?)?,
            None => Socket::pair()?,
        };
        // A memfd rather than a pipe: nobody needs to read while CRIU runs, and CRIU never blocks on it.
        let stderr: OwnedFd = rustix::fs::memfd_create("crr-criu-stderr", MemfdFlags::CLOEXEC)
            .map_err(|errno| Error::system("make a file for CRIU's standard error", errno))?;
        let stderr = File::from(stderr);
        let child = launch.spawn(theirs, inherited, &stderr)?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let pidfd = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK));
        let pidfd = match pidfd {
            Some(Ok(pidfd)) => pidfd,
            Some(Err(errno)) => return Err(give_up(child, errno.into())),
            None => return Err(give_up(child, std::io::ErrorKind::InvalidData.into())),
        };
        let remains = Some(Remains { child, pidfd, stderr });
        Ok(Self { pid, socket: Some(socket), remains })
    }

    /// CRIU's PID.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Our end of the socket.
    pub(crate) fn line(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(Socket::line)
    }

    /// Sends one packet.
    pub(crate) async fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        match &self.socket {
            Some(socket) => socket.send(bytes).await,
            None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    /// Sends one packet if that needs no waiting.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.as_ref().map_or(Err(std::io::ErrorKind::NotConnected.into()), |socket| socket.try_send(bytes))
    }

    /// Receives one packet; `None` when CRIU has closed its end.
    pub(crate) async fn recv(&self) -> std::io::Result<Option<Packet>> {
        match &self.socket {
            Some(socket) => socket.recv().await,
            None => Ok(None),
        }
    }

    /// Closes the socket and waits for CRIU's end.
    ///
    /// # Cancellation
    /// Dropping the future leaves the process to a thread that reaps it.
    pub(crate) async fn wait(mut self) -> Option<Exit> {
        self.socket = None;
        let pidfd = self.remains.as_ref()?.pidfd.try_clone().ok()?;
        let ended = match watch(pidfd, Interest::READABLE) {
            Ok(pidfd) => pidfd.readable().await.is_ok(),
            Err(_) => false,
        };
        let remains = self.remains.take()?;
        if ended { remains.reap(false) } else { remains.reap_in_background(GRACE).ended().await }
    }

    /// Closes the socket and leaves CRIU to a thread, which kills it when it shows no sign of life for `grace`.
    pub(crate) fn abandon(mut self, grace: Duration) -> Option<Reaping> {
        self.socket = None;
        self.remains.take().map(|remains| remains.reap_in_background(grace))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.socket = None;
        if let Some(remains) = self.remains.take() {
            remains.reap_in_background(GRACE);
        }
    }
}

/// Ends a child that cannot be watched. It has not had a request yet.
fn give_up(mut child: std::process::Child, source: std::io::Error) -> Error {
    let _ = child.kill();
    let _ = child.wait();
    Error::system("watch the CRIU process", source)
}
