//! The beginning: checks beside the start of CRIU, and the request.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::attendant::Surroundings;
use super::checks::{Checks, Facts, Found, check_images};
use super::container::ContainerProblem;
use super::copy;
use super::departure::Departure;
use super::home::Home;
use super::options::complete;

use super::problem::{Problem, Remarks};
use super::remains::Remains;
use super::request::{Original, Request, Verify};
use super::restoring::Restoring;
use super::settling::Settling;
use super::subject::Subject;
use super::undo::Undo;
use super::work::WorkDirectory;
use super::worker::Worker;
use crate::checkpoint::Checkpoint;
use crate::copy::{Enclosure, Writes};
use crate::criu::{InetSockets, Search, programs};
use crate::error::{Error, Result};
use crate::host::cgroup::expect_moves;
use crate::host::{Awake, await_free};
use crate::images::Images;
use crate::operation::{Interrupt, pause};
use crate::request::{Afterwards, CgroupMode, ImageDirectory, RestoreOptions};
use crate::swrk::{Programs, Watch};

/// What runc and crun write beside the images of a container.
const DESCRIPTORS: &str = "descriptors.json";

/// How long a killed process may keep its PID: PID 1 may take a second to take note of its end.
const DYING: Duration = Duration::from_secs(5);

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
    let mut awake = Awake::keep();
    pause("awake");
    let mut restoring = awake.during(checked(request)).await?;
    restoring.awake = Some(awake);
    Ok(restoring)
}

