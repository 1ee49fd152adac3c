//! Giving the restored tree its place, when whoever had it before is gone.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::copy;
use super::departure::Departure;
use super::home::{Home, Settled};
use super::judge::broken;
use super::problem::{Problem, Remarks};
use super::restoring::Restoring;
use crate::error::{Error, Result};
use crate::host::cgroup::Membership;

impl Restoring {
    /// Has the attendant, if there is one, make the tree's place: the directories of its cgroups.
    pub(super) async fn make_place(
        &self,
        directory: &Path,
        departure: &Departure,
        deadline: Option<Instant>,
    ) -> Result<Option<Vec<PathBuf>>> {
        let Some(attendant) = self.attendant.clone() else { return Ok(None) };
        departure.complete(deadline).await;
        let settled = tokio::task::spawn_blocking(move || attendant.with(|attendant| attendant.settle()));
        match settled.await.map_err(broken)?? {
            Ok(cgroups) => Ok(Some(cgroups)),
            Err(problem) => Err(Error::Unrestorable { dir: directory.to_path_buf(), problems: vec![problem] }),
        }
    }
}

/// Where CRIU is moved to, as the tree is born where CRIU is.
#[derive(Debug)]
pub(super) struct Settling {
    pub(super) home: Home,
    /// The cgroups that it had.
    pub(super) recorded: Option<Membership>,
    /// The cgroups that were made for it, if it is not to be chosen.
    pub(super) cgroups: Option<Vec<PathBuf>>,
    /// The first process of a copy's namespaces, which goes with CRIU.
    pub(super) init: Option<i32>,
}

impl Settling {
    /// Moves `criu` there, in a thread of its own. What stands against it is the inner error.
    pub(super) async fn settle(self, criu: i32) -> Result<(std::result::Result<Settled, Problem>, Remarks)> {
        tokio::task::spawn_blocking(move || self.settle_now(criu)).await.map_err(broken)
    }

    fn settle_now(self, criu: i32) -> (std::result::Result<Settled, Problem>, Remarks) {
        let Self { home, recorded, cgroups, init } = self;
        let mut remarks = Remarks::default();
        let settled = match cgroups {
            Some(cgroups) => Settled::enter(&cgroups, criu),
            None => Settled::settle(&home, recorded, criu, &mut remarks),
        };
        if let (Some(init), Ok(_)) = (init, &settled) {
            copy::follow(criu, init, &mut remarks);
        }
        (settled.map_err(Problem::Cgroup), remarks)
    }
}
