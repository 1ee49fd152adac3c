//! A job of a shell on a terminal: dumped from outside, restored by the shell that ran it.

use std::io::Write as _;

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::need::Need::{self, Cc, Criu, Pty, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Pty];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_shell_job_is_restored_in_the_foreground_of_its_shell", NEEDS, foreground),
        test("a_shell_job_is_restored_detached_on_its_terminal", NEEDS, detached),
    ]
}

/// A shell with a job in the foreground, and the terminal to type on.
fn shell_with_job() -> Result<(Victim, std::fs::File), libtest_mimic::Failed> {
    let (mut victim, mut keyboard) = Victim::on_terminal()?;
    let program = programs::program("tree")?;
    writeln!(keyboard, "{} 3", program.display())?;
    until("the job to be ready", SOON, || victim.output().lines().any(|line| line == "ready").then_some(()))?;
    let shell = victim.tree();
    let job = *shell.get(1).ok_or("the shell has no child")?;
    victim.narrow_to(job);
    victim.await_ticks(3)?;
    Ok((victim, keyboard))
}

/// A job that was dumped, its shell, and the terminal to type on.
pub(crate) fn dumped() -> Result<(Victim, std::fs::File), libtest_mimic::Failed> {
    let (mut victim, keyboard) = shell_with_job()?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &[])?.must_pass("crr dump of a shell job")?;
    victim.await_gone(&tree)?;
    Ok((victim, keyboard))
}

fn foreground() -> Outcome {
    let (victim, mut keyboard) = dumped()?;
    let crr = env!("CARGO_BIN_EXE_crr");
    writeln!(keyboard, "{crr} restore --dir {}; echo status $?", victim.images().display())?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    kill(Pid::from_raw(victim.pid()), Signal::SIGTERM)?;
    let status = until("the exit status of crr", SOON, || victim.said("status ").first().cloned())?;
    ensure!(status == "7", "crr exited with {status} instead of the tree's 7");
    Ok(())
}

fn detached() -> Outcome {
    let (victim, mut keyboard) = dumped()?;
    let crr = env!("CARGO_BIN_EXE_crr");
    writeln!(keyboard, "{crr} restore -d --dir {}; echo status $?", victim.images().display())?;
    let status = until("the exit status of crr", SOON, || victim.said("status ").first().cloned())?;
    ensure!(status == "0", "crr exited with {status}");
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    kill(Pid::from_raw(victim.pid()), Signal::SIGTERM)?;
    until("the tree to say `end`", SOON, || victim.output().lines().any(|line| line == "end").then_some(()))
}
