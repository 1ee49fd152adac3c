//! Why memory did not get from CRIU to the other end.

use std::io;
use std::time::Duration;

use crate::error::Error;

/// Why memory did not get from CRIU to the other end. Whatever it is, CRIU's dump fails and lets the tree run on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// CRIU closed its socket too early: it failed, or it was killed. Its log or its status says why.
    #[error("CRIU ended the transfer before all of it was sent")]
    CriuGone,
    /// CRIU said something that a dump does not say.
    #[error("CRIU sent {what}")]
    Criu {
        /// What it sent.
        what: String,
    },
    /// The socket to CRIU failed.
    #[error("cannot {attempt} CRIU's socket")]
    Socket {
        /// The verb, such as "read from".
        attempt: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The other end has closed the link, or it was cut.
    #[error("the link to the other end was closed")]
    Cut,
    /// The link failed.
    #[error("cannot {attempt} the link to the other end")]
    Link {
        /// The verb, such as "write to".
        attempt: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Nothing has moved on the link for too long.
    #[error("nothing has moved on the link for {} s", limit.as_secs())]
    Silence {
        /// How long that may last.
        limit: Duration,
    },
    /// The other end gave a reason for failing.
    #[error("the other end says: {reason}")]
    Far {
        /// What it said, made safe to print.
        reason: String,
    },
    /// The other end sent what this crr does not understand.
    #[error("the other end sent {what}")]
    Record {
        /// What it sent.
        what: String,
    },
    /// The source needs more room than it was given.
    #[error("it takes more than the {limit_bytes} bytes that are allowed")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// What arrived is not what was sent.
    #[error("{bytes} bytes for pages at {address:#x} arrived damaged")]
    Damaged {
        /// Where they belong.
        address: u64,
        /// How many.
        bytes: u64,
    },
    /// [`Stop::stop`](super::Stop::stop) was called.
    #[error("it was stopped")]
    Stopped,
}

impl Problem {
    /// Whether the two ends do not know any more where they are in the stream.
    pub fn has_broken_the_link(&self) -> bool {
        matches!(self, Self::Cut | Self::Link { .. } | Self::Silence { .. } | Self::Record { .. })
    }
}

impl From<Problem> for Error {
    fn from(source: Problem) -> Self {
        Self::Pages { source }
    }
}
