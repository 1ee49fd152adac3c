//! The error of every fallible function of this crate.
//!
//! `Display` says what was attempted and with which values; the cause is in [`std::error::Error::source`] only, so that a
//! caller prints the chain once. What a person can do about it is in [`Error::hint`], apart from the message.

use std::io;
use std::path::{Path, PathBuf};

use crate::request::Version;

/// A [`Result`](std::result::Result) with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file or directory failed.
    #[error("cannot {attempt} `{}`", path.display())]
    Io {
        /// The verb, such as "read".
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The CRIU binary did not start; nothing has touched the process tree.
    #[error("cannot start CRIU at `{}`", binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An option has a value that CRIU would refuse or misunderstand. Nothing was started.
    #[error("`{value}` is no value for {option}: it {reason}")]
    Option {
        /// The criu program's word for the option.
        option: &'static str,
        /// The value.
        value: String,
        /// What a value must be.
        reason: &'static str,
    },
    /// The running CRIU would ignore an option without a word. Nothing was requested.
    #[error("the option {option} needs CRIU {since}, and this is CRIU {running}")]
    NeedsNewerCriu {
        /// The option, by its name in rpc.proto.
        option: String,
        /// The first release that acts on it.
        since: Version,
        /// The version of the CRIU that would have got it.
        running: Version,
    },
    /// A system call that concerns no file failed.
    #[error("cannot {attempt}")]
    System {
        /// What was attempted, such as "make a socket pair".
        attempt: String,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`: `map_err(Error::io("read", path))`.
    pub fn io(attempt: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { attempt, path, source }
    }

    /// An [`Error::System`].
    pub fn system(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { attempt: attempt.into(), source: source.into() }
    }
}
