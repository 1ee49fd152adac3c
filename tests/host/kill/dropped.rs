//! Futures and operations of the library that are dropped in the middle.
//!
//! A restore makes its process a child subreaper, which would adopt what other tests leave behind: those run in a process of
//! their own, which is this program again.

use std::cell::Cell;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use ::crr::dump::{Failed as DumpFailed, Progress, Report, Request, Stage};
use ::crr::error::Error;
use ::crr::operation::{Interrupt, Session};
use ::crr::request::{DumpOptions, ImageDirectory};
use ::crr::restore;
use ::crr::swrk::{Hang, Launch};
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::memory::{Large, stop_in_mid_write};
use super::paused::children;
use super::{await_end, directory_is_as_before, goes_on, next_round_trip_passes, parasites, partial, runs_on};
use crate::crr::Running;
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, need, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

/// The event at which the helper drops a restore.
const DROP_AT: &str = "CRR_HOST_DROP_RESTORE_AT";

/// The checkpoint that the helper restores.
const DIR: &str = "CRR_HOST_DROP_RESTORE_DIR";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("an_operation_dropped_at_each_event_of_a_dump_lets_the_tree_run_on", NEEDS, at_each_event),
        test("a_dump_dropped_at_each_stage_leaves_the_tree_and_dir_as_they_were", NEEDS, at_each_stage),
        test("a_dump_dropped_in_mid_write_leaves_the_tree_and_dir_as_they_were", NEEDS, in_mid_write),
        test("a_criu_that_hangs_in_mid_write_is_killed_and_its_parasite_named", NEEDS, hang),
        test("a_restore_dropped_at_each_event_leaves_nothing", NEEDS, restores),
    ]
}

fn tree() -> Result<Victim, Failed> {
    let victim = Victim::start(&programs::program("tree")?, &["5"])?;
    victim.await_ticks(2)?;
    Ok(victim)
}

fn runtime() -> Result<Runtime, Failed> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

fn at_each_event() -> Outcome {
    let (victim, runtime) = (tree()?, runtime()?);
    let tree = victim.tree();
    let criu = need::criu().ok_or("no criu")?;
    for dropped_at in ["pre-dump", "query-ext-files", "post-dump"] {
        let images = victim.directory().join(dropped_at);
        fs::create_dir(&images)?;
        let pid = runtime.block_on(async {
            let session = Session::start(&Launch::new(&criu))?;
            let directory = ImageDirectory::new(OwnedFd::from(fs::File::open(&images)?));
            let mut dump = session.dump(directory, DumpOptions::new(victim.pid())).await?;
            let pid = dump.criu_pid();
            while let Some(event) = dump.next().await? {
                if event.kind().name() == dropped_at {
                    return Ok::<_, Failed>(pid);
                }
                event.proceed().await?;
            }
            Err(format!("no event {dropped_at}").into())
        })?;
        await_end(pid)?;
        runs_on(&victim, &tree).map_err(|failed| at(dropped_at, &failed))?;
    }
    victim.end()
}

/// Runs a dump until `progress` says that it is to be dropped; `None` where that was done.
fn dump_until(
    runtime: &Runtime,
    request: Request,
    mut is_over: impl FnMut(Progress) -> bool,
) -> Option<Result<Report, Box<DumpFailed>>> {
    let over = Notify::new();
    let said = Cell::new(false);
    runtime.block_on(async {
        let progress = |progress: Progress| {
            if !said.get() && is_over(progress) {
                said.set(true);
                over.notify_one();
            }
        };
        tokio::select! {
            biased;
            () = over.notified() => None,
            ended = ::crr::dump::dump(request, Interrupt::never(), progress) => Some(ended),
        }
    })
}

fn at_each_stage() -> Outcome {
    let mut victim = tree()?;
    let (tree, directory) = (victim.tree(), victim.images());
    for stage in [Stage::Preflight, Stage::Write, Stage::Publish] {
        let runtime = runtime()?;
        let (script, note) = noting_criu(victim.directory())?;
        let mut request = Request::new(victim.pid(), &directory);
        request.criu = Some(script);
        let ended = dump_until(&runtime, request, |progress| progress.stage == stage);
        ensure!(ended.is_none(), "the dump ended before {stage:?}: {ended:?}");
        // Waits for the step that was under way in a thread of its own.
        drop(runtime);
        for criu in noted(&note) {
            await_end(criu)?;
        }
        runs_on(&victim, &tree).map_err(|failed| at(stage, &failed))?;
        directory_is_as_before(&directory, false).map_err(|failed| at(stage, &failed))?;
    }
    next_round_trip_passes(&mut victim, &directory, &[])?;
    victim.end()
}

