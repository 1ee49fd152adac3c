//! Dumps that are interrupted or killed at each step.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use super::paused::{KILLED, Kill, Paused};
use super::{directory_is_as_before, is_whole, make_empty, next_round_trip_passes, partial, runs_on};
use crate::crr::Ran;
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

/// What a dump of the tree needs: a file that lost the name by which it is open.
const OPTIONS: &[&str] = &["--link-remap"];

/// Before the rename: whatever dies, the tree runs on and DIR is as it was.
const BEFORE: &[&str] = &["pre-dump", "query-ext-files", "post-dump", "record-written", "flushed"];

/// Between the rename and the answer to `post-dump`: the tree runs on, and DIR may be there as well.
const BETWEEN: &[&str] = &["renamed", "place-flushed"];

/// After CRIU has ended the tree.
const AFTER: &str = "released";

pub(super) fn trials() -> Vec<Trial> {
    let before = BEFORE.iter().map(|step| {
        let name = format!("a_dump_ended_at_{}_leaves_the_tree_and_dir_as_they_were", step.replace('-', "_"));
        test(name, NEEDS, move || ended_before(step))
    });
    let between = BETWEEN.iter().map(|step| {
        let name = format!("a_dump_killed_at_{}_leaves_both_the_tree_and_a_whole_checkpoint", step.replace('-', "_"));
        test(name, NEEDS, move || ended_between(step))
    });
    let after = [
        test("a_dump_killed_at_released_leaves_a_whole_checkpoint", NEEDS, ended_after),
        test("a_dump_left_running_that_is_killed_at_each_step_leaves_the_tree", NEEDS, left_running),
    ];
    before.chain(between).chain(after).collect()
}

/// A tree with a file that CRIU makes a name for.
fn start() -> Result<Victim, Failed> {
    Victim::start(&programs::program("linked")?, &[])
}

fn command(victim: &Victim, directory: &Path, more: &[&str]) -> Command {
    let mut command = crr::command();
    command.args(["dump", "--pid", &victim.pid().to_string(), "--dir"]).arg(directory).args(OPTIONS).args(more);
    command
}

/// What a dump that was ended before it was too late says.
fn must_have_failed(ran: Ran, kill: Kill) -> Result<Ran, Failed> {
    let code = match kill {
        Kill::CtrlC | Kill::Terminate => 82,
        Kill::Criu => 76,
        Kill::Crr => KILLED,
    };
    ran.must_exit(code, &format!("a dump ended by {kill:?}"))
}

/// Whether crr had answered CRIU before it saw the signal. Then the checkpoint is whole, and the tree is brought back from it.
fn came_too_late(ran: &Ran, kill: Kill, victim: &mut Victim, tree: &[i32]) -> Result<bool, Failed> {
    if ran.code != 0 || !matches!(kill, Kill::CtrlC | Kill::Terminate) {
        return Ok(false);
    }
    let directory = victim.images();
    victim.await_gone(tree)?;
    crr::restore(&directory, &[])?.must_pass("the restore of a dump that was not to be stopped")?;
    runs_on(victim, tree)?;
    fs::remove_dir_all(&directory)?;
    Ok(true)
}

fn ended_before(step: &str) -> Outcome {
    let mut victim = start()?;
    let (tree, directory) = (victim.tree(), victim.images());
    for kill in Kill::ALL {
        let was_there = matches!(kill, Kill::CtrlC | Kill::Criu);
        if was_there {
            make_empty(&directory)?;
        }
        let ran = Paused::start(&mut command(&victim, &directory, &[]), step)?.strike(kill)?;
        if step == "flushed" && came_too_late(&ran, kill, &mut victim, &tree)? {
            continue;
        }
        let ran = must_have_failed(ran, kill)?;
        runs_on(&victim, &tree).map_err(|failed| after(kill, &failed))?;
        if kill == Kill::Crr {
            ensure!(!directory.exists(), "DIR is there");
            ensure!(partial(&directory).is_dir(), "no DIR.partial: was crr at {step}?");
        } else {
            directory_is_as_before(&directory, was_there).map_err(|failed| after(kill, &failed))?;
            ensure!(ran.stderr.contains("The tree runs on"), "{kill:?}: crr did not say so:\n{}", ran.stderr);
        }
        if was_there {
            fs::remove_dir(&directory)?;
        }
    }
    next_round_trip_passes(&mut victim, &directory, OPTIONS)?;
    victim.end()
}

