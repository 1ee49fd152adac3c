//! A restore under way: its events, its end, and giving it up.

use std::collections::BTreeSet;
use std::time::Duration;

use super::attendant::Shared;
use super::network;
use super::problem::Remarks;
use super::undo::{Cancelled, Undo};
use crate::copy::Enclosure;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::host::Awake;
use crate::host::cgroup::OwnCgroup;
use crate::images::RestoreStatistics;
use crate::operation::{Interrupt, Operation, Restored, Wish, pause};
use crate::swrk::Reaping;

/// How long CRIU may take to notice that it is not wanted any more: it looks at its socket at events only.
const GRACE: Duration = Duration::from_secs(10);

/// A restore under way.
///
/// Dropping it before the tree runs gives it up, as [`Restoring::cancel`] does, but without waiting.
#[derive(Debug)]
pub struct Restoring {
    pub(super) operation: Option<Operation<Restored>>,
    pub(super) attendant: Option<Shared>,
    pub(super) undo: Option<Undo>,
    pub(super) lock: Option<network::Lock>,
    pub(super) pids: BTreeSet<i32>,
    pub(super) remarks: Remarks,
    pub(super) place: Option<String>,
    pub(super) root: Option<i32>,
    /// Whether the last event was the one whose answer, whatever it is, lets the tree run.
    pub(super) held: bool,
    /// Whether it is a copy, with a PID namespace of its own.
    pub(super) is_copy: bool,
    /// Whether CRIU has failed: then its log may tell why.
    pub(super) failed: bool,
    pub(super) runs: bool,
    pub(super) awake: Option<Awake>,
}

/// A restore that succeeded.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished {
    /// The PID of the tree's root, as this process sees it.
    pub pid: i32,
    /// What CRIU measured.
    pub statistics: Option<RestoreStatistics>,
    /// The cgroup that was made for the tree. [`OwnCgroup::remove_if_empty`] removes it when the tree has ended.
    pub cgroup: Option<OwnCgroup>,
    /// Where it lives, if it is a copy: [`Enclosure::leave`] waits for its end when the tree has ended.
    pub enclosure: Option<Enclosure>,
    /// What could not be cleaned up behind it.
    pub remarks: Remarks,
}
/// Whether the tree runs whatever becomes of the answer, or of CRIU: its death detaches it from a complete tree.
pub fn releases(event: &EventKind) -> bool {
    matches!(event, EventKind::PreResume | EventKind::PostResume)
}

impl Restoring {
    /// What was decided without being asked, and what may go wrong later.
    pub fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// The cgroup that the tree lives in, where one was chosen.
    pub fn cgroup(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The PIDs of all tasks, in the PID namespace of the tree.
    pub fn pids(&self) -> &BTreeSet<i32> {
        &self.pids
    }

    /// Whether it is a copy: [`Restoring::pids`] are then numbers of its own PID namespace, and on the host the original's.
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// The PID of the tree's root as this process sees it, from [`EventKind::PostRestore`] on.
    pub fn root(&self) -> Option<i32> {
        self.root
    }

    /// Whether the tree runs. From then on [`Restoring::cancel`] leaves it alone.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// Waits for the next event; `None` when [`Restoring::finish`] is next. After an error [`Restoring::cancel`] is next.
    ///
    /// # Errors
    /// As [`Operation::next`].
    ///
    /// # Cancellation
    /// Dropping the future loses nothing; it may be called again.
    pub async fn next(&mut self) -> Result<Option<Event<'_>>> {
        self.next_unless(|| false).await
    }

