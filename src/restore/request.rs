//! What a caller wants restored, and how.

use std::path::PathBuf;
use std::time::Duration;

use crate::request::RestoreOptions;

/// A restore that is wanted.
#[derive(Debug)]
pub struct Request {
    /// The checkpoint directory.
    pub directory: PathBuf,
    /// The CRIU program.
    pub criu: PathBuf,
    /// CRIU's options as the caller gives them. What the checkpoint records is added.
    pub options: RestoreOptions,
    /// CRIU's working directory, for its log and statistics, which stay there. `None`: one of the restore's own, which is
    /// removed afterwards, but for the log of a restore that failed.
    pub work: Option<PathBuf>,
    /// How long the whole may take.
    pub deadline: Option<Duration>,
}

impl Request {
    /// A restore of `directory` by the CRIU program `criu`, with what the checkpoint records and CRIU's defaults.
    pub fn new(directory: impl Into<PathBuf>, criu: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            criu: criu.into(),
            options: RestoreOptions::new(),
            work: None,
            deadline: None,
        }
    }
}
