//! The restore itself: request, events, and what to do when it does not work.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::remains::Remains;
use super::request::Request;
use super::work::WorkDirectory;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::operation::{Interrupt, Operation, Restored, Session, Wish, pause};
use crate::request::{ImageDirectory, RestoreSwitch};
use crate::swrk::{Group, Launch, Stdin, Watch};

/// How long CRIU may take to notice that it is not wanted any more: it looks at its socket at events only.
const GRACE: Duration = Duration::from_secs(10);

/// A restore under way.
///
/// Dropping it before the tree runs gives it up, as [`Restoring::cancel`] does, but without waiting.
#[derive(Debug)]
pub struct Restoring {
    operation: Option<Operation<Restored>>,
    undo: Option<Undo>,
    root: Option<i32>,
    runs: bool,
}

/// A restore that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// The PID of the tree's root, as this process sees it.
    pub pid: i32,
}

/// What became of a restore that was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancelled {
    /// What had to be killed as CRIU did not do it.
    pub killed: BTreeSet<i32>,
    /// What was killed and is still there: tasks in an uninterruptible sleep.
    pub left: BTreeSet<i32>,
    /// CRIU's log.
    pub log: Option<PathBuf>,
}

/// Begins a restore.
///
/// # Errors
/// What stands against it; nothing has been touched then.
///
/// # Cancellation
/// Dropping the future leaves nothing.
pub async fn begin(request: Request) -> Result<Restoring> {
    let Request { directory, criu, options, work, deadline } = request;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let images = open(&directory, flags, Mode::empty())
        .map_err(|errno| Error::io("open the directory", &directory)(errno.into()))?;
    let mut launch = Launch::new(criu);
    if options.switches.contains(&RestoreSwitch::ShellJob) {
        launch.group = Group::Caller;
        launch.stdin = Stdin::Caller;
    }
    let mut session = Session::start(&launch)?;
    session.watch(Watch { deadline: deadline.map(|deadline| Instant::now() + deadline), ..Watch::default() });
    let remains = Remains::watch(session.criu_pid())?;
    let work = WorkDirectory::new(work.as_deref())?;
    let directory = ImageDirectory { images, work: Some(work.open()?) };
    let log = options.log.file.clone();
    let undo = Some(Undo { remains, work, log });
    let operation = session.restore(directory, options).await?;
    Ok(Restoring { operation: Some(operation), undo, root: None, runs: false })
}

impl Restoring {
    /// Waits for the next event; `None` when [`Restoring::finish`] is next. After an error [`Restoring::cancel`] is next.
    ///
    /// # Errors
    /// As [`Operation::next`].
    ///
    /// # Cancellation
    /// Dropping the future loses nothing; it may be called again.
    pub async fn next(&mut self) -> Result<Option<Event<'_>>> {
        let Some(operation) = self.operation.as_mut() else { return Ok(None) };
        let Some(event) = operation.next().await? else { return Ok(None) };
        match event.kind() {
            EventKind::PostRestore => self.root = event.pid(),
            EventKind::PostResume => {
                self.runs = true;
                if let Some(undo) = self.undo.as_mut() {
                    undo.remains.release();
                }
            }
            _ => {}
        }
        pause(event.kind().name());
        Ok(Some(event))
    }

    /// The PID of the tree's root, from [`EventKind::PostRestore`] on.
    pub fn root(&self) -> Option<i32> {
        self.root
    }

    /// Answers the events that are left and waits for CRIU's end. After an error [`Restoring::cancel`] is next.
    ///
    /// # Errors
    /// As [`Operation::finish`].
    ///
    /// # Cancellation
    /// Dropping the future gives the restore up if the tree does not run yet.
    pub async fn finish(&mut self) -> Result<Finished> {
        while let Some(event) = self.next().await? {
            event.proceed().await?;
        }
        let Some(operation) = self.operation.take() else { return Err(Error::Closed { attempt: "restore" }) };
        let pid = match operation.finish().await {
            Ok(restored) => restored.pid,
            // The tree runs: that CRIU went away before it could say so changes nothing.
            Err(Error::Hangup { .. }) if self.runs => self.root.unwrap_or_default(),
            Err(error) => return Err(error),
        };
        self.runs = true;
        if let Some(Undo { work, .. }) = self.undo.take() {
            work.remove();
        }
        Ok(Finished { pid })
    }

    /// Gives the restore up: CRIU is asked to end, and killed where it does not; what it made is killed.
    ///
    /// A tree that runs already is left alone. With [`Wish::Kill`] CRIU is killed at once.
    pub async fn cancel(mut self, mut interrupt: Interrupt) -> Cancelled {
        if let Some(mut reaping) = self.operation.take().and_then(|operation| operation.cancel(GRACE)) {
            tokio::select! {
                _ = reaping.ended() => {}
                () = interrupt.at_least(Wish::Kill) => {
                    reaping.kill();
                    reaping.ended().await;
                }
            }
        }
        let Some(undo) = self.undo.take() else { return Cancelled::default() };
        let runs = self.runs;
        tokio::task::spawn_blocking(move || undo.run(runs)).await.unwrap_or_default()
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        let runs = self.runs;
        let reaping = self.operation.take().and_then(|operation| operation.cancel(GRACE));
        // Nobody waits for it: a thread does what `cancel` would have done.
        let _ = std::thread::Builder::new().name("crr-undo".into()).spawn(move || {
            if let Some(mut reaping) = reaping {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                if let Ok(runtime) = runtime {
                    runtime.block_on(reaping.ended());
                }
            }
            undo.run(runs)
        });
    }
}

/// How to leave nothing.
#[derive(Debug)]
struct Undo {
    remains: Remains,
    work: WorkDirectory,
    log: String,
}

impl Undo {
    /// Runs after CRIU's end. Blocks.
    fn run(mut self, runs: bool) -> Cancelled {
        let (killed, left) = match runs {
            true => Default::default(),
            false => self.remains.kill(),
        };
        Cancelled { killed, left, log: self.work.keep(&self.log) }
    }
}