fn ended_between(step: &str) -> Outcome {
    let mut victim = start()?;
    let (tree, directory) = (victim.tree(), victim.images());
    for kill in Kill::ALL {
        let ran = Paused::start(&mut command(&victim, &directory, &[]), step)?.strike(kill)?;
        if came_too_late(&ran, kill, &mut victim, &tree)? {
            continue;
        }
        must_have_failed(ran, kill)?;
        runs_on(&victim, &tree).map_err(|failed| after(kill, &failed))?;
        if kill != Kill::Crr {
            directory_is_as_before(&directory, false).map_err(|failed| after(kill, &failed))?;
        }
    }
    ensure!(is_whole(&directory), "no whole checkpoint is left");
    let refused = crr::restore(&directory, &[])?.must_exit(83, "a restore beside the tree")?;
    ensure!(refused.stderr.contains(&victim.pid().to_string()), "no PID in the refusal:\n{}", refused.stderr);
    runs_on(&victim, &tree)?;
    victim.kill_all()?;
    victim.await_gone(&tree)?;
    crr::restore(&directory, &[])?.must_pass("the restore of what was left")?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    fs::remove_dir_all(&directory)?;
    // It has begun again where it was dumped, so that its ticks are no series any more.
    victim.kill_all()
}

fn ended_after() -> Outcome {
    let mut victim = start()?;
    let (tree, directory) = (victim.tree(), victim.images());
    for kill in Kill::ALL {
        let ran = Paused::start(&mut command(&victim, &directory, &[]), AFTER)?.strike(kill)?;
        if kill == Kill::Crr {
            ran.must_exit(KILLED, "a killed crr")?;
        } else {
            ran.must_pass("a dump for which it is too late to be ended")?;
        }
        victim.await_gone(&tree)?;
        ensure!(is_whole(&directory) && !partial(&directory).exists(), "{kill:?}: no whole checkpoint");
        crr::restore(&directory, &[])?.must_pass("the restore of what was left")?;
        runs_on(&victim, &tree).map_err(|failed| after(kill, &failed))?;
        fs::remove_dir_all(&directory)?;
    }
    victim.end()
}

fn left_running() -> Outcome {
    let mut victim = start()?;
    let (tree, directory) = (victim.tree(), victim.images());
    for step in ["post-dump", AFTER, "record-written", "renamed"] {
        for kill in [Kill::CtrlC, Kill::Criu, Kill::Crr] {
            let ran = Paused::start(&mut command(&victim, &directory, &["--leave-running"]), step)?.strike(kill)?;
            let passed = ran.code == 0;
            ensure!(passed || ran.code == if kill == Kill::Crr { KILLED } else { 82 } || kill == Kill::Criu, "{ran:?}");
            runs_on(&victim, &tree).map_err(|failed| after(kill, &failed))?;
            if passed || step == "renamed" {
                ensure!(is_whole(&directory), "{kill:?} at {step}: no whole checkpoint");
                fs::remove_dir_all(&directory)?;
            }
            ensure!(!directory.exists(), "{kill:?} at {step}: DIR is left by a dump that failed");
            let left = partial(&directory).exists();
            ensure!(!left || kill == Kill::Crr, "{kill:?} at {step}: DIR.partial is left");
        }
    }
    next_round_trip_passes(&mut victim, &directory, OPTIONS)?;
    victim.end()
}

fn after(kill: Kill, failed: &Failed) -> Failed {
    format!("after {kill:?}: {}", failed.message().unwrap_or_default()).into()
}
