//! Restores that do not come to their end, at each event: nothing hung is left, or the tree runs, and the next restore works.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::Running;
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::{self, Victim};
use crate::{Outcome, crr, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const EVENTS: [&str; 4] = ["pre-restore", "post-restore", "pre-resume", "post-resume"];

/// What happens at the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Terminate,
    Interrupt,
    KillCrr,
    KillCriu,
}

pub(crate) fn trials() -> Vec<Trial> {
    let blows = [Blow::Terminate, Blow::Interrupt, Blow::KillCrr, Blow::KillCriu];
    let modes = [("detached", &["-d"][..]), ("foreground", &[])];
    let mut trials = Vec::new();
    for (mode, words) in modes {
        for event in EVENTS {
            for blow in blows {
                let name = format!("{blow:?}_at_{event}_of_a_{mode}_restore_leaves_nothing_hung").to_lowercase();
                trials.push(test(name, NEEDS, move || abandoned(words, event, blow)));
            }
        }
    }
    trials
}

/// Whether the tree runs all the same: CRIU has let it go, or takes the end of file for a yes.
fn runs(event: &str, blow: Blow) -> bool {
    event == "post-resume" || (event == "pre-resume" && matches!(blow, Blow::KillCrr | Blow::KillCriu))
}

fn abandoned(words: &'static [&str], event: &'static str, blow: Blow) -> Outcome {
    let mut victim = Victim::start(&programs::program("tree")?, &["3"])?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;

    let mut command = crr::command();
    command.env("CRR_TEST_PAUSE_AT", event).args(["restore", "--dir"]).arg(&images).args(words);
    let crr = Running::start(&mut command)?;
    let stopped = || (victim::state(crr.pid()) == Some('T')).then_some(());
    until(format_args!("crr to stop at {event}"), SOON, stopped)?;
    strike(crr.pid(), &tree, blow)?;
    // Then the tree is crr's to wait for, and a signal to crr is the tree's.
    let is_parent = runs(event, blow) && words.is_empty();
    let is_passed_on = is_parent && matches!(blow, Blow::Terminate | Blow::Interrupt);
    if runs(event, blow) && !is_passed_on {
        victim.await_ticks(3)?;
        victim.self_check()?;
    }
    let expected = match blow {
        Blow::KillCrr => 137,
        Blow::Terminate if is_parent => 7,
        Blow::Interrupt if is_parent => 130,
        Blow::KillCriu if is_parent => {
            kill(Pid::from_raw(victim.pid()), Signal::SIGKILL)?;
            137
        }
        _ if runs(event, blow) => 0,
        Blow::KillCriu => 76,
        Blow::Terminate | Blow::Interrupt => 82,
    };
    crr.end(SOON)?.must_exit(expected, "crr restore")?;
    if runs(event, blow) {
        victim.kill_all()?;
    }
    victim.await_gone(&tree)?;
    crr::restore(&images, &[])?.must_pass("the next crr restore")?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    // What was given up had not run.
    if !runs(event, blow) {
        victim.ticks_without_gap()?;
    }
    victim.end()
}

fn strike(crr: i32, tree: &[i32], blow: Blow) -> Outcome {
    let send = |pid: i32, signal| kill(Pid::from_raw(pid), signal);
    match blow {
        Blow::Terminate => send(crr, Signal::SIGTERM)?,
        Blow::Interrupt => send(crr, Signal::SIGINT)?,
        Blow::KillCrr => return Ok(send(crr, Signal::SIGKILL)?),
        Blow::KillCriu => send(criu_of(crr, tree)?, Signal::SIGKILL)?,
    }
    Ok(send(crr, Signal::SIGCONT)?)
}

/// The child of crr that is no task of the tree.
fn criu_of(crr: i32, tree: &[i32]) -> Result<i32, Failed> {
    let threads = Path::new("/proc").join(crr.to_string()).join("task");
    let mut children = Vec::new();
    for thread in threads.read_dir()?.flatten() {
        let text = std::fs::read_to_string(thread.path().join("children"))?;
        children.extend(text.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
    }
    children.retain(|child| !tree.contains(child));
    match children[..] {
        [criu] => Ok(criu),
        _ => {
            let shown = Command::new("ps").args(["-ef"]).output()?;
            Err(format!("crr has the children {children:?}\n{}", String::from_utf8_lossy(&shown.stdout)).into())
        }
    }
}
