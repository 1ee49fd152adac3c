//! A whole dump: preflight, request, events, publishing, and looking at what is left when something fails.
//!
//! What is there if crr, CRIU or both die after each step (`tests/host/kill/` kills them there):
//!
//! | step | left afterwards |
//! |---|---|
//! | preflight, CRIU started | nothing |
//! | `DIR.partial` made | `DIR.partial`, which the next dump to DIR removes |
//! | CRIU freezes and writes | the same; the tree runs on (a killed CRIU leaves its parasite mapping, and crr says so) |
//! | `post-dump`: remaps kept, crr.json written, flushed | the same |
//! | `DIR.partial` renamed to DIR | both: the tree runs on, and DIR is whole |
//! | `post-dump` answered: CRIU kills the tree | DIR, without sums |
//! | sums and statistics added | DIR |
//!
//! With [`Afterwards::KeepRunning`](crate::request::Afterwards::KeepRunning) nothing is flushed while the tree stands still:
//! `post-dump` is answered as soon as the remaps are kept, and DIR appears afterwards.
//!
//! Where a cgroup is frozen for the dump (`freeze_cgroup`), a [guard](crate::host::cgroup::freezer::Guard) is posted before
//! that, who thaws it if crr is killed; it survives whatever kills crr. One that was frozen before the dump is frozen after it.

mod attendant;
mod commit;
mod failed;
mod freeze;
mod plan;
mod run;
mod salvage;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::checkpoint::{Flush, RecordedContainer, Trust};
use crate::preflight;
use crate::request::DumpOptions;
use crate::swrk::Watch;

pub(crate) use attendant::{Attendant, Fate};
pub use failed::Failed;
pub use plan::{Plan, Room, plan};
pub use run::dump;

/// Who judges beforehand whether the dump will work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judge {
    /// The preflight: what CRIU would refuse is refused before anything is frozen.
    #[default]
    Preflight,
    /// CRIU alone.
    CriuAlone,
}

/// Whether options that the tree needs are turned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auto {
    /// Those that lose nothing are.
    #[default]
    On,
    /// None is: only what the caller gave counts.
    Off,
}

/// Whether sums of images and files are computed, after the tree was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hash {
    /// They are.
    #[default]
    Sum,
    /// They are not: a restore then cannot tell a flipped bit.
    Skip,
}

/// Whether the files that a restore needs are put into DIR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithFiles {
    /// They are expected to be there at the restore.
    #[default]
    Leave,
    /// They are: for a restore on another host.
    Keep,
}

/// Where CRIU runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// In the mount namespace of crr, which is that of the tree.
    #[default]
    Shared,
    /// In one of its own, for a tree with a mount namespace of its own. There it finds what is known about the kernel, which
    /// it else has to look at anew where `/run` is no tmpfs.
    Private,
}

/// What is to be dumped, where to, and how.
#[derive(Debug)]
pub struct Request {
    /// The directory for the checkpoint: absent, or empty.
    pub dir: PathBuf,
    /// The options of the dump, PID included.
    pub options: DumpOptions,
    /// How far the ghost limit may be raised where the options name none, in bytes.
    pub ghost_limit_at_most: u32,
    /// Where CRIU writes its log and statistics; `None`: in the checkpoint.
    pub work_dir: Option<PathBuf>,
    /// The CRIU program; `None`: the first suitable one.
    pub criu: Option<PathBuf>,
    /// Who judges.
    pub judge: Judge,
    /// Whether options are turned on.
    pub auto: Auto,
    /// Whether the checkpoint is flushed to the disk.
    pub flush: Flush,
    /// Whether sums are computed.
    pub hash: Hash,
    /// Whether files outside are kept.
    pub with_files: WithFiles,
    /// Whose directories are believed.
    pub trust: Trust,
    /// How long CRIU may owe an answer.
    pub watch: Watch,
    /// Where CRIU runs.
    pub(crate) mounts: Mounts,
    /// What the caller has found out about the tree: comes into the report of the preflight.
    pub(crate) found: Vec<preflight::Finding>,
    /// What the tree is besides a tree, for crr.json.
    pub(crate) container: Option<RecordedContainer>,
    /// Files that go into the checkpoint beside the images (mode 0600), by name: those of
    /// [`CONTAINER_FILES`](crate::checkpoint::CONTAINER_FILES) only.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    /// Somebody who is asked at events.
    pub(crate) attendant: Option<Box<dyn Attendant>>,
}

impl Request {
    /// A dump of the tree below `pid` to `dir`, with every default.
    pub fn new(pid: i32, dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            options: DumpOptions::new(pid),
            ghost_limit_at_most: preflight::GHOST_LIMIT_BYTES,
            work_dir: None,
            criu: None,
            judge: Judge::default(),
            auto: Auto::default(),
            flush: Flush::default(),
            hash: Hash::default(),
            with_files: WithFiles::default(),
            trust: Trust::owners(),
            watch: Watch::default(),
            mounts: Mounts::default(),
            found: Vec::new(),
            container: None,
            files: Vec::new(),
            attendant: None,
        }
    }

    /// The same once more, without what a container has added to it.
    pub(crate) fn again(&self) -> Self {
        Self {
            options: self.options.again(),
            ghost_limit_at_most: self.ghost_limit_at_most,
            work_dir: self.work_dir.clone(),
            criu: self.criu.clone(),
            judge: self.judge,
            auto: self.auto,
            flush: self.flush,
            hash: self.hash,
            with_files: self.with_files,
            trust: self.trust,
            watch: self.watch,
            ..Self::new(self.options.pid, &self.dir)
        }
    }
}

/// Where a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The tree is being looked at.
    Preflight,
    /// CRIU freezes the tree and writes memory.
    Write,
    /// The tree stands still until the checkpoint is on the disk.
    Publish,
    /// The tree has been let go or ended; sums are being computed.
    Sum,
}

/// A sign of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Where the dump is.
    pub stage: Stage,
    /// How much had been written when it was looked at last, in bytes.
    pub written_bytes: u64,
    /// How much it will be, roughly.
    pub estimated_bytes: u64,
}

/// A dump that succeeded.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The PID of the root.
    pub pid: i32,
    /// The checkpoint.
    pub dir: PathBuf,
    /// The PIDs of the tasks.
    pub tasks: Vec<u32>,
    /// How long the tree stood still, as CRIU measured it, in microseconds.
    pub frozen_us: u32,
    /// How long freezing took, in microseconds.
    pub freezing_us: u32,
    /// Memory written, in bytes.
    pub memory_bytes: u64,
    /// The size of all files of the checkpoint, in bytes.
    pub size_bytes: u64,
    /// From the request to the end of everything, in microseconds.
    pub total_us: u64,
    /// The options that were turned on, as words of a command line.
    pub options: Vec<String>,
    /// What was found and turned on, for a person.
    pub findings: Vec<preflight::Finding>,
    /// What of the work after the dump could not be done, and what a restore will not have as it was: the checkpoint is whole
    /// all the same.
    pub complaints: Vec<String>,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