/// A program that is CRIU and notes its PIDs.
fn noting_criu(place: &Path) -> Result<(PathBuf, PathBuf), Failed> {
    let criu = need::criu().ok_or("no criu")?;
    let (script, note) = (place.join("criu"), place.join("criu-pids"));
    fs::write(&script, format!("#!/bin/sh\necho $$ >> {}\nexec {} \"$@\"\n", note.display(), criu.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok((script, note))
}

fn noted(note: &Path) -> Vec<i32> {
    let text = fs::read_to_string(note).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn in_mid_write() -> Outcome {
    let mut large = Large::start()?;
    let (runtime, directory) = (runtime()?, large.directory());
    let (script, note) = noting_criu(large.victim.directory())?;
    let mut request = Request::new(large.victim.pid(), &directory);
    request.criu = Some(script);
    let ended = dump_until(&runtime, request, |progress| progress.written_bytes > 0);
    ensure!(ended.is_none(), "the dump ended before anything was written: {ended:?}");
    for criu in noted(&note) {
        await_end(criu)?;
    }
    runs_on(&large.victim, &large.tree)?;
    until("DIR.partial to be removed", SOON, || (!partial(&directory).exists()).then_some(()))?;
    directory_is_as_before(&directory, false)?;
    next_round_trip_passes(&mut large.victim, &directory, &[])?;
    large.victim.end()
}

fn hang() -> Outcome {
    const SILENCE: Duration = Duration::from_secs(2);
    let large = Large::start()?;
    let directory = large.directory();
    let (script, note) = noting_criu(large.victim.directory())?;
    let mut request = Request::new(large.victim.pid(), &directory);
    request.criu = Some(script);
    request.watch.silence = Some(SILENCE);
    let dumping = thread::spawn(move || {
        let runtime = runtime().map_err(|failed| failed.message().unwrap_or_default().to_owned())?;
        Ok::<_, String>(runtime.block_on(::crr::dump::dump(request, Interrupt::never(), |_| {})))
    });
    let criu = stop_in_mid_write(&directory, || noted(&note).last().copied())?;
    let ended = dumping.join().map_err(|_| "the dump panicked")??;
    let Err(failed) = ended else { return Err("a dump whose CRIU hung passed".into()) };
    await_end(criu)?;
    let is_hang = matches!(failed.error, Error::Hang { hang: Hang::Silence(SILENCE), .. });
    ensure!(is_hang, "the error is {:?}", failed.error);
    let named = failed.aftermath.as_ref().map(|aftermath| aftermath.parasites.clone()).unwrap_or_default();
    ensure!(named == large.tree && parasites(&large.tree) == large.tree, "parasites named: {named:?}");
    ensure!(!failed.is_tree_unharmed(), "a tree with a parasite is held to be unharmed");
    goes_on(&large.victim, &large.tree)?;
    directory_is_as_before(&directory, false)?;
    large.victim.end()
}

fn restores() -> Outcome {
    let mut victim = tree()?;
    let (tree, directory) = (victim.tree(), victim.images());
    crr::dump(victim.pid(), &directory, &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    for event in ["pre-restore", "post-restore", "pre-resume"] {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(DROP_AT, event).env(DIR, &directory);
        Running::start(&mut command)?.end(SOON * 2)?.must_pass(&format!("a restore dropped at {event}"))?;
        victim.await_gone(&tree).map_err(|_| format!("dropped at {event}: {:?} is left", victim.processes()))?;
    }
    crr::restore(&directory, &[])?.must_pass("the next restore")?;
    runs_on(&victim, &tree)?;
    victim.end()
}

/// Drops a restore, if this is what the program was started for.
pub(super) fn as_helper() -> Option<ExitCode> {
    let (event, directory) = (std::env::var(DROP_AT).ok()?, PathBuf::from(std::env::var_os(DIR)?));
    match drop_restore(&event, directory) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or_default());
            Some(ExitCode::FAILURE)
        }
    }
}

fn drop_restore(dropped_at: &str, directory: PathBuf) -> Outcome {
    runtime()?.block_on(async {
        let mut restoring = restore::begin(restore::Request::new(directory)).await?;
        while let Some(event) = restoring.next().await? {
            if event.kind().name() == dropped_at {
                return Ok::<_, Failed>(());
            }
            event.proceed().await?;
        }
        Err(format!("no event {dropped_at}").into())
    })?;
    // CRIU and what it made are children, or become so. Nothing but the threads of the library reaps them.
    let own = i32::try_from(std::process::id())?;
    until("all children to be reaped", SOON, || children(own).is_empty().then_some(()))
}

fn at(place: impl std::fmt::Debug, failed: &Failed) -> Failed {
    format!("dropped at {place:?}: {}", failed.message().unwrap_or_default()).into()
}
