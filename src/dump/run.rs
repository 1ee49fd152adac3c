//! The dump itself.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::commit::Commit;
use super::freeze::{self, Hold};
use super::plan::Looked;
use super::salvage::Salvage;
use super::{Attendant, Failed, Fate, Plan, Progress, Report, Request, Room, Stage, micros};
use crate::arena::Arena;
use crate::checkpoint::{Partial, RecordedOptions, room};
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::host::cgroup::freezer::Freezer;
use crate::host::netlock::Ledger;
use crate::host::{Awake, Hurry};
use crate::operation::{Dumped, Interrupt, Operation, Session, Wish, pause};
use crate::process::{Aftermath, Expected};
use crate::request::{Afterwards, ImageDirectory};

/// How long a cancelled CRIU may show no sign of life before it is killed. It lets the tree go clean only by itself, when it
/// has written all memory.
const GRACE: Duration = Duration::from_secs(120);

/// As [`GRACE`], for a CRIU that hung already, or whose deadline has passed.
const GRACE_OF_A_HANG: Duration = Duration::from_secs(5);

/// How often is looked at what CRIU has written.
const LOOK: Duration = Duration::from_millis(200);

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
/// By `interrupt`: the first wish gives up as soon as CRIU lets the tree go clean, the second kills CRIU. Once CRIU has been
/// told to end the tree it is too late, and the dump succeeds. Dropping the future does what the first wish does, but nobody
/// looks at what is left.
pub async fn dump(
    request: Request,
    interrupt: Interrupt,
    progress: impl FnMut(Progress),
) -> Result<Report, Box<Failed>> {
    let mut awake = Awake::keep();
    pause("awake");
    awake.during(from_look_to_report(request, interrupt, progress)).await
}

async fn from_look_to_report(
    mut request: Request,
    mut interrupt: Interrupt,
    mut progress: impl FnMut(Progress),
) -> Result<Report, Box<Failed>> {
    let begun = Instant::now();
    let mut here = Progress { stage: Stage::Preflight, written_bytes: 0, estimated_bytes: 0 };
    progress(here);
    let Looked { plan, session, arena } = super::plan::look(&request, Room::Check).await?;
    plan.verdict()?;
    plan.complete(&mut request.options);
    let freezer = freeze::freezer(&request.options)?;
    // CRIU is not in this directory.
    request.options.freeze_cgroup = freezer.as_ref().map(|freezer| freezer.directory().display().to_string());
    let partial = Partial::create(&request.dir, request.trust)?;
    here.estimated_bytes = plan.preflight.as_ref().map_or(0, |report| report.estimated_image_bytes);
    has_room(&partial, here.estimated_bytes)?;
    let tree = expected(&plan)?;
    let dir = partial.path();
    let recorded = RecordedOptions::of(&request.options);
    let afterwards = request.options.afterwards;
    let log = request.options.log.file.clone();
    let hash = request.hash;
    let attendant = request.attendant.take();
    let commit = Commit::new(partial, &mut request, recorded, plan.version)?;
    let mut run = Run {
        commit: Some(commit),
        tree,
        afterwards,
        committed: false,
        log,
        written_bytes: 0,
        complaints: Vec::new(),
        salvage: None,
        attendant,
        tidier: None,
        arena,
        freezer,
        hold: None,
        hurry: None,
    };

    let driven = run.drive(session, request, &mut interrupt, |stage, written_bytes| {
        here = Progress { stage, written_bytes, ..here };
        progress(here);
    });
    let dumped = match driven.await {
        Ok(dumped) => dumped,
        Err(error) => return Err(run.fail(error)),
    };

    let tidied = run.tidy();
    let (finished, completed, tidied) = tokio::join!(dumped.finish(), run.complete(hash), tidied);
    let (record, mut complaints) = finished.and(completed).map_err(|error| Failed {
        kept: Some(dir.clone()),
        committed: true,
        ..Failed::from(error)
    })?;
    complaints.extend(tidied);
    let statistics = record.statistics.unwrap_or_default();
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
    /// There but for the time that a step works on it in a thread of its own.
    commit: Option<Commit>,
    tree: Vec<Expected>,
    afterwards: Afterwards,
    /// CRIU has been told to end the tree.
    committed: bool,
    log: String,
    /// What CRIU had written when it was looked at last.
    written_bytes: u64,
    complaints: Vec<String>,
    salvage: Option<Salvage>,
    attendant: Option<Box<dyn Attendant>>,
    /// The attendant, when CRIU has been told to end the tree.
    tidier: Option<Box<dyn Attendant>>,
    arena: Option<Arena>,
    /// The cgroup that is to be frozen.
    freezer: Option<Freezer>,
    /// What watches over it then.
    hold: Option<Hold>,
    /// While the tree stands still.
    hurry: Option<Hurry>,
}

