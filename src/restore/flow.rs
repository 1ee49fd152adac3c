//! The restore itself: checks beside the start of CRIU, the request, events, and what to do when it does not work.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attendant::{Shared, Surroundings};
use super::checks::{Checks, Facts, Found, check_criu, check_images};
use super::container::ContainerProblem;
use super::copy;
use super::home::{self, Home, Settled};
use super::network;
use super::options::complete;
use super::problem::{Problem, Remarks};
use super::remains::Remains;
use super::request::{Request, Verify};
use super::subject::Subject;
use super::work::WorkDirectory;
use crate::checkpoint::{Checkpoint, Manifest, PutBack, Record};
use crate::copy::{Enclosure, Writes};
use crate::criu::{Chosen, InetSockets, Search, programs};
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::host::cgroup::{OwnCgroup, expect_moves};
use crate::host::{Taken, abort_orphan, await_free};
use crate::images::{Images, RestoreStatistics};
use crate::operation::{Interrupt, Operation, Restored, Session, Wish, pause};
use crate::request::{CgroupMode, DumpSwitch, ImageDirectory, RestoreOptions, RestoreSwitch, Tcp, Version};
use crate::swrk::{Group, Launch, Programs, Reaping, Stdin, Watch};

/// How long CRIU may take to notice that it is not wanted any more: it looks at its socket at events only.
const GRACE: Duration = Duration::from_secs(10);

/// What runc and crun write beside the images of a container.
const DESCRIPTORS: &str = "descriptors.json";

/// How long a killed process may keep its PID: PID 1 may take a second to take note of its end.
const DYING: Duration = Duration::from_secs(5);

