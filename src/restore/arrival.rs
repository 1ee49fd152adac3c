//! Waiting for a checkpoint that is not there yet.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::checkpoint::RECORD_NAME;
use crate::error::{Absence, Error, Result};
use crate::host::DirectoryWatch;
use crate::host::cgroup::ExpectedMoves;
use crate::operation::pause;

/// The image that a set cannot be without.
const INVENTORY: &str = "inventory.img";

/// A dump that is repeated in another way takes the log of its first attempt back at once.
const TAKEN_BACK: Duration = Duration::from_millis(500);

/// A checkpoint that is about to come. What happens from its making on is noticed.
#[derive(Debug)]
pub struct Arrival {
    dir: PathBuf,
    path: PathBuf,
    /// Where a dump to there leaves CRIU's log if it fails.
    log: PathBuf,
    /// Where a dump to there writes it before.
    partial: PathBuf,
    watch: DirectoryWatch,
    /// From when it is being written until this is dropped: a restore is about to move its CRIU.
    moves: Mutex<Option<ExpectedMoves>>,
}

impl Arrival {
    /// Expects a checkpoint to come to `directory`.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory that is to hold it is not there.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O enabled.
    pub fn expect(directory: &Path) -> Result<Self> {
        // Through a symbolic link, as a dump goes.
        let path = match directory.canonicalize() {
            Ok(path) => path,
            Err(_) => std::path::absolute(directory).map_err(Error::io("find", directory))?,
        };
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::io("wait for", directory)(std::io::ErrorKind::InvalidInput.into()));
        };
        let beside = |ending: &str| {
            let mut beside = name.to_os_string();
            beside.push(ending);
            above.join(beside)
        };
        let (log, partial) = (beside(".failed.log"), beside(".partial"));
        let watch = DirectoryWatch::new(above)?;
        Ok(Self { dir: directory.to_path_buf(), log, partial, path, watch, moves: Mutex::default() })
    }

    /// Waits until it is there whole: until it comes by a rename, as that of a [dump](crate::dump) does. One that is there
    /// already is not waited for. A directory that is filled in its place is not noticed.
    ///
    /// # Errors
    /// [`Error::Absent`] if it has not come after `limit`, or if a dump to that place has failed; [`Error::Io`] if the directory
    /// that is to hold it is gone.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing; it may be called again.
    pub async fn complete(&self, limit: Option<Duration>) -> Result<()> {
        pause("waiting");
        match limit {
            None => self.come().await,
            Some(limit) => match timeout(limit, self.come()).await {
                Ok(came) => came,
                Err(_) => Err(self.absent(Absence::TooLate(limit))),
            },
        }
    }

    fn absent(&self, why: Absence) -> Error {
        Error::Absent { dir: self.dir.clone(), why }
    }

    /// That it has been there and is gone again: a dump that is interrupted in the last moment takes it back. What is begun with
    /// it then fails for any reason.
    pub fn taken_back(&self) -> Option<Error> {
        (!self.is_there()).then(|| self.absent(Absence::DumpFailed(self.log.clone())))
    }

    fn is_there(&self) -> bool {
        [RECORD_NAME, INVENTORY].iter().any(|name| self.path.join(name).symlink_metadata().is_ok())
    }

    async fn come(&self) -> Result<()> {
        while !self.is_there() {
            let changes = self.watch.changes().await?;
            if changes.lost && self.path.parent().is_none_or(|above| !above.is_dir()) {
                return Err(Error::io("wait for", &self.path)(std::io::ErrorKind::NotFound.into()));
            }
            if changes.came.iter().any(|name| self.partial.file_name() == Some(name)) {
                *self.moves.lock().unwrap_or_else(PoisonError::into_inner) = Some(ExpectedMoves::new());
            }
            let has_failed = changes.came.iter().any(|name| self.log.file_name() == Some(name));
            if has_failed && timeout(TAKEN_BACK, self.be_repeated()).await.is_err() {
                return Err(self.absent(Absence::DumpFailed(self.log.clone())));
            }
        }
        Ok(())
    }

    /// Waits until the log of a failed attempt is gone, or the checkpoint there.
    async fn be_repeated(&self) {
        while self.log.symlink_metadata().is_ok() && !self.is_there() {
            if self.watch.changes().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn soon(directory: &Path) -> Result<()> {
        Arrival::expect(directory)?.complete(Some(Duration::from_secs(20))).await
    }

    fn checkpoint(at: &Path) {
        fs::create_dir(at).unwrap();
        fs::write(at.join(INVENTORY), "").unwrap();
    }

    #[tokio::test]
    async fn one_that_is_there_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        checkpoint(&home.path().join("a"));
        Arrival::expect(&home.path().join("a")).unwrap().complete(None).await.unwrap();
    }

    #[tokio::test]
    async fn one_comes_by_a_rename_also_over_an_empty_directory() {
        for is_empty_before in [false, true] {
            let home = tempfile::tempdir().unwrap();
            let (at, partial) = (home.path().join("a"), home.path().join("a.partial"));
            if is_empty_before {
                fs::create_dir(&at).unwrap();
            }
            let publish = async {
                // The other side has had its first look by now.
                tokio::task::yield_now().await;
                checkpoint(&partial);
                fs::rename(&partial, &at).unwrap();
            };
            let (came, ()) = tokio::join!(soon(&at), publish);
            came.unwrap();
        }
    }

    #[tokio::test]
    async fn the_time_ends_and_so_does_the_place() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("a");
        let late = Arrival::expect(&at).unwrap().complete(Some(Duration::from_millis(5))).await;
        assert!(matches!(late, Err(Error::Absent { why: Absence::TooLate(_), .. })), "{late:?}");
        let gone = async {
            tokio::task::yield_now().await;
            fs::remove_dir(home.path()).unwrap();
        };
        let (came, ()) = tokio::join!(soon(&at), gone);
        assert!(matches!(came, Err(Error::Io { .. })), "{came:?}");
        assert!(matches!(soon(&at).await, Err(Error::Io { .. })));
    }

    #[tokio::test]
    async fn a_dump_that_fails_is_noticed_and_one_that_is_repeated_is_not_taken_for_it() {
        let home = tempfile::tempdir().unwrap();
        let (at, log) = (home.path().join("a"), home.path().join("a.failed.log"));
        let fails = async {
            tokio::task::yield_now().await;
            fs::write(&log, "").unwrap();
        };
        let (came, ()) = tokio::join!(soon(&at), fails);
        assert!(matches!(came, Err(Error::Absent { why: Absence::DumpFailed(path), .. }) if path == log));
        // The log of long ago says nothing.
        let repeats = async {
            tokio::task::yield_now().await;
            fs::rename(&log, home.path().join("b")).unwrap();
            fs::write(&log, "").unwrap();
            tokio::time::sleep(TAKEN_BACK / 10).await;
            fs::remove_file(&log).unwrap();
            tokio::time::sleep(TAKEN_BACK * 2).await;
            checkpoint(&at);
        };
        let (came, ()) = tokio::join!(soon(&at), repeats);
        came.unwrap();
    }
}