impl Run {
    /// Sends the request and answers events until CRIU has replied and DIR is there.
    async fn drive(
        &mut self,
        session: Session,
        request: Request,
        interrupt: &mut Interrupt,
        mut progress: impl FnMut(Stage, u64),
    ) -> Result<Operation<Dumped>> {
        let (directory, path) = self.directory()?;
        progress(Stage::Write, 0);
        self.salvage = Some(Salvage::prepare(session.criu_pid(), &self.tree, &request.options));
        if let Some(freezer) = self.freezer.take() {
            self.hold = Some(Hold::prepare(freezer, session.criu_pid(), request.options.timeout_s)?);
        }
        let mut dump = tokio::select! {
            begun = session.dump(directory, request.options) => begun?,
            () = interrupt.at_least(Wish::Cancel) => return Err(cancelled()),
        };
        if let Err(error) = self.answer_events(&mut dump, &path, interrupt, &mut progress).await {
            let_go(dump, &error, interrupt).await;
            return Err(error);
        }
        self.hurry = None;
        let fate = if self.afterwards == Afterwards::Kill { Fate::Ends } else { Fate::Lives };
        self.complaints.extend(self.hold.take().and_then(|hold| hold.end(fate)));
        if !dump.has_succeeded() {
            dump.finish().await?;
            return Err(Error::Bug { what: "a dump that failed and did not" });
        }
        if !self.committed {
            return Err(Error::Nonsense { attempt: "dump", what: "success without the event post-dump".into() });
        }
        pause("released");
        if let Some(Err(error)) = self.arena.as_mut().map(Arena::keep_features) {
            self.complaints.push(format!("what CRIU found out about the kernel is not kept: {error}"));
        }
        if self.afterwards == Afterwards::KeepRunning {
            self.blocking(Commit::publish).await?;
        }
        if let Some(Err(error)) = self.commit.as_ref().map(Commit::clear_remaps) {
            self.complaints.push(error.to_string());
        }
        progress(Stage::Sum, self.written_bytes);
        Ok(dump)
    }

    fn directory(&self) -> Result<(ImageDirectory, PathBuf)> {
        let Commit { partial, work, .. } = self.commit.as_ref().ok_or(LOST)?;
        let path = partial.partial_path();
        let images = partial.as_fd().try_clone_to_owned().map_err(Error::io("open", &path))?;
        let work = work.as_ref().map(|work| work.as_fd().try_clone_to_owned().map_err(Error::io("open", work.path())));
        Ok((ImageDirectory { images, work: work.transpose()? }, path))
    }

