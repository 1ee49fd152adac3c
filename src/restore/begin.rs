//! The beginning: checks beside the start of CRIU, and the request.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::attendant::Surroundings;
use super::checks::{Checks, Facts, Found, check_images};
use super::container::ContainerProblem;
use super::copy;
use super::home::{Home, Settled};
use super::options::complete;
use super::problem::{Problem, Remarks};
use super::remains::Remains;
use super::request::{Request, Verify};
use super::restoring::Restoring;
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
use crate::request::{CgroupMode, ImageDirectory, RestoreOptions};
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
    let Request { directory, criu, mut options, trust, verify, files, home, work, deadline, copy, surroundings } =
        request;
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
    let (surroundings, worker) = match surroundings {
        Some(mut surroundings) => {
            let worker = surroundings.worker.take();
            (Some(surroundings), worker)
        }
        None => (None, None),
    };
    let worker = match worker {
        Some(worker) => Some(worker),
        // Where a copy lives depends on the images.
        None if copy.is_some() => None,
        None => start_early(&search, &checkpoint, &images, &options, surroundings.as_ref()).await?,
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
    let (namespace, shown, cgroups, attendant, inside) = match surroundings {
        Some(Surroundings { mount_namespace, work, images, cgroups, attendant, worker: _ }) => {
            (Some(mount_namespace), images, Some(cgroups), Some(attendant), Some(work))
        }
        None => (None, None, None, None, inside),
    };
    let mut session = match worker.filter(|worker| worker.fits(&chosen, &options)) {
        Some(worker) => worker.session,
        None => Worker::start(&chosen, &options, namespace, enclosure.as_ref())?.session,
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
    let home = match cgroups {
        Some(directories) => Home::Directories(directories),
        None if options.cgroups.mode.is_some_and(|mode| mode != CgroupMode::Ignore) => Home::Restorer,
        None => home,
    };
    let recorded = subject.home(checkpoint.record());
    let criu_pid = session.criu_pid();
    let settling = tokio::task::spawn_blocking(move || {
        let mut remarks = Remarks::default();
        let settled = Settled::settle(&home, recorded, criu_pid, &mut remarks);
        if let (Some(init), Ok(_)) = (init, &settled) {
            copy::follow(criu_pid, init, &mut remarks);
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
        awake: None,
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

/// Starts CRIU while the images are read, where the record tells how it is to be started.
async fn start_early(
    search: &Search,
    checkpoint: &Checkpoint,
    images: &Images,
    options: &RestoreOptions,
    surroundings: Option<&Surroundings>,
) -> Result<Option<Worker>> {
    let Some(record) = checkpoint.record() else { return Ok(None) };
    let chosen = search.choose(InetSockets::Unknown).await?;
    let found = match (&options.config_file, surroundings) {
        // It may say otherwise.
        (Some(_), _) => Programs::All,
        // What CRIU finds out there is kept for others.
        (None, Some(_)) => Programs::All,
        (None, None) => programs(record.options.tcp, record.options.network_lock, images.has_network_namespace()),
    };
    let namespace = surroundings.map(|surroundings| surroundings.mount_namespace.clone());
    Worker::start_early(&chosen, record, options, found, namespace).map(Some)
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