async fn checked(request: Request) -> Result<Restoring> {
    let Request {
        directory,
        criu,
        mut options,
        trust,
        verify,
        files,
        home,
        work,
        deadline,
        copy,
        original,
        worker,
        surroundings,
    } = request;
    let deadline = deadline.map(|deadline| Instant::now() + deadline);
    if surroundings.is_none() && home != Home::Restorer {
        expect_moves();
    }
    let checkpoint = Checkpoint::open(&directory, trust)?;
    let directory = checkpoint.path().to_path_buf();
    let unrestorable = |problems| Error::Unrestorable { dir: directory.clone(), problems };
    let problems = copy.map(|_| copy::contradictions(&options)).unwrap_or_default();
    if !problems.is_empty() {
        return Err(unrestorable(problems));
    }
    let copied = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map_err(Error::io("open", &directory));
    let images = Images::from_directory(copied(&checkpoint)?, &directory);
    let mut remarks = Remarks::default();
    let search = Search::new(criu, std::env::var_os("PATH").as_deref());
    let needed = needed(&checkpoint, &images, &options, surroundings.is_some() || copy.is_some());
    // CRIU starts while the images are read, where the record tells how it is to be started.
    let worker = match (worker, checkpoint.record()) {
        (Some(worker), _) => Some(worker),
        // Where a copy lives depends on the images.
        (None, Some(record)) if copy.is_none() => {
            let chosen = search.choose(InetSockets::Unknown).await?;
            let namespace = surroundings.as_ref().map(|surroundings| surroundings.mount_namespace.clone());
            Some(Worker::start_early(&chosen, record, &options, needed, namespace)?)
        }
        _ => None,
    };
    let subject = match Subject::read(&images) {
        Ok(subject) => subject,
        Err(error) => return Err(unreadable(&images, &checkpoint, verify, error)),
    };
    let recorded_options = checkpoint.record().map(|record| &record.options);
    complete(&mut options, recorded_options, &subject, surroundings.is_some(), &mut remarks);
    if surroundings.is_none() && options.root.is_none() {
        if let Some(problem) = of_container(&checkpoint, &subject) {
            return Err(unrestorable(vec![problem]));
        }
    }
    if let Some(writes) = copy {
        let problems = copy::adapt(&mut options, &subject, &mut remarks);
        if !problems.is_empty() {
            return Err(unrestorable(problems));
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
        None => (None, None),
    };
    let (namespace, shown, attendant, departing, inside) = match surroundings {
        Some(Surroundings { mount_namespace, work, images, attendant, departing }) => {
            (Some(mount_namespace), images, Some(attendant), departing, Some(work))
        }
        None => (None, None, None, None, inside),
    };
    let mut session = match worker.filter(|worker| worker.fits(&chosen, &options, needed)) {
        Some(worker) => worker.session,
        None => Worker::start(&chosen, &options, needed, namespace, enclosure.as_ref())?.session,
    };
    session.watch(Watch { deadline, ..Watch::default() });

    // Of a copy's every number is free.
    let numbers = if enclosure.is_some() { BTreeSet::new() } else { subject.numbers() };
    let facts = Facts::of(&options, copy == Some(Writes::ThrownAway));
    let (work, opened) = work_directory(inside, work.as_deref())?;
    let image_directory = ImageDirectory { images: shown.unwrap_or(image_directory), work: Some(opened) };
    let undo = Undo {
        remains: Remains::watch(session.criu_pid(), numbers.clone())?,
        work,
        log: options.log.file.clone(),
        settled: None,
        put_back: None,
        attendant: attendant.clone(),
        enclosure,
    };
    let init = undo.enclosure.as_ref().map(Enclosure::init_pid);
    let tcp = options.tcp;
    let home = match options.cgroups.mode {
        Some(mode) if mode != CgroupMode::Ignore => Home::Restorer,
        _ => home,
    };
    let recorded = subject.home(checkpoint.record());
    let is_ending = recorded_options.is_none_or(|options| options.afterwards == Afterwards::Kill);
    let departure = match departing {
        Some(directory) => Departure::Directory(directory),
        None if original == Original::AwaitEnd && is_ending => Departure::Tasks(numbers.clone()),
        None => Departure::Nobody,
    };
    let criu_pid = session.criu_pid();
    let mut restoring = Restoring {
        operation: None,
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
        awake: None,
    };
    // A container's cgroups must be there: CRIU makes those that are missing before it asks anything.
    let cgroups = match restoring.make_place(&directory, &departure, deadline).await {
        Ok(cgroups) => cgroups,
        Err(error) => {
            drop(session);
            restoring.cancel(Interrupt::never()).await;
            return Err(error);
        }
    };
    // What takes the name of what has gone is the tree's own from here on.
    let departure = if cgroups.is_some() { Departure::Nobody } else { departure };
    let settling = Settling { home, recorded, cgroups, init };
    // CRIU looks at the kernel for as long as most checks take, and then asks: it makes nothing else before it has its answer.
    match session.restore(image_directory, options).await {
        Ok(operation) => restoring.operation = Some(operation),
        Err(error) => {
            restoring.cancel(Interrupt::never()).await;
            return Err(error);
        }
    }
    let checks = Checks { images, checkpoint, subject, verify, files, options: facts };
    let checking = tokio::task::spawn_blocking(move || checks.run());
    // Until the dumped tree is gone its numbers, its names and its cgroups are its own.
    let following = async {
        departure.complete(deadline).await;
        let dying = deadline.map_or(Instant::now() + DYING, |deadline| deadline.min(Instant::now() + DYING));
        tokio::join!(settling.settle(criu_pid), await_free(&numbers, dying))
    };
    let ((settled, taken), checked) = tokio::join!(following, checking);
    let judged = restoring.judge(&directory, settled, checked, taken, chosen.version, tcp);
    if let Err(error) = judged {
        restoring.cancel(Interrupt::never()).await;
        return Err(error);
    }
    Ok(restoring)
}

/// What CRIU is to find by name.
fn needed(checkpoint: &Checkpoint, images: &Images, options: &RestoreOptions, has_own_mounts: bool) -> Programs {
    match (&options.config_file, checkpoint.record()) {
        // What CRIU finds out about the kernel in there may be kept for others.
        _ if has_own_mounts => Programs::All,
        // It may say otherwise.
        (Some(_), _) => Programs::All,
        (None, Some(record)) => {
            programs(record.options.tcp, record.options.network_lock, images.has_network_namespace())
        }
        (None, None) => Programs::All,
    }
}

/// CRIU's working directory, and the same opened: the one `inside` its mount namespace, or one of this host's.
fn work_directory(inside: Option<OwnedFd>, given: Option<&Path>) -> Result<(WorkDirectory, OwnedFd)> {
    match inside {
        Some(inside) => {
            let copy = inside.try_clone().map_err(|source| Error::system("copy a descriptor", source))?;
            Ok((WorkDirectory::inside(copy, given), inside))
        }
        None => {
            let work = WorkDirectory::new(given)?;
            let opened = work.open()?;
            Ok((work, opened))
        }
    }
}

/// That the images are of a container, which needs more around it than a tree of processes. A caller that names a root file
/// system of its own is believed.
fn of_container(checkpoint: &Checkpoint, subject: &Subject) -> Option<Problem> {
    let recorded = checkpoint.record().and_then(|record| record.container.as_ref());
    let is_container = recorded.is_some() || subject.own_mounts && checkpoint.path().join(DESCRIPTORS).exists();
    let id = recorded.map(|container| container.id.clone());
    is_container.then_some(Problem::Container(ContainerProblem::IsAContainer { id }))
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
