//! How a restore that does not come to its end leaves nothing, and what one that does leaves behind.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::attendant::Shared;
use super::home::{self, Settled};
use super::problem::Remarks;
use super::remains::Remains;
use super::work::WorkDirectory;
use crate::checkpoint::PutBack;
use crate::copy::Enclosure;
use crate::host::cgroup::OwnCgroup;
use crate::images::RestoreStatistics;

/// What became of a restore that was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancelled {
    /// What had to be killed as CRIU did not do it.
    pub killed: BTreeSet<i32>,
    /// What was killed and is still there: tasks in an uninterruptible sleep.
    pub left: BTreeSet<i32>,
    /// Whether the tree runs all the same: it did so already.
    pub runs: bool,
    /// CRIU's log, if it failed and wrote one.
    pub log: Option<PathBuf>,
}

/// How to leave nothing.
#[derive(Debug)]
pub(super) struct Undo {
    pub(super) remains: Remains,
    pub(super) work: WorkDirectory,
    pub(super) log: String,
    pub(super) settled: Option<Settled>,
    pub(super) put_back: Option<PutBack>,
    pub(super) attendant: Option<Shared>,
    pub(super) enclosure: Option<Enclosure>,
}

impl Undo {
    /// After CRIU's end. Blocks.
    pub(super) fn run(self, runs: bool, failed: bool) -> Cancelled {
        let Self { mut remains, work, log, settled, put_back, attendant, enclosure } = self;
        // First: a directory in a mount namespace of CRIU's own is empty as soon as that is gone.
        let log = match failed {
            true => work.keep(&log),
            false => {
                work.remove();
                None
            }
        };
        if let Some(enclosure) = enclosure.as_ref().filter(|_| !runs) {
            enclosure.kill();
        }
        let (killed, left) = match runs {
            true => Default::default(),
            false => remains.kill(),
        };
        if let Some(attendant) = attendant {
            attendant.with(|attendant| if runs { attendant.keep(&mut Remarks::default()) } else { attendant.undo() });
        }
        if runs {
            settled.map(Settled::keep);
        } else if let Some(settled) = settled {
            home::remove(settled);
        }
        drop(put_back);
        Cancelled { killed, left, runs, log }
    }

    /// After success.
    pub(super) fn keep(
        self,
        remarks: &mut Remarks,
    ) -> (Option<OwnCgroup>, Option<RestoreStatistics>, Option<Enclosure>) {
        let Self { mut remains, work, log: _, settled, put_back, attendant, enclosure } = self;
        remains.release();
        if let Some(attendant) = attendant {
            attendant.with(|attendant| attendant.keep(remarks));
        }
        if let Some(Err(error)) = put_back.map(PutBack::clear) {
            remarks.warn(format!("a name that CRIU made is left: {error}"));
        }
        let statistics = work.statistics();
        work.remove();
        (settled.and_then(Settled::keep), statistics, enclosure)
    }
}
