//! Dumps of a process of 1 GiB that are ended while CRIU writes its memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::paused::{KILLED, children};
use super::{await_end, directory_is_as_before, goes_on, next_round_trip_passes, parasites, partial, runs_on};
use crate::crr::{Ran, Running};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::{Victim, state};
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

/// CRIU is in the middle of writing when it has written so much.
const SOME: u64 = 64 << 20;

/// All of it.
const ALL: u64 = 1 << 30;

/// One process of 1 GiB at a time.
static ONE: Mutex<()> = Mutex::new(());

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("a_dump_interrupted_in_mid_write_leaves_the_tree_and_dir_as_they_were", NEEDS, interrupted),
        test("a_deadline_in_mid_write_leaves_the_tree_and_dir_as_they_were", NEEDS, deadline),
        test("a_second_ctrl_c_in_mid_write_kills_criu_and_names_who_holds_its_parasite", NEEDS, second_ctrl_c),
        test("a_criu_killed_in_mid_write_leaves_a_parasite_that_is_named_and_does_no_harm", NEEDS, criu_killed),
    ]
}

/// A process of 1 GiB, a directory in memory for its images, and the right to have both.
pub(super) struct Large {
    pub(super) victim: Victim,
    pub(super) tree: Vec<i32>,
    place: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Large {
    pub(super) fn start() -> Result<Self, Failed> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let victim = Victim::start(&programs::program("memory")?, &["1024"])?;
        let place = tempfile::Builder::new().prefix("crr-host.").tempdir_in("/dev/shm")?;
        Ok(Self { tree: victim.tree(), victim, place, _one: one })
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.place.path().join("images")
    }

    /// Starts a dump, and stops CRIU in mid-write.
    fn write(&self, more: &[&str]) -> Result<Writing, Failed> {
        let directory = self.directory();
        let mut command = crr::command();
        command.args(["dump", "--pid", &self.victim.pid().to_string(), "--dir"]).arg(&directory).args(more);
        let running = Running::start(&mut command)?;
        let of_crr = || children(running.pid()).first().copied();
        let criu = stop_in_mid_write(&directory, of_crr)?;
        ensure!(parasites(&self.tree) == self.tree, "CRIU writes without its parasite");
        Ok(Writing { running, criu })
    }
}

/// Waits until CRIU is in the middle of writing, and stops it there; its PID.
pub(super) fn stop_in_mid_write(directory: &Path, criu: impl Fn() -> Option<i32>) -> Result<i32, Failed> {
    let pages = partial(directory).join("pages-1.img");
    let written = || fs::metadata(&pages).map_or(0, |metadata| metadata.len());
    until("CRIU to write", SOON, || (written() >= SOME).then_some(()))?;
    let criu = criu().ok_or("there is no CRIU")?;
    kill(Pid::from_raw(criu), Signal::SIGSTOP)?;
    until("CRIU to stop", SOON, || (state(criu) == Some('T')).then_some(()))?;
    ensure!(written() < ALL, "CRIU had written everything before it could be stopped");
    Ok(criu)
}

/// A dump whose CRIU is stopped in mid-write.
struct Writing {
    running: Running,
    criu: i32,
}

impl Writing {
    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill(Pid::from_raw(self.running.pid()), signal)?)
    }

    /// crr's sockets.
    fn sockets(&self) -> BTreeSet<PathBuf> {
        let directory = fs::read_dir(format!("/proc/{}/fd", self.running.pid())).into_iter().flatten().flatten();
        let links = directory.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).collect()
    }

    /// Waits until crr has closed its socket to CRIU.
    fn await_given_up(&self, before: &BTreeSet<PathBuf>) -> Outcome {
        until("crr to close its socket", SOON, || (!self.sockets().is_superset(before)).then_some(()))
    }

    /// Lets CRIU go on, and waits for the end of both.
    fn go_on(self) -> Result<Ran, Failed> {
        kill(Pid::from_raw(self.criu), Signal::SIGCONT)?;
        let ran = self.running.end(SOON * 3)?;
        await_end(self.criu)?;
        Ok(ran)
    }
}

