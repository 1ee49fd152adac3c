//! What is wrong with what a peer says.

use std::fmt;

use super::greeting::VERSIONS;
use crate::escape::escape;

/// Why what the other side says cannot be understood. The connection is over: what comes after is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is not crr.
    #[error("the other side does not speak crr's protocol: it begins with `{}`", escape(found))]
    NotCrr {
        /// What came first.
        found: Vec<u8>,
    },
    /// There is no version that both sides speak.
    #[error(
        "the other side speaks versions {oldest} to {newest} of the protocol, this crr {} to {}",
        VERSIONS.start(), VERSIONS.end()
    )]
    Version {
        /// The oldest that it speaks.
        oldest: u16,
        /// The newest.
        newest: u16,
    },
    /// A frame of no known kind.
    #[error("a frame of the unknown kind {kind}")]
    Kind {
        /// What it says it is.
        kind: u8,
    },
    /// Something where nothing may be.
    #[error("a {what} with something where nothing may be")]
    Reserved {
        /// The kind of header.
        what: &'static str,
    },
    /// A length beyond the limit. Nothing was allocated for it.
    #[error("a {what} of {length} bytes, and {limit} is the most")]
    TooLong {
        /// The kind of frame.
        what: &'static str,
        /// What it says.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// Bytes of nothing, or behind the end of all files.
    #[error("{length} bytes of object {object} at {offset}")]
    Place {
        /// The object's number.
        object: u64,
        /// Where they would be.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// A message that is none.
    #[error("a message that cannot be decoded")]
    Undecodable {
        /// The cause.
        source: protobuf::Error,
    },
    /// A message that would take a multiple of its length in memory.
    #[error("a message of more than {limit} fields")]
    TooManyFields {
        /// The limit.
        limit: usize,
    },
    /// A message with a value that no crr sends.
    #[error("a message whose {field} {reason}")]
    Invalid {
        /// What of it.
        field: &'static str,
        /// What it is, or is not.
        reason: Wrong,
    },
    /// The connection ended in the middle of something.
    #[error("the connection ended within a {what}")]
    Truncated {
        /// Within what.
        what: &'static str,
    },
    /// The decoder is used otherwise than documented, or after a fault.
    #[error("a fault of crr's own: {what}")]
    Misuse {
        /// What was done.
        what: &'static str,
    },
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is zero, unknown or absent.
    Absent,
    /// It is longer than this, or there are more of them.
    Long(usize),
    /// It has not the right length.
    Length(usize),
    /// It is out of range.
    Range,
    /// It is no plain name.
    Name,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("is not said, or unknown"),
            Self::Long(limit) => write!(f, "is longer than {limit}"),
            Self::Length(length) => write!(f, "has {length} bytes"),
            Self::Range => f.write_str("is out of range"),
            Self::Name => f.write_str("is no plain name"),
        }
    }
}

impl Fault {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotCrr { .. } => Some(
                "see that crr is there and starts (with ssh: that the login prints nothing), and that the address and port are \
                 those of `crr serve`",
            ),
            Self::Version { newest, .. } if newest < VERSIONS.start() => Some("install a newer crr on the other host"),
            Self::Version { .. } => Some("install a newer crr on this host"),
            Self::Truncated { .. } => Some("see what the crr on the other host says"),
            _ => None,
        }
    }
}
