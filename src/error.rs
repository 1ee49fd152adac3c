//! The error of every fallible function of this crate.
//!
//! `Display` says what was attempted and with which values; the cause is in [`std::error::Error::source`] only, so that a
//! caller prints the chain once. What a person can do about it is in [`Error::hint`], apart from the message.

use std::io;
use std::path::{Path, PathBuf};

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
