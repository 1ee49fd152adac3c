//! The dump itself.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::commit::Commit;
use super::{Failed, Plan, Progress, Report, Request, Stage, micros};
use crate::checkpoint::{Partial, RecordedOptions, room};
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::operation::{Dumped, Interrupt, Operation, Session, Wish, pause};
use crate::process::{Aftermath, Expected};
use crate::request::{Afterwards, ImageDirectory};

/// How long a cancelled CRIU may go on writing memory before it is killed. It lets the tree go clean only by itself.
const GRACE: Duration = Duration::from_secs(120);

/// How long a CRIU that hangs gets to notice that its client is gone.
const GRACE_OF_A_HANG: Duration = Duration::from_secs(5);

/// The room that images of a tree take besides its memory, at the least.
const ROOM_BYTES: u64 = 1 << 20;

/// Dumps a tree into a checkpoint.
///
/// `progress` is told of each stage and, while CRIU writes, several times a second.
///
/// # Errors
/// [`Failed`] with what is left. Unless it says otherwise the tree runs on, and DIR is as it was.
///
/// # Cancellation
/// By `interrupt`: the first wish gives up as soon as CRIU lets the tree go clean, the second kills CRIU. Dropping the future
/// does what the first wish does, but nobody looks at what is left.
pub async fn dump(
    mut request: Request,
    mut interrupt: Interrupt,
    mut progress: impl FnMut(Progress),
) -> Result<Report, Box<Failed>> {
    let begun = Instant::now();
    let mut here = Progress { stage: Stage::Preflight, written_bytes: 0, estimated_bytes: 0 };
    progress(here);
    let (plan, session) = super::plan::look(&request).await?;
    plan.verdict()?;
    plan.complete(&mut request.options);
    let partial = Partial::create(&request.dir, request.trust)?;
    here.estimated_bytes = plan.preflight.as_ref().map_or(0, |report| report.estimated_image_bytes);
    has_room(&partial, here.estimated_bytes)?;
    let tree = expected(&plan)?;
    let dir = partial.path();
    let recorded = RecordedOptions::of(&request.options);
    let commit = Commit::new(partial, &request, recorded, plan.version)?;
    let afterwards = request.options.afterwards;
    let (hash, with_files) = (request.hash, request.with_files);
    let run = Run { commit, tree, afterwards, committed: false, log: request.options.log.file.clone() };

    here.stage = Stage::Write;
    progress(here);
    let (commit, tree) = run.drive(session, request, &mut interrupt, |stage, written_bytes| {
        here = Progress { stage, written_bytes, ..here };
        progress(here);
    }).await?;

    here.stage = Stage::Sum;
    progress(here);
    let work = tokio::task::spawn_blocking(move || commit.complete(hash, with_files));
    let (record, complaints) = work.await.unwrap_or(Err(Error::Bug { what: "completing the checkpoint panicked" })).map_err(
        |error| Failed { kept: Some(dir.clone()), committed: true, ..Failed::from(error) },
    )?;
    let statistics = record.statistics.unwrap_or_default();
    let _ = tree;
    Ok(Report {
        pid: plan.pid,
        tasks: record.tree.iter().map(|task| task.pid).collect(),
        frozen_us: statistics.frozen_us,
        freezing_us: statistics.freezing_us,
        memory_bytes: (statistics.written_pages + statistics.shared_written_pages) * record.host.page_size_bytes,
        size_bytes: size_of(&dir),
        total_us: micros(begun.elapsed()),
        dir,
        options: plan.turned_on,
        findings: plan.preflight.map(|report| report.findings).unwrap_or_default(),
        complaints,
    })
}

/// A dump under way.
struct Run {
    commit: Commit,
    tree: Vec<Expected>,
    afterwards: Afterwards,
    /// CRIU has been told to end the tree.
    committed: bool,
    log: String,
}

impl Run {
    /// Sends the request and answers events until all is done, or puts everything back.
    async fn drive(
        mut self,
        session: Session,
        request: Request,
        interrupt: &mut Interrupt,
        mut progress: impl FnMut(Stage, u64),
    ) -> Result<(Commit, Vec<Expected>), Box<Failed>> {
        let images = match self.commit.partial.as_fd().try_clone_to_owned() {
            Ok(images) => ImageDirectory::new(images),
            Err(source) => return Err(self.fail(Error::system("copy a descriptor", source)).await),
        };
        let begun = tokio::select! {
            begun = session.dump(images, request.options) => begun,
            () = interrupt.at_least(Wish::Cancel) => Err(Error::Cancelled { attempt: "dump" }),
        };
        let mut dump = match begun {
            Ok(dump) => dump,
            Err(error) => return Err(self.fail(error).await),
        };
        match self.answer_events(&mut dump, interrupt, &mut progress).await {
            Ok(()) => match dump.finish().await {
                Ok(Dumped { .. }) if !self.committed => {
                    Err(self.fail(Error::Nonsense { attempt: "dump", what: "success without the event post-dump".into() }).await)
                }
                Ok(Dumped { .. }) => self.after_release().await,
                Err(error) => Err(self.fail(error).await),
            },
            Err(error) => {
                self.let_go(dump, &error, interrupt).await;
                Err(self.fail(error).await)
            }
        }
    }

