//! Somebody who looks after what is around a tree while it is restored: its container.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::{Problem, Remarks};
use crate::error::Result;
use crate::event::EventKind;

/// Told of the events of a restore, in the order they come, and in the end what became of it.
pub(crate) trait Attendant: fmt::Debug + Send {
    /// Makes the place of the tree, when whoever had it before is gone: the directories of the cgroups that it is to be born in.
    /// Or says what stands against it. It may block.
    fn settle(&mut self) -> Result<std::result::Result<Vec<PathBuf>, Problem>>;

    /// Does what is to be done while CRIU waits at this event. It may block. An error refuses the event and gives the restore
    /// up; at [`EventKind::PreResume`] and later it is too late for that.
    ///
    /// `pid` is the root's, where the event tells it; `descriptor` came along with [`EventKind::OrphanPtsMaster`].
    fn attend(&mut self, event: &EventKind, pid: Option<i32>, descriptor: Option<OwnedFd>) -> Result<()>;

    /// The tree runs: what was made for it stays.
    fn keep(&mut self, remarks: &mut Remarks);

    /// Removes all that was made for the tree, which is gone. May block.
    fn undo(&mut self);
}

/// What is around a tree, made before CRIU is started.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The mount namespace that CRIU works in.
    pub(crate) mount_namespace: Arc<OwnedFd>,
    /// CRIU's working directory, opened in that namespace: CRIU mounts below it.
    pub(crate) work: OwnedFd,
    /// The images as CRIU is to find them, if not as they are.
    pub(crate) images: Option<OwnedFd>,
    /// Who is told.
    pub(crate) attendant: Shared,
    /// What must be gone before the tree can have its place, where it is about to be gone.
    pub(crate) departing: Option<PathBuf>,
}

/// An attendant that may be in the middle of something when the restore is given up.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<dyn Attendant>>);

impl Shared {
    pub(crate) fn new(attendant: impl Attendant + 'static) -> Self {
        Self(Arc::new(Mutex::new(attendant)))
    }

    /// Runs something with it, when what it does for others is done.
    pub(super) fn with<R>(&self, run: impl FnOnce(&mut dyn Attendant) -> R) -> R {
        run(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