    /// As [`Restoring::next`], but gives the restore up while CRIU waits at an event if `give_up` says so then.
    ///
    /// Between the answer to `post-restore` and the one to `pre-resume` this is the only way: the tree is there, and CRIU takes
    /// the end of its socket for a yes.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when it was given up, else as [`Restoring::next`]. [`Restoring::cancel`] is next in either case.
    ///
    /// # Cancellation
    /// As [`Restoring::next`].
    pub async fn next_unless(&mut self, give_up: impl FnOnce() -> bool) -> Result<Option<Event<'_>>> {
        if self.held && !self.runs {
            // It was answered, and even a refusal lets the tree run.
            self.tree_runs();
        }
        let Some(operation) = self.operation.as_mut() else { return Ok(None) };
        let next = operation.next();
        let next = match self.awake.as_mut() {
            Some(awake) => awake.during(next).await,
            None => next.await,
        };
        let mut event = match next {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(None),
            // That CRIU went away before it could say so changes nothing.
            Err(_) if self.runs => return Ok(None),
            Err(error) => {
                self.failed = true;
                return Err(error);
            }
        };
        self.held = *event.kind() == EventKind::PreResume;
        if *event.kind() == EventKind::PostRestore {
            self.root = match (event.pid(), self.undo.as_ref().and_then(|undo| undo.enclosure.as_ref())) {
                // CRIU tells the number inside, which the original has as well.
                (Some(inside), Some(enclosure)) => Some(enclosure.pid_of(inside)?),
                (pid, _) => pid,
            };
        }
        pause(event.kind().name());
        if !self.runs && give_up() {
            if let Some(undo) = self.undo.as_ref().filter(|_| self.held) {
                // The refusal that follows would let it run.
                undo.remains.signal();
            }
            return Err(Error::Cancelled { attempt: "restore" });
        }
        if let Some(attendant) = &self.attendant {
            // In this thread: handed to another it would be lost with the future.
            let descriptor = event.take_descriptor();
            let attended = attendant.with(|attendant| attendant.attend(event.kind(), event.pid(), descriptor));
            if let (Err(_), Some(undo)) = (&attended, self.undo.as_ref().filter(|_| self.held)) {
                undo.remains.signal();
            }
            attended?;
        }
        if let (true, Some(undo)) = (self.held, self.undo.as_mut()) {
            // From here on the death of this process lets the tree run, in there as well.
            undo.enclosure.as_mut().map_or(Ok(()), Enclosure::release)?;
        }
        Ok(Some(event))
    }

    fn tree_runs(&mut self) {
        self.runs = true;
        if let Some(undo) = self.undo.as_mut() {
            undo.remains.release();
        }
    }

    /// Proceeds at the events that are left, waits for CRIU's end and cleans up behind it. After an error [`Restoring::cancel`]
    /// is next.
    ///
    /// # Errors
    /// As [`Operation::finish`].
    ///
    /// # Cancellation
    /// Dropping the future gives the restore up if the tree does not run yet.
    pub async fn finish(&mut self) -> Result<Finished> {
        while let Some(event) = self.next().await? {
            let is_released = releases(event.kind());
            let answered = event.proceed().await;
            if !is_released {
                answered?;
            }
        }
        let Some(operation) = self.operation.take() else { return Err(Error::Closed { attempt: "restore" }) };
        let mut remarks = Remarks::default();
        let mut kept = None;
        if operation.has_succeeded() {
            // CRIU takes half a millisecond to end.
            self.runs = true;
            kept = self.undo.take().map(|undo| undo.keep(&mut remarks));
        }
        let pid = match (operation.finish().await, self.root) {
            (Ok(_), Some(root)) if self.is_copy => root,
            (Ok(restored), _) => restored.pid,
            (Err(error), Some(root)) if self.runs => {
                remarks.warn(format!("the tree runs, but CRIU went away before it said so: {error}"));
                root
            }
            (Err(error), _) => {
                self.failed = true;
                return Err(error);
            }
        };
        self.runs = true;
        if let Some(lock) = self.lock.take() {
            lock.remove(&mut remarks);
        }
        let kept = kept.or_else(|| self.undo.take().map(|undo| undo.keep(&mut remarks)));
        self.awake = None;
        let Some((cgroup, statistics, enclosure)) = kept else { return Err(Error::Closed { attempt: "restore" }) };
        Ok(Finished { pid, statistics, cgroup, enclosure, remarks })
    }

    /// Gives the restore up: CRIU is asked to end, and killed where it does not; what it made is killed.
    ///
    /// A tree that runs already is left alone. With [`Wish::Kill`] CRIU is killed at once.
    pub async fn cancel(mut self, mut interrupt: Interrupt) -> Cancelled {
        if let Some(mut reaping) = self.abandon() {
            tokio::select! {
                _ = reaping.ended() => {}
                () = interrupt.at_least(Wish::Kill) => {
                    reaping.kill();
                    reaping.ended().await;
                }
            }
        }
        let Some(undo) = self.undo.take() else { return Cancelled::default() };
        let (runs, failed) = (self.runs, self.failed);
        tokio::task::spawn_blocking(move || undo.run(runs, failed)).await.unwrap_or_default()
    }

    /// Closes the socket to CRIU.
    fn abandon(&mut self) -> Option<Reaping> {
        if let (Some(_), false, Some(undo)) = (self.root, self.runs, &self.undo) {
            // CRIU takes the end of file at pre-resume for a yes: the tree must not get as far as running.
            undo.remains.signal();
        }
        self.operation.take()?.cancel(GRACE)
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        let reaping = self.abandon();
        let Some(undo) = self.undo.take() else { return };
        let (runs, failed) = (self.runs, self.failed);
        // Nobody waits for it: a thread does what `cancel` would have done.
        let _ = std::thread::Builder::new().name("crr-undo".into()).spawn(move || {
            if let (Some(mut reaping), Ok(runtime)) = (reaping, tokio::runtime::Builder::new_current_thread().build()) {
                runtime.block_on(reaping.ended());
            }
            undo.run(runs, failed)
        });
    }
}