    async fn answer_events(
        &mut self,
        dump: &mut Operation<Dumped>,
        interrupt: &mut Interrupt,
        progress: &mut impl FnMut(Stage, u64),
    ) -> Result<()> {
        let cancelled = || Error::Cancelled { attempt: "dump" };
        loop {
            let event = {
                let watching = Watching { directory: self.commit.partial.partial_path() };
                tokio::select! {
                    event = dump.next() => event?,
                    () = interrupt.at_least(Wish::Cancel) => return Err(cancelled()),
                    () = watching.report(|bytes| progress(Stage::Write, bytes)) => continue,
                }
            };
            let Some(event) = event else { return Ok(()) };
            let kind = event.kind().clone();
            pause(kind.name());
            if kind == EventKind::PostDump {
                progress(Stage::Publish, size_of(&self.commit.partial.partial_path()));
                self.blocking(Commit::hold).await?;
                if self.afterwards != Afterwards::KeepRunning {
                    self.blocking(Commit::publish).await?;
                }
            }
            // Signals that came meanwhile are seen only by a runtime that gets its turn.
            tokio::task::yield_now().await;
            if interrupt.wish() >= Wish::Cancel {
                return Err(cancelled());
            }
            if kind == EventKind::PostDump {
                self.committed = true;
            }
            event.proceed().await?;
        }
    }

    /// Runs a step that blocks, in a thread of its own.
    async fn blocking(&mut self, step: fn(&mut Commit) -> Result<()>) -> Result<()> {
        let bug = || Error::Bug { what: "a step of the dump panicked" };
        let mut commit = self.commit.take().ok_or_else(bug)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = step(&mut commit);
            (commit, result)
        });
        let (commit, result) = done.await.map_err(|_| bug())?;
        self.commit = Some(commit);
        result
    }

    /// CRIU has let the tree go, or ended it: what is left to do for the checkpoint.
    async fn after_release(mut self) -> Result<(Commit, Vec<Expected>), Box<Failed>> {
        pause("released");
        if self.afterwards == Afterwards::KeepRunning {
            if let Err(error) = self.blocking(Commit::publish).await {
                return Err(self.fail(error).await);
            }
        }
        if let Err(error) = self.commit.clear_remaps() {
            return Err(self.fail(error).await);
        }
        Ok((self.commit, self.tree))
    }

    /// Makes CRIU let the tree go.
    async fn let_go(&self, dump: Operation<Dumped>, error: &Error, interrupt: &mut Interrupt) {
        let grace = if matches!(error, Error::Hang { .. }) { GRACE_OF_A_HANG } else { GRACE };
        let Some(mut reaping) = dump.cancel(grace) else { return };
        tokio::select! {
            _ = reaping.ended() => {}
            () = interrupt.at_least(Wish::Kill) => {
                reaping.kill();
                reaping.ended().await;
            }
        }
    }

    /// Looks at what is left and puts back what can be.
    async fn fail(self, error: Error) -> Box<Failed> {
        let Self { commit, tree, afterwards, committed, log } = self;
        let mut left = Vec::new();
        let aftermath = Aftermath::look(&tree);
        if let Err(error) = commit.clear_remaps() {
            left.push(error.to_string());
        }
        let dir = commit.partial.path();
        let whole = commit.partial.is_published();
        let Commit { partial, .. } = commit;
        let mut failed = Failed { error, aftermath: Some(aftermath), committed, log: None, kept: None, left };
        // Tasks are gone and a whole checkpoint is there: it is all that is left of them.
        let needed = committed && afterwards != Afterwards::KeepRunning && !failed.is_tree_unharmed();
        if whole && needed {
            failed.kept = Some(dir);
            failed.log = Some(partial.path().join(log));
            return Box::new(failed);
        }
        if needed {
            // Not published, and yet tasks are gone: what was written may be of use to somebody.
            failed.left.push(format!("what CRIU wrote is in {}", partial.partial_path().display()));
            std::mem::forget(partial);
            return Box::new(failed);
        }
        match partial.abandon(Some(&log), |_| {}) {
            Ok(kept) => failed.log = kept,
            Err(error) => failed.left.push(error.to_string()),
        }
        Box::new(failed)
    }
}

impl From<Error> for Box<Failed> {
    fn from(error: Error) -> Self {
        Box::new(Failed::from(error))
    }
}

/// A look at how much has been written, a few times a second.
struct Watching {
    directory: PathBuf,
}

impl Watching {
    async fn report(self, mut tell: impl FnMut(u64)) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tell(size_of(&self.directory));
    }
}

/// The tasks that must be there if the dump fails.
fn expected(plan: &Plan) -> Result<Vec<Expected>> {
    match &plan.preflight {
        Some(report) => {
            let task = |task: &crate::preflight::TaskSummary| Expected { pid: task.pid, start_time_ticks: task.start_time_ticks };
            Ok(report.tree.tasks.iter().filter(|task| !matches!(task.state, 'Z' | 'X')).map(task).collect())
        }
        None => Ok(vec![Expected::now(plan.pid).ok_or(Error::NoSuchProcess { pid: plan.pid })?]),
    }
}

fn has_room(partial: &Partial, estimated_bytes: u64) -> Result<()> {
    let needed = estimated_bytes + ROOM_BYTES;
    match room(&partial.partial_path())? {
        free if free < needed => Err(Error::NoRoom { dir: partial.path(), needed_bytes: needed, free_bytes: free }),
        _ => Ok(()),
    }
}

/// The bytes of the files in a directory.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
}
