//! A dump that failed: why, and what is left.

use std::path::PathBuf;

use crate::error::Error;
use crate::process::Aftermath;

/// Why a dump failed, and what is left: looked at, not assumed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Why.
    #[source]
    pub error: Error,
    /// The tasks of the tree, as they are now. `None`: the tree has not been touched.
    pub aftermath: Option<Aftermath>,
    /// Whether CRIU had been told to end the tree, so that a task that is gone was ended by it.
    pub committed: bool,
    /// CRIU's log.
    pub log: Option<PathBuf>,
    /// The checkpoint, where it is whole and was left, since the tree is not whole any more.
    pub kept: Option<PathBuf>,
    /// What a CRIU that died had left, and has been put right.
    pub put_right: Vec<String>,
    /// What else is not as it was, such as a name that could not be removed.
    pub left: Vec<String>,
}

impl Failed {
    /// Whether the tree is as it was before.
    pub fn is_tree_unharmed(&self) -> bool {
        match &self.aftermath {
            None => true,
            // Until CRIU is told to end the tree, a task that is gone has ended by itself.
            Some(aftermath) if !self.committed => aftermath.traced.is_empty() && aftermath.parasites.is_empty(),
            Some(aftermath) => aftermath.is_unharmed(),
        }
    }
}

impl From<Error> for Failed {
    /// A failure before anything was touched.
    fn from(error: Error) -> Self {
        Self {
            error,
            aftermath: None,
            committed: false,
            log: None,
            kept: None,
            put_right: Vec::new(),
            left: Vec::new(),
        }
    }
}