fn interrupted() -> Outcome {
    let mut large = Large::start()?;
    let directory = large.directory();
    for (signal, code) in [(Signal::SIGINT, 82), (Signal::SIGTERM, 82), (Signal::SIGKILL, KILLED)] {
        let writing = large.write(&[])?;
        let before = writing.sockets();
        if signal == Signal::SIGKILL {
            // A stopped process whose parent dies may get a SIGHUP from the kernel, as its process group is orphaned.
            kill(Pid::from_raw(writing.criu), Signal::SIGCONT)?;
        }
        writing.signal(signal)?;
        if signal != Signal::SIGKILL {
            writing.await_given_up(&before)?;
        }
        writing.go_on()?.must_exit(code, &format!("a dump ended by {signal} in mid-write"))?;
        runs_on(&large.victim, &large.tree)
            .map_err(|failed| format!("after {signal}: {}", failed.message().unwrap_or_default()))?;
        if signal == Signal::SIGKILL {
            ensure!(partial(&directory).is_dir(), "no DIR.partial");
        } else {
            directory_is_as_before(&directory, false)?;
        }
    }
    next_round_trip_passes(&mut large.victim, &directory, &[])?;
    large.victim.end()
}

fn deadline() -> Outcome {
    let large = Large::start()?;
    let writing = large.write(&["--deadline", "1"])?;
    let before = writing.sockets();
    // CRIU stands still for so long, and then goes on.
    writing.await_given_up(&before)?;
    writing.go_on()?.must_exit(75, "a dump whose deadline passed")?;
    runs_on(&large.victim, &large.tree)?;
    directory_is_as_before(&large.directory(), false)?;
    large.victim.end()
}

fn second_ctrl_c() -> Outcome {
    let mut large = Large::start()?;
    let writing = large.write(&[])?;
    let before = writing.sockets();
    writing.signal(Signal::SIGINT)?;
    writing.await_given_up(&before)?;
    ensure!(state(writing.criu) == Some('T'), "the first Ctrl-C ended CRIU");
    writing.signal(Signal::SIGINT)?;
    let Writing { running, criu } = writing;
    // CRIU is still stopped: only a SIGKILL ends it.
    let ran = running.end(Duration::from_secs(10))?;
    await_end(criu)?;
    holds_parasite(&mut large, ran)
}

fn criu_killed() -> Outcome {
    let mut large = Large::start()?;
    let writing = large.write(&[])?;
    kill(Pid::from_raw(writing.criu), Signal::SIGKILL)?;
    let ran = writing.running.end(SOON)?;
    holds_parasite(&mut large, ran)
}

/// The tree runs on with a parasite, crr has said so and says so when asked, and the next dump and restore pass.
fn holds_parasite(large: &mut Large, ran: Ran) -> Outcome {
    let Large { tree, .. } = &*large;
    let directory = large.directory();
    let ran = ran.must_exit(90, "a dump whose CRIU was killed in mid-write")?;
    ensure!(parasites(tree) == *tree, "no parasite is left, but crr says so");
    for pid in tree {
        let pid = pid.to_string();
        ensure!(
            ran.stderr.contains(&pid) && ran.stderr.contains("CRIUMFD"),
            "crr does not name {pid}:\n{}",
            ran.stderr
        );
        let looked = crr::crr(["check", "--pid", &pid])?;
        let said = format!("{}{}", looked.stdout, looked.stderr);
        ensure!(said.contains("CRIUMFD"), "`crr check --pid` does not name the parasite:\n{said}");
    }
    goes_on(&large.victim, tree)?;
    directory_is_as_before(&directory, false)?;
    let pids = tree.clone();
    crr::dump(large.victim.pid(), &directory, &[])?.must_pass("the next dump")?;
    large.victim.await_gone(&pids)?;
    crr::restore(&directory, &[])?.must_pass("the next restore")?;
    goes_on(&large.victim, &pids)?;
    large.victim.end()
}
