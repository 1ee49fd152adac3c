//! Descriptors that tokio watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `fd` for this alone: watched for both, a socket would wake us each time the other end has read.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open file until it is dropped, which `AsyncFd` does after deregistering it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