    async fn answer_events(
        &mut self,
        dump: &mut Operation<Dumped>,
        path: &Path,
        interrupt: &mut Interrupt,
        progress: &mut impl FnMut(Stage, u64),
    ) -> Result<()> {
        // CRIU has the request, and looks at the kernel first: longer than this takes.
        self.blocking(Commit::prepare).await?;
        let mut pause_between = LOOK;
        loop {
            // Once CRIU ends the tree there is no way back: giving up half-way would only leave half of it.
            let wish = if self.committed { Wish::Kill } else { Wish::Cancel };
            let event = tokio::select! {
                event = dump.next() => event?,
                () = interrupt.at_least(wish) => return Err(cancelled()),
                () = tokio::time::sleep(pause_between) => {
                    let begun = Instant::now();
                    self.written_bytes = size_of(path);
                    progress(Stage::Write, self.written_bytes);
                    // An event may have come meanwhile: many files take long to look at.
                    pause_between = LOOK.max(begun.elapsed() * 20);
                    continue;
                }
            };
            let Some(event) = event else { return Ok(()) };
            let is_last_chance = *event.kind() == EventKind::PostDump;
            pause(event.kind().name());
            if *event.kind() == EventKind::PreDump {
                self.hurry = Some(Hurry::begin(event.criu_pid()));
                self.freeze().await?;
            }
            if let Some(attendant) = self.attendant.as_mut().filter(|_| is_attended(event.kind())) {
                // The event, dropped, is refused.
                attendant.attend(event.kind(), path)?;
            }
            if is_last_chance {
                progress(Stage::Publish, self.written_bytes);
                // Handing it to another thread takes longer than the look whether there is anything to do.
                if self.commit.as_ref().ok_or(LOST)?.must_hold()? {
                    self.blocking(Commit::hold).await?;
                }
                match self.afterwards {
                    Afterwards::KeepRunning => self.commit.as_mut().ok_or(LOST)?.let_go(),
                    _ => {
                        self.blocking(Commit::publish).await?;
                        if let Some(tree) = self.commit.as_ref().and_then(Commit::tree) {
                            self.tree = tree.to_vec();
                        }
                    }
                }
            }
            if !self.committed && interrupt.wish() >= Wish::Cancel {
                return Err(cancelled());
            }
            if is_last_chance {
                if self.afterwards != Afterwards::KeepRunning {
                    // What it agrees to is not taken back: nothing may fail between this and the answer.
                    self.hold().await?;
                }
                self.commit();
            }
            let told = event.proceed().await;
            if is_last_chance && self.afterwards != Afterwards::KeepRunning {
                if let Some(mut attendant) = self.attendant.take() {
                    // Also where CRIU is gone: there is no way back.
                    attendant.let_go(Fate::Ends);
                    self.tidier = Some(attendant);
                }
            }
            told?;
        }
    }

    /// Lets the attendant keep the tree standing.
    async fn hold(&mut self) -> Result<()> {
        let Some(mut attendant) = self.attendant.take() else { return Ok(()) };
        if let Some(salvage) = &self.salvage {
            salvage.stand_back();
        }
        let checkpoint = self.commit.as_ref().ok_or(LOST)?.partial.path();
        let held = tokio::task::spawn_blocking(move || {
            let result = attendant.hold(&checkpoint);
            (attendant, result)
        });
        let (attendant, result) = held.await.map_err(|_| LOST)?;
        self.attendant = Some(attendant);
        result
    }

    /// From here on there is no way back.
    fn commit(&mut self) {
        self.committed = true;
        if self.afterwards == Afterwards::KeepRunning {
            return;
        }
        if let Some(salvage) = &self.salvage {
            salvage.stand_back();
        }
        if let Some(hold) = self.hold.as_mut().filter(|_| self.afterwards == Afterwards::Kill) {
            hold.commit();
        }
        if let Some(commit) = &mut self.commit {
            commit.partial.stay();
        }
    }

