//! The source: from CRIU's socket to the link.

use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::protocol::Width;
use super::transfer::Transfer;
use super::{Link, Patience, Stop};
use crate::error::{Error, Result};
use crate::request::Version;

/// How much CRIU can write ahead of the relay, in bytes.
const AHEAD: usize = 1 << 20;

/// The page server that CRIU talks to, which keeps nothing: all goes over a link to a [`Store`](super::Store).
///
/// CRIU is told that its pages are stored only when the other end has said so. Until then they are still the tree's own: what
/// is in a socket is a reference to memory, which a tree that runs on would change.
#[derive(Debug)]
pub struct Relay {
    pub(super) criu: OwnedFd,
    pub(super) stop: Stop,
    pub(super) patience: Patience,
    pub(super) otherwise: Width,
    pub(super) has_hashes: bool,
}

/// What a relay has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Address spaces and shared memories.
    pub pagemaps: u64,
    /// Pages whose content was sent.
    pub pages: u64,
    /// Of these, pages that were all zero and were told instead of sent. Only where bytes are copied: nobody looks at pages
    /// that are not.
    pub zero_pages: u64,
}

impl Relay {
    /// A relay, and the socket that CRIU is to write to: for [`PagesTo::Socket`](crate::request::PagesTo::Socket).
    ///
    /// # Errors
    /// [`Error::System`] when there are no descriptors left.
    pub fn pair() -> Result<(Self, OwnedFd)> {
        const ATTEMPT: &str = "make a socket pair for pages";
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.map_err(|errno| Error::system(ATTEMPT, errno))?;
        // CRIU fills while we empty; without the capability it is only less.
        if setsockopt(&theirs, sockopt::SndBufForce, &AHEAD).is_err() {
            let _ = setsockopt(&theirs, sockopt::SndBuf, &AHEAD);
        }
        Ok((Self::on(ours)?, theirs))
    }

    /// A relay on a stream socket at whose other end is CRIU.
    ///
    /// # Errors
    /// [`Error::System`] when it cannot be made not to block.
    pub fn on(criu: OwnedFd) -> Result<Self> {
        fcntl_getfl(&criu)
            .and_then(|flags| fcntl_setfl(&criu, flags | OFlags::NONBLOCK))
            .map_err(|errno| Error::system("make the socket to CRIU not block", errno))?;
        let (patience, otherwise) = (Patience::default(), Width::Long);
        Ok(Self { criu, stop: Stop::new()?, patience, otherwise, has_hashes: false })
    }

    /// Says which CRIU it is. Counts only where that ends the transfer before it has begun one: its requests tell otherwise.
    #[must_use]
    pub fn version(self, version: Version) -> Self {
        Self { otherwise: Width::of(version), ..self }
    }

    /// How long it waits.
    #[must_use]
    pub fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Copies every page, whatever the link, and sends hashes along, with which the other end checks what it got.
    #[must_use]
    pub fn with_hashes(self) -> Self {
        Self { has_hashes: true, ..self }
    }

    /// What ends the transfer early.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Passes on what CRIU sends until it closes, and answers that when the other end has everything. Blocks this thread.
    ///
    /// The link comes back. After success, and after a failure of this end or the other end's, it can be used on; after
    /// [`Problem::Cut`](super::Problem::Cut), `Link`, `Silence` and `Record` it cannot.
    ///
    /// # Errors
    /// [`Error::Pages`]. CRIU has lost its socket then, its dump fails, and the tree runs on.
    pub fn run<L: Link>(self, link: L) -> (L, Result<Sent>) {
        let mut transfer = Transfer::new(self, link);
        let mut outcome = transfer.all();
        if let Err(error) = &outcome {
            if let Err(Error::Pages { source }) = transfer.give_up(error) {
                // A link that is of no use any more is what the caller must know first.
                if source.has_broken_the_link() {
                    outcome = Err(source.into());
                }
            }
        }
        (transfer.into_link(), outcome)
    }
}
