//! The end of what was dumped, where its dump is about to end it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::host::{DirectoryWatch, await_end};

/// A tree is told to end when its checkpoint is there. What still lives so long after that is not about to end.
const ENDING: Duration = Duration::from_secs(10);

/// What is about to be gone.
#[derive(Debug, Default)]
pub(super) enum Departure {
    /// Nothing is.
    #[default]
    Nobody,
    /// These tasks.
    Tasks(BTreeSet<i32>),
    /// A directory that goes last.
    Directory(PathBuf),
}

impl Departure {
    /// Waits for it, not beyond the deadline and not for more than seconds. Whether it is gone is for others to find out.
    pub(super) async fn complete(&self, deadline: Option<Instant>) {
        let until = deadline.map_or(Instant::now() + ENDING, |deadline| deadline.min(Instant::now() + ENDING));
        let gone = async {
            match self {
                Self::Nobody => {}
                Self::Tasks(pids) => await_end(pids).await,
                // Without a watch there is nothing to wait by.
                Self::Directory(directory) => drop(is_gone(directory).await),
            }
        };
        let _ = tokio::time::timeout_at(until.into(), gone).await;
    }
}

async fn is_gone(directory: &Path) -> Result<()> {
    let Some(above) = directory.parent() else { return Ok(()) };
    let watch = DirectoryWatch::new(above)?;
    while directory.symlink_metadata().is_ok() {
        watch.changes().await?;
    }
    Ok(())
}
