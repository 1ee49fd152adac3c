//! Waiting on descriptors: until one is ready, someone wants an end, or patience ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Problem;
use crate::error::{Error, Result};

/// Ends a transfer from any thread. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    pub(super) fn new() -> Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        event.map(|event| Self(Arc::new(event))).map_err(|errno| Error::system("make an event descriptor", errno))
    }

    /// Lets the transfer fail with [`Problem::Stopped`], now or when it begins. Does not wait for its end.
    pub fn stop(&self) {
        // It cannot fail but by being full, and then it says what it should.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// How long a transfer waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long the link may be still while something is awaited of it.
    pub silence: Duration,
    /// How often the source says that it has nothing to say. Well below the other end's `silence`.
    pub idle: Duration,
}

impl Default for Patience {
    /// A tree stands still meanwhile, and a link that recovers later recovers too late.
    fn default() -> Self {
        Self { silence: Duration::from_secs(15), idle: Duration::from_secs(3) }
    }
}

/// What is awaited of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Input,
    Output,
}

/// Waits until one of the descriptors is ready, and says of each whether it is; none is where `until` came first. An error or
/// the end of a stream counts as ready.
pub(super) fn wait<const N: usize>(
    awaited: [(BorrowedFd<'_>, For); N],
    stop: &Stop,
    until: Instant,
) -> Result<[bool; N]> {
    let mut polled = Vec::with_capacity(N + 1);
    for (descriptor, what) in &awaited {
        let events = if *what == For::Input { PollFlags::IN } else { PollFlags::OUT };
        polled.push(PollFd::from_borrowed_fd(*descriptor, events));
    }
    polled.push(PollFd::from_borrowed_fd(stop.0.as_fd(), PollFlags::IN));
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Never fails: a few seconds fit.
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for the link", errno)),
        }
    }
    if !polled[N].revents().is_empty() {
        return Err(Problem::Stopped.into());
    }
    Ok(std::array::from_fn(|at| !polled[at].revents().is_empty()))
}

/// Whether an operation is to be tried again later.
pub(super) fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
