//! A process in whose namespaces CRIU is started.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, setns};

/// A process beside which CRIU is started: in its PID, network and IPC namespaces.
///
/// The socket pair is made by that process. CRIU opens the descriptors that a request names as files of whoever made the pair,
/// and of a process outside its PID namespace it knows nothing: so it has to have them open, under the same numbers.
#[derive(Debug)]
pub struct Neighbour {
    process: OwnedFd,
    pair: Mutex<Option<(OwnedFd, OwnedFd)>>,
}

impl Neighbour {
    /// The process, by a pidfd, and the two ends of a socket pair (`SOCK_SEQPACKET`, not blocking) that it has made.
    pub(crate) fn new(process: OwnedFd, pair: (OwnedFd, OwnedFd)) -> Self {
        Self { process, pair: Mutex::new(Some(pair)) }
    }

    /// The pair, for the one CRIU that is started.
    pub(super) fn take_pair(&self) -> Option<(OwnedFd, OwnedFd)> {
        self.pair.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// From here on what the calling thread starts is beside it.
    pub(super) fn join(&self) -> nix::Result<()> {
        setns(&self.process, CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)
    }
}