    /// Runs a step that blocks, in a thread of its own.
    async fn blocking(&mut self, step: fn(&mut Commit) -> Result<()>) -> Result<()> {
        let mut commit = self.commit.take().ok_or(LOST)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = step(&mut commit);
            (commit, result)
        });
        let (commit, result) = done.await.map_err(|_| LOST)?;
        self.commit = Some(commit);
        result
    }

    /// Freezes the tree's cgroup, where it is to be.
    async fn freeze(&mut self) -> Result<()> {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || {
            let result = hold.freeze();
            (hold, result)
        });
        let (hold, result) = done.await.map_err(|_| LOST)?;
        self.hold = Some(hold);
        pause("frozen");
        result
    }

    /// Begins to remove what was around a tree that has ended.
    fn tidy(&mut self) -> impl Future<Output = Vec<String>> + use<> {
        let tidier = self.tidier.take().filter(|_| self.afterwards == Afterwards::Kill);
        let tidying = tidier.map(|mut attendant| tokio::task::spawn_blocking(move || attendant.tidy()));
        async move {
            match tidying {
                Some(tidying) => tidying.await.unwrap_or_else(|_| vec![LOST.to_string()]),
                None => Vec::new(),
            }
        }
    }

    /// Adds to the published checkpoint what needs the tree no more.
    async fn complete(mut self, hash: super::Hash) -> Result<(crate::checkpoint::Record, Vec<String>)> {
        let commit = self.commit.take().ok_or(LOST)?;
        let work = tokio::task::spawn_blocking(move || commit.complete(hash));
        let (record, complaints) = work.await.map_err(|_| LOST)??;
        self.complaints.extend(complaints);
        Ok((record, self.complaints))
    }

    /// Looks at what is left and puts back what can be.
    fn fail(self, error: Error) -> Box<Failed> {
        let Self { commit, tree, afterwards, committed, log, complaints: mut left, salvage, hold, attendant, .. } =
            self;
        let aftermath = Some(Aftermath::look(&tree));
        let mut failed =
            Failed { aftermath, committed: committed && afterwards != Afterwards::KeepRunning, ..Failed::from(error) };
        let is_ending = failed.committed && !failed.is_tree_unharmed();
        // CRIU has ended: before anything else the tree is to run.
        left.extend(hold.and_then(|hold| hold.end(if is_ending { Fate::Ends } else { Fate::Lives })));
        if let Some(salvage) = salvage.filter(|_| !is_ending) {
            let mut salvaged = salvage.run();
            failed.put_right = salvaged.put_right;
            left.append(&mut salvaged.left);
        }
        if let Some(mut attendant) = attendant {
            attendant.let_go(if is_ending { Fate::Ends } else { Fate::Lives });
            failed.aftermath = Some(Aftermath::look(&tree));
        }
        let Some(commit) = commit else {
            failed.left = left;
            return Box::new(failed);
        };
        if let Err(error) = commit.clear_remaps() {
            left.push(error.to_string());
        }
        let Commit { partial, lock, .. } = commit;
        if is_ending {
            // Tasks are gone, and this is all that is left of them: it stays, and `Partial` leaves alone what is published.
            failed.kept = Some(partial.path());
            failed.log = Some(partial.path().join(log));
        } else {
            if let Some(lock) = lock {
                // CRIU removes its lock when a dump fails; without it the note means nothing to anyone.
                let _ = Ledger::default().forget(&lock.run_id);
            }
            match partial.abandon(Some(&log), |_| {}) {
                Ok(kept) => failed.log = kept,
                Err(error) => left.push(error.to_string()),
            }
        }
        failed.left = left;
        Box::new(failed)
    }
}

fn is_attended(event: &EventKind) -> bool {
    matches!(event, EventKind::QueryExtFiles | EventKind::PostDump)
}

/// A step that panicked has taken the checkpoint with it.
const LOST: Error = Error::Bug { what: "a step of the dump panicked" };

fn cancelled() -> Error {
    Error::Cancelled { attempt: "dump" }
}

/// Makes CRIU let the tree go.
async fn let_go(dump: Operation<Dumped>, error: &Error, interrupt: &mut Interrupt) {
    let grace = if matches!(error, Error::Hang { .. }) { GRACE_OF_A_HANG } else { GRACE };
    let Some(mut reaping) = dump.cancel(grace) else { return };
    tokio::select! {
        _ = reaping.ended() => return,
        () = interrupt.at_least(Wish::Kill) => reaping.kill(),
    }
    reaping.ended().await;
}

impl From<Error> for Box<Failed> {
    fn from(error: Error) -> Self {
        Box::new(Failed::from(error))
    }
}

/// The tasks that must be there if the dump fails.
fn expected(plan: &Plan) -> Result<Vec<Expected>> {
    let Some(report) = &plan.preflight else {
        return Ok(vec![Expected::now(plan.pid).ok_or(Error::NoSuchProcess { pid: plan.pid })?]);
    };
    let alive = report.tree.tasks.iter().filter(|task| !matches!(task.state, 'Z' | 'X'));
    Ok(alive.map(|task| Expected { pid: task.pid, start_time_ticks: task.start_time_ticks }).collect())
}

fn has_room(partial: &Partial, estimated_bytes: u64) -> Result<()> {
    let needed_bytes = estimated_bytes + ROOM_BYTES;
    match room(&partial.partial_path())? {
        free_bytes if free_bytes < needed_bytes => Err(Error::NoRoom { dir: partial.path(), needed_bytes, free_bytes }),
        _ => Ok(()),
    }
}

/// The bytes of the files in a directory.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|file| file.is_file())
        .map(|file| file.len())
        .sum()
}
