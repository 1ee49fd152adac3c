//! `crr restore --wait`: begun before the checkpoint is there.

use std::process::Command;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::Running;
use crate::kill::paused::{KILLED, Kill, Paused, children};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_restore_that_waits_goes_on_where_the_dump_ended", NEEDS, goes_on),
        test("a_checkpoint_that_is_there_is_not_waited_for", NEEDS, is_there),
        test("a_restore_waits_no_longer_than_it_is_told_to", NEEDS, too_late),
        test("a_restore_that_waits_for_a_dump_that_fails_says_so", NEEDS, dump_fails),
        test("a_restore_that_is_ended_while_it_waits_leaves_nothing", NEEDS, ended),
        test("a_restore_whose_criu_is_killed_while_it_waits_starts_another", NEEDS, criu_killed),
        test("a_tree_that_lives_on_beside_its_checkpoint_is_not_restored", NEEDS, lives_on),
    ]
}

fn victim() -> Result<Victim, Failed> {
    let victim = Victim::start(&programs::program("tree")?, &["3"])?;
    victim.await_ticks(3)?;
    Ok(victim)
}

fn waiter(victim: &Victim, more: &[&str]) -> Command {
    let mut command = crr::command();
    command.args(["restore", "-d", "--dir"]).arg(victim.images()).args(more);
    command
}

/// The CRIU of a restore that waits.
pub(crate) fn criu_of(waiter: &Running) -> Result<i32, Failed> {
    until("CRIU to be started", SOON, || children(waiter.pid()).first().copied())
}

fn goes_on() -> Outcome {
    let mut victim = victim()?;
    let tree = victim.tree();
    let waiter = Running::start(&mut waiter(&victim, &["--wait=60"]))?;
    criu_of(&waiter)?;
    crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree).or_else(|failed| if victim.is_there() { Ok(()) } else { Err(failed) })?;
    let ran = waiter.end(SOON)?.must_pass("crr restore --wait")?;
    ensure!(ran.stdout.trim() == victim.pid().to_string(), "it printed {:?}", ran.stdout);
    victim.await_ticks(3)?;
    victim.ticks_without_gap()?;
    victim.self_check()?;
    victim.end()
}

fn is_there() -> Outcome {
    let mut victim = victim()?;
    let tree = victim.tree();
    crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    crr::restore(&victim.images(), &["--wait"])?.must_pass("crr restore --wait")?;
    victim.await_ticks(3)?;
    victim.end()
}

fn too_late() -> Outcome {
    let victim = victim()?;
    let running = Running::start(&mut waiter(&victim, &["--wait=0.2"]))?;
    let ran = running.end(SOON)?.must_exit(75, "crr restore --wait=0.2")?;
    ensure!(ran.stderr.contains("none has come"), "{}", ran.stderr);
    let nowhere = victim.images().join("nowhere/images");
    crr::restore(&nowhere, &["--wait=20"])?.must_exit(66, "crr restore of what cannot come")?;
    for bad in ["--wait=", "--wait=0", "--wait=soon"] {
        crr::restore(&victim.images(), &[bad])?.must_exit(64, bad)?;
    }
    victim.end()
}

fn dump_fails() -> Outcome {
    let victim = victim()?;
    let waiter = Running::start(&mut waiter(&victim, &["--wait=60"]))?;
    let criu = criu_of(&waiter)?;
    let mut dump = crr::command();
    dump.args(["dump", "--pid", &victim.pid().to_string(), "--dir"]).arg(victim.images());
    Paused::start(&mut dump, "post-dump")?.strike(Kill::CtrlC)?.must_exit(82, "an interrupted dump")?;
    let ran = waiter.end(SOON)?.must_exit(80, "crr restore --wait")?;
    ensure!(ran.stderr.contains("failed") && ran.stderr.contains(".failed.log"), "{}", ran.stderr);
    crate::kill::await_end(criu)?;
    victim.await_ticks(3)?;
    victim.end()
}

fn ended() -> Outcome {
    let mut victim = victim()?;
    for how in [Kill::CtrlC, Kill::Terminate, Kill::Crr] {
        let paused = Paused::start(&mut waiter(&victim, &["--wait"]), "waiting")?;
        ensure!(paused.criu.is_some(), "there is no CRIU yet");
        paused.strike(how)?.must_exit(if how == Kill::Crr { KILLED } else { 82 }, "a restore that waits")?;
    }
    let tree = victim.tree();
    crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    ensure!(!victim.is_there(), "somebody has restored it");
    crr::restore(&victim.images(), &[])?.must_pass("crr restore")?;
    victim.await_ticks(3)?;
    victim.end()
}

fn criu_killed() -> Outcome {
    let mut victim = victim()?;
    let tree = victim.tree();
    let waiter = Running::start(&mut waiter(&victim, &["--wait=60"]))?;
    kill(Pid::from_raw(criu_of(&waiter)?), Signal::SIGKILL)?;
    crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree).or_else(|failed| if victim.is_there() { Ok(()) } else { Err(failed) })?;
    waiter.end(SOON)?.must_pass("crr restore --wait")?;
    victim.await_ticks(3)?;
    victim.end()
}

fn lives_on() -> Outcome {
    let victim = victim()?;
    let waiter = Running::start(&mut waiter(&victim, &["--wait=60", "--deadline", "1"]))?;
    criu_of(&waiter)?;
    let mut dump = crr::command();
    dump.args(["dump", "--pid", &victim.pid().to_string(), "--dir"]).arg(victim.images());
    let dump = Paused::start(&mut dump, "renamed")?;
    let ran = waiter.end(SOON)?.must_exit(83, "crr restore --wait beside the tree")?;
    ensure!(ran.stderr.contains(&format!("PID {}", victim.pid())), "{}", ran.stderr);
    dump.strike(Kill::Crr)?;
    victim.await_ticks(3)?;
    victim.ticks_without_gap()?;
    victim.end()
}