/// A restore under way.
///
/// Dropping it before the tree runs gives it up, as [`Restoring::cancel`] does, but without waiting.
#[derive(Debug)]
pub struct Restoring {
    operation: Option<Operation<Restored>>,
    attendant: Option<Shared>,
    undo: Option<Undo>,
    lock: Option<network::Lock>,
    pids: BTreeSet<i32>,
    remarks: Remarks,
    place: Option<String>,
    root: Option<i32>,
    /// Whether the last event was the one whose answer, whatever it is, lets the tree run.
    held: bool,
    /// Whether it is a copy, with a PID namespace of its own.
    is_copy: bool,
    /// Whether CRIU has failed: then its log may tell why.
    failed: bool,
    runs: bool,
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

/// Begins a restore: checks all that can be checked, starts CRIU meanwhile, and sends the request.
///
/// # Errors
/// [`Error::Unrestorable`] with everything that stands against it, [`Error::Directory`], [`Error::Untrusted`] and
/// [`Error::Record`] for a directory that is none, is not to be believed or not to be understood. Nothing of the tree has been
/// made then.
///
/// # Cancellation
/// Dropping the future leaves nothing.
pub async fn begin(request: Request) -> Result<Restoring> {
    let Request { directory, criu, mut options, trust, verify, files, home, work, deadline, copy, surroundings } =
        request;
    let deadline = deadline.map(|deadline| Instant::now() + deadline);
    if surroundings.is_none() && home != Home::Restorer {
        expect_moves();
    }
    let checkpoint = Checkpoint::open(&directory, trust)?;
    let directory = checkpoint.path().to_path_buf();
    let problems = copy.map(|_| copy::contradictions(&options)).unwrap_or_default();
    if !problems.is_empty() {
        return Err(Error::Unrestorable { dir: directory, problems });
    }
    let copied = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map_err(Error::io("open", &directory));
    let images = Images::from_directory(copied(&checkpoint)?, &directory);
    let mut remarks = Remarks::default();
    let (namespace, inside, shown, cgroups, attendant, early) = match surroundings {
        Some(Surroundings { mount_namespace, work, images, cgroups, attendant, early }) => {
            (Some(mount_namespace), Some(work), images, Some(cgroups), Some(attendant), early)
        }
        None => (None, None, None, None, None, None),
    };
    let search = Search::new(criu, std::env::var_os("PATH").as_deref());
    // CRIU starts while the images are read, where the record tells how it is to be started.
    let early = match (early, checkpoint.record()) {
        (Some(early), _) => Some(early),
        // Where a copy lives depends on the images.
        (None, Some(record)) if copy.is_none() => {
            let chosen = search.choose(InetSockets::Unknown).await?;
            let found = match options.config_file {
                // It may say otherwise.
                Some(_) => Programs::All,
                // What CRIU finds out there is kept for others.
                None if namespace.is_some() => Programs::All,
                None => programs(record.options.tcp, record.options.network_lock, images.has_network_namespace()),
            };
            Some(Early::start(&chosen, record, &options, found, namespace.clone())?)
        }
        _ => None,
    };
    let subject = match Subject::read(&images) {
        Ok(subject) => subject,
        Err(error) => return Err(unreadable(&images, &checkpoint, verify, error)),
    };
    let recorded_options = checkpoint.record().map(|record| &record.options);
    complete(&mut options, recorded_options, &subject, attendant.is_some(), &mut remarks);

    if attendant.is_none() && options.root.is_none() {
        if let Some(problem) = of_container(&checkpoint, &subject) {
            return Err(Error::Unrestorable { dir: directory, problems: vec![problem] });
        }
    }
    if let Some(writes) = copy {
        let problems = copy::adapt(&mut options, &subject, &mut remarks);
        if !problems.is_empty() {
            return Err(Error::Unrestorable { dir: directory, problems });
        }
        if writes == Writes::Shared {
            copy::warn_of_sharing(&images, &mut remarks)?;
        }
    }
    let chosen = search.choose(if subject.inet { InetSockets::Some } else { InetSockets::None }).await?;
    let image_directory = copied(&checkpoint)?;
    let (enclosure, inside) = match copy {
        Some(writes) => {
            let held = [image_directory.as_fd()];
            let (enclosure, inside) = Enclosure::new(writes, &subject.numbers(), &held, work.as_deref())?;
            (Some(enclosure), Some(inside))
        }
        None => (None, inside),
    };
    let mut session = match early {
        Some(Early { was_job, session, binary }) if binary == chosen.binary && was_job == is_job(&options) => session,
        _ => start(&chosen, is_job(&options), &options, Programs::All, namespace, enclosure.as_ref())?,
    };
    session.watch(Watch { deadline, ..Watch::default() });

    // Of a copy's every number is free.
    let numbers = if enclosure.is_some() { BTreeSet::new() } else { subject.numbers() };
    let facts = Facts::of(&options, copy == Some(Writes::ThrownAway));
    let (work, opened) = match inside {
        Some(inside) => (WorkDirectory::inside(copied(&inside)?, work.as_deref()), inside),
        None => {
            let work = WorkDirectory::new(work.as_deref())?;
            let opened = work.open()?;
            (work, opened)
        }
    };
    let image_directory = ImageDirectory { images: shown.unwrap_or(image_directory), work: Some(opened) };
    let remains = Remains::watch(session.criu_pid(), numbers.clone())?;
    let undo = Undo {
        remains,
        work,
        log: options.log.file.clone(),
        settled: None,
        put_back: None,
        attendant: attendant.clone(),
        enclosure,
    };
    let init = undo.enclosure.as_ref().map(Enclosure::init_pid);
    let tcp = options.tcp;
    let home = match cgroups {
        Some(directories) => Home::Directories(directories),
        None if options.cgroups.mode.is_some_and(|mode| mode != CgroupMode::Ignore) => Home::Restorer,
        None => home,
    };
    let recorded = subject.home(checkpoint.record());
    let worker = session.criu_pid();
    let settling = tokio::task::spawn_blocking(move || {
        let mut remarks = Remarks::default();
        let settled = Settled::settle(&home, recorded, worker, &mut remarks);
        if let (Some(init), Ok(_)) = (init, &settled) {
            copy::follow(worker, init, &mut remarks);
        }
        (settled, remarks)
    });
    // CRIU looks at the kernel for as long as most checks take, and then asks: it makes nothing before it has its answer.
    let operation = session.restore(image_directory, options).await?;
    let mut restoring = Restoring {
        operation: Some(operation),
        attendant,
        undo: Some(undo),
        lock: None,
        pids: subject.tasks.iter().filter_map(|task| i32::try_from(task.pid).ok()).collect(),
        remarks,
        place: None,
        root: None,
        held: false,
        is_copy: init.is_some(),
        failed: false,
        runs: false,
    };
    let checks = Checks { images, checkpoint, subject, verify, files, options: facts };
    let checking = tokio::task::spawn_blocking(move || checks.run());
    let dying = deadline.map_or(Instant::now() + DYING, |deadline| deadline.min(Instant::now() + DYING));
    let (settled, checked, taken) = tokio::join!(settling, checking, await_free(&numbers, dying));
    let judged = restoring.judge(&directory, settled, checked, taken, chosen.version, tcp);
    if let Err(error) = judged {
        restoring.cancel(Interrupt::never()).await;
        return Err(error);
    }
    Ok(restoring)
}

/// That the images are of a container, which needs more around it than a tree of processes. A caller that names a root file
/// system of its own is believed.
fn of_container(checkpoint: &Checkpoint, subject: &Subject) -> Option<Problem> {
    let recorded = checkpoint.record().and_then(|record| record.container.as_ref());
    let is_container = recorded.is_some() || subject.own_mounts && checkpoint.path().join(DESCRIPTORS).exists();
    let id = recorded.map(|container| container.id.clone());
    is_container.then_some(Problem::Container(ContainerProblem::IsAContainer { id }))
}

fn is_job(options: &RestoreOptions) -> bool {
    options.switches.contains(&RestoreSwitch::ShellJob) && !sends_master(options)
}

/// Whether the other end of the tree's terminal comes to us instead of being ours.
fn sends_master(options: &RestoreOptions) -> bool {
    options.switches.contains(&RestoreSwitch::OrphanPtsMaster)
}

/// A CRIU that was started before all was known that it depends on.
#[derive(Debug)]
pub(crate) struct Early {
    was_job: bool,
    session: Session,
    binary: PathBuf,
}

impl Early {
    /// Starts CRIU as the record says. It gets the descriptors of `options`, which must be all that it will need.
    pub(crate) fn start(
        criu: &Chosen,
        record: &Record,
        options: &RestoreOptions,
        programs: Programs,
        namespace: Option<Arc<OwnedFd>>,
    ) -> Result<Self> {
        let recorded_job = record.options.switches.contains(&DumpSwitch::ShellJob) && !sends_master(options);
        let was_job = is_job(options) || recorded_job;
        let session = start(criu, was_job, options, programs, namespace, None)?;
        Ok(Self { was_job, session, binary: criu.binary.clone() })
    }
}

fn start(
    criu: &Chosen,
    is_job: bool,
    options: &RestoreOptions,
    programs: Programs,
    mount_namespace: Option<Arc<OwnedFd>>,
    enclosure: Option<&Enclosure>,
) -> Result<Session> {
    let mut launch = Launch { programs, mount_namespace, ..Launch::new(&criu.binary) };
    if let Some(enclosure) = enclosure {
        enclosure.host(&mut launch);
    }
    if is_job {
        // The job's group is to be the caller's, which holds the terminal.
        launch.group = Group::Caller;
        launch.stdin = Stdin::Caller;
    }
    let inherited: Vec<_> = options.inherited.iter().map(|inherited| inherited.descriptor.as_fd()).collect();
    let mut session = Session::start_inheriting(&launch, &inherited)?;
    session.assume_version(criu.version);
    Ok(session)
}

/// Makes what the checkpoint brings along: files that are missing, and CRIU's names for unlinked files.
fn put_back(checkpoint: &Checkpoint, subject: &Subject, root: &Path, remarks: &mut Remarks) -> Result<Option<PutBack>> {
    let Some(record) = checkpoint.record() else { return Ok(None) };
    // In a mount namespace of its own the tree finds them where CRIU puts them.
    if subject.own_mounts {
        return Ok(None);
    }
    if record.files.files().iter().any(|file| file.kept.is_some()) {
        let made = record.files.put_back(root, checkpoint, checkpoint.path())?;
        made.iter().for_each(|path| remarks.note(format!("put back `{}`", path.display())));
    }
    if record.remaps.is_empty() {
        return Ok(None);
    }
    record.remaps.put_back(root, checkpoint, checkpoint.path()).map(Some)
}

/// All that is wrong with images of which the first could not be read.
fn unreadable(images: &Images, checkpoint: &Checkpoint, verify: Verify, error: Error) -> Error {
    let mut found = Found::default();
    match check_images(images, checkpoint, verify, &mut found) {
        Ok(()) if !found.problems.is_empty() => {
            Error::Unrestorable { dir: checkpoint.path().to_path_buf(), problems: found.problems }
        }
        _ => error,
    }
}

/// Whether the tree runs whatever becomes of the answer, or of CRIU: its death detaches it from a complete tree.
pub fn releases(event: &EventKind) -> bool {
    matches!(event, EventKind::PreResume | EventKind::PostResume)
}

/// A check that did not come to its end: it panicked, or the runtime is shutting down.
fn broken(error: tokio::task::JoinError) -> Error {
    Error::system("check the checkpoint", std::io::Error::other(error))
}

type Joined<T> = std::result::Result<T, tokio::task::JoinError>;

impl Restoring {
    /// Whether CRIU may go on, and what has to be there when it does.
    fn judge(
        &mut self,
        directory: &Path,
        settled: Joined<(std::result::Result<Settled, String>, Remarks)>,
        checked: Joined<Result<(Checks, Found)>>,
        taken: Vec<Taken>,
        criu: Version,
        tcp: Tcp,
    ) -> Result<()> {
        let Some(undo) = self.undo.as_mut() else { return Err(Error::Closed { attempt: "restore" }) };
        let (settled, said) = settled.map_err(broken)?;
        self.remarks.append(said);
        let settled = settled.map(|settled| {
            self.place.clone_from(&settled.place);
            undo.settled = Some(settled);
        });
        let (checks, mut found) = checked.map_err(broken)??;
        found.problems.extend(taken.into_iter().map(Problem::Pid));
        check_criu(checks.checkpoint.record(), criu, &mut found);
        let Found { mut problems, remarks, mends } = found;
        self.remarks.append(remarks);
        problems.extend(settled.err().map(Problem::Cgroup));
        if !problems.is_empty() {
            return Err(Error::Unrestorable { dir: directory.to_path_buf(), problems });
        }
        let Checks { checkpoint, subject, .. } = checks;
        let root = undo.enclosure.as_ref().map_or_else(|| "/".into(), Enclosure::root);
        let of_images = Manifest::default();
        let manifest = checkpoint.record().map_or(&of_images, |record| &record.files);
        copy::mend(manifest, &root, &mends, &mut self.remarks)?;
        undo.put_back = put_back(&checkpoint, &subject, &root, &mut self.remarks)?;
        if self.is_copy {
            // What is on the host is the original's.
            return Ok(());
        }
        // What the kernel keeps of the dumped tree's connections would be in the way of them, and of a socket that listens.
        for connection in &subject.local {
            if let Err(error) = abort_orphan(connection) {
                let from = connection.remote;
                self.remarks.warn(format!("an orphan of the connection from {from} may be in the way: {error}"));
                break;
            }
        }
        self.lock = (tcp == Tcp::Established).then(|| network::Lock::of(&subject)).flatten();
        Ok(())
    }

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
        let mut event = match operation.next().await {
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

/// How to leave nothing.
#[derive(Debug)]
struct Undo {
    remains: Remains,
    work: WorkDirectory,
    log: String,
    settled: Option<Settled>,
    put_back: Option<PutBack>,
    attendant: Option<Shared>,
    enclosure: Option<Enclosure>,
}

impl Undo {
    /// After CRIU's end. Blocks.
    fn run(self, runs: bool, failed: bool) -> Cancelled {
        let Self { mut remains, work, log, settled, put_back, attendant, enclosure } = self;
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
        let log = match failed {
            true => work.keep(&log),
            false => {
                work.remove();
                None
            }
        };
        Cancelled { killed, left, runs, log }
    }

    /// After success.
    fn keep(self, remarks: &mut Remarks) -> (Option<OwnCgroup>, Option<RestoreStatistics>, Option<Enclosure>) {
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
