//! `crr restore --container` without `-d`: crr stays, as the parent of the container's first process.

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::Running;
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::LIMIT;
use super::bundle::counter;
use super::dumped::{Dumped, journals};
use super::round_trip::By;
use super::runtime::Runtime::Runc11;
use super::snapshot::Snapshot;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("in_the_foreground_crr_passes_signals_on_and_exits_as_the_container_does", NEEDS, signals),
        test("in_the_foreground_crr_exits_as_a_container_that_is_killed", NEEDS, killed),
        test("in_the_foreground_a_container_outlives_a_crr_that_is_killed", NEEDS, outlives),
        test("in_the_foreground_a_container_that_its_runtime_deletes_is_no_failure", NEEDS, deleted),
    ]
}

/// A counter that ends with 7 at a SIGTERM, and with 8 at a SIGHUP.
fn dumped() -> Result<Dumped, Failed> {
    Dumped::of(By::Runtime, |_, bundle| {
        bundle.shell(&format!("trap 'exit 7' TERM; trap 'exit 8' HUP; {}", counter("0.1")));
        Ok(())
    })
}

/// crr beside a container that runs.
fn begin(dumped: &Dumped) -> Result<Running, Failed> {
    let mut command = dumped.command("one", &["--stdio", "null"])?;
    let words: Vec<_> = command.get_args().filter(|word| *word != "-d").map(ToOwned::to_owned).collect();
    command = crate::crr::command();
    let crr = Running::start(command.args(words))?;
    dumped.bed.container("one").await_status("running")?;
    // Until then a signal gives the restore up.
    until("the restore's end", SOON, || journals(&dumped.bed.id("one")).is_empty().then_some(()))?;
    Ok(crr)
}

fn signals() -> Outcome {
    for (signal, code) in [(Signal::SIGTERM, 7), (Signal::SIGHUP, 8)] {
        let dumped = dumped()?;
        let outside = Snapshot::take(dumped.bed.tag());
        let crr = begin(&dumped)?;
        kill(Pid::from_raw(crr.pid()), signal)?;
        crr.end(LIMIT)?.must_exit(code, &format!("crr restore in the foreground, {signal}"))?;
        // As after `runc restore`.
        ensure!(!dumped.bed.container("one").exists(), "the runtime still knows it");
        dumped.is_clean("one")?;
        outside.must_be_unchanged()?;
    }
    Ok(())
}

fn killed() -> Outcome {
    let dumped = dumped()?;
    let crr = begin(&dumped)?;
    dumped.bed.container("one").kill("KILL")?;
    crr.end(LIMIT)?.must_exit(137, "crr restore of a container that is killed")?;
    dumped.is_clean("one")
}

fn outlives() -> Outcome {
    let dumped = dumped()?;
    let crr = begin(&dumped)?;
    kill(Pid::from_raw(crr.pid()), Signal::SIGKILL)?;
    crr.end(LIMIT)?.must_exit(137, "crr itself")?;
    let container = dumped.bed.container("one");
    container.await_status("running")?;
    ensure!(container.sh("echo $((40 + 2))")?.trim() == "42", "it cannot be entered");
    // The next run has nothing to undo.
    Running::start(&mut dumped.command("one", &[])?)?
        .end(LIMIT)?
        .must_exit(83, "crr restore of a name that is taken")?;
    container.await_status("running")?;
    container.kill("TERM")?;
    container.await_status("stopped")?;
    container.delete()
}

fn deleted() -> Outcome {
    let dumped = dumped()?;
    let crr = begin(&dumped)?;
    dumped.bed.container("one").delete()?;
    let ran = crr.end(LIMIT)?.must_exit(137, "crr restore of a container that is deleted")?;
    ensure!(!ran.stderr.contains("cannot"), "{}", ran.stderr);
    dumped.is_clean("one")
}
