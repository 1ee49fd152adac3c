//! Signals to crr and to CRIU at every step of a dump, and while memory is being written. For restores see `abandoned`.
//!
//! A debug build of crr stops itself (SIGSTOP) at the step that `CRR_TEST_PAUSE_AT` names.

use std::fs;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::aftermath::{Left, Litter, nothing_lost};
use crate::crr::{Ran, Running};
use crate::need::Need::{self, Cc, Criu, Root};
use crate::until::{SOON, until};
use crate::victim::{self, Victim};
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc];

/// The steps of a dump that kills the tree, in their order, and what must be left when it is disturbed there.
const DUMP_STEPS: [(&str, Left); 8] = [
    ("pre-dump", Left::Tree),
    ("query-ext-files", Left::Tree),
    ("post-dump", Left::Tree),
    ("record-written", Left::Tree),
    ("flushed", Left::Tree),
    ("renamed", Left::Both),
    ("place-flushed", Left::Both),
    ("released", Left::Checkpoint),
];

/// What happens to crr or CRIU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Interrupt,
    Terminate,
    KillCrr,
    KillCriu,
}

const BLOWS: [(Blow, &str); 4] = [
    (Blow::Interrupt, "ctrl_c"),
    (Blow::Terminate, "sigterm"),
    (Blow::KillCrr, "sigkill_of_crr"),
    (Blow::KillCriu, "sigkill_of_criu"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (blow, name) in BLOWS {
        for (step, left) in DUMP_STEPS {
            trials.push(test(format!("{name}_at_{step}_of_a_dump"), NEEDS, move || at_dump_step(blow, step, left)));
        }
        trials.push(test(format!("{name}_while_a_gigabyte_is_written"), NEEDS, move || in_mid_write(blow)));
    }
    trials
}

/// Starts a crr command that stops itself at a step, and waits until it has.
fn paused(step: &str, words: &[&str]) -> Result<Running, Failed> {
    let mut running = Running::start(crr::command().env("CRR_TEST_PAUSE_AT", step).args(words))?;
    let stopped = until(format_args!("crr to stop at {step}"), SOON, || match victim::state(running.pid()) {
        Some('T') => Some(true),
        Some('Z' | 'X') | None => Some(false),
        Some(_) => None,
    })?;
    if !stopped {
        return Err(format!("crr ended before {step}: {}", running.stderr()).into());
    }
    Ok(running)
}

/// The CRIU that a crr has started: its one child, by whichever of its threads.
fn criu_of(crr: i32) -> Option<i32> {
    let threads = fs::read_dir(format!("/proc/{crr}/task")).ok()?;
    let children = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<i32> =
        children.collect::<String>().split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    children.into_iter().find(|pid| victim::state(*pid).is_some_and(|state| state != 'Z'))
}

fn signal(pid: i32, signal: Signal) -> Outcome {
    Ok(kill(Pid::from_raw(pid), signal)?)
}

/// Deals the blow, lets crr go on, and waits until neither crr nor CRIU is there.
fn deal(blow: Blow, running: Running) -> Result<Ran, Failed> {
    let crr = running.pid();
    let criu = criu_of(crr);
    match blow {
        Blow::Interrupt => signal(crr, Signal::SIGINT)?,
        Blow::Terminate => signal(crr, Signal::SIGTERM)?,
        Blow::KillCrr => signal(crr, Signal::SIGKILL)?,
        // Without one it has answered and gone; crr goes on alone.
        Blow::KillCriu => criu.map_or(Ok(()), |criu| signal(criu, Signal::SIGKILL))?,
    }
    if blow != Blow::KillCrr {
        signal(crr, Signal::SIGCONT)?;
    }
    let ran = running.end(Duration::from_secs(60))?;
    if let Some(criu) = criu {
        until("CRIU to be gone", SOON, || (!Path::new(&format!("/proc/{criu}")).exists()).then_some(()))?;
    }
    Ok(ran)
}

fn litter(blow: Blow) -> Litter {
    match blow {
        Blow::Interrupt | Blow::Terminate => Litter::Log,
        Blow::KillCrr => Litter::Partial,
        Blow::KillCriu => Litter::Parasite,
    }
}

fn at_dump_step(blow: Blow, step: &str, left: Left) -> Outcome {
    let mut victim = Victim::start(&programs::program("tree")?, &["3"])?;
    victim.await_ticks(3)?;
    let (tree, images) = (victim.tree(), victim.images());
    let (pid, directory) = (victim.pid().to_string(), images.to_string_lossy().into_owned());
    let running = paused(step, &["dump", "--pid", &pid, "--dir", &directory])?;
    let ran = deal(blow, running)?;
    let found = nothing_lost(&mut victim, &tree, litter(blow))?;
    // A crr that lives on takes DIR away again when the tree does. A signal that comes when all is done but the answer to CRIU
    // may be too late.
    let late = matches!(blow, Blow::Interrupt | Blow::Terminate) && left == Left::Both && found == Left::Checkpoint;
    let expected = match left {
        Left::Both if late => Left::Checkpoint,
        Left::Both if blow != Blow::KillCrr => Left::Tree,
        _ => left,
    };
    ensure!(found == expected, "{found:?} is left instead of {expected:?}; crr said: {}", ran.stderr);
    let code = match (blow, expected) {
        (Blow::KillCrr, _) => 128 + Signal::SIGKILL as i32,
        // Nothing could be cancelled any more.
        (_, Left::Checkpoint) => 0,
        (Blow::Interrupt | Blow::Terminate, _) => 82,
        (Blow::KillCriu, _) => 76,
    };
    ran.must_exit(code, "the disturbed crr dump")?;
    victim.end()
}

fn in_mid_write(blow: Blow) -> Outcome {
    const WRITTEN_BYTES: u64 = 64 << 20;
    let mut victim = Victim::start(&programs::program("memory")?, &["1024"])?;
    victim.await_ticks(3)?;
    let (tree, images) = (victim.tree(), victim.images());
    let running = Running::start(crr::command().args([
        "dump",
        "--pid",
        &victim.pid().to_string(),
        "--dir",
        &images.to_string_lossy(),
    ]))?;
    let partial = images.with_extension("partial");
    until("memory to be written", SOON, || {
        let files = fs::read_dir(&partial).ok()?.flatten();
        let written: u64 = files
            .filter(|file| file.file_name().to_string_lossy().starts_with("pages-"))
            .filter_map(|file| file.metadata().ok())
            .map(|metadata| metadata.len())
            .sum();
        (written > WRITTEN_BYTES).then_some(())
    })?;
    let ran = deal(blow, running)?;
    let found = nothing_lost(&mut victim, &tree, litter(blow))?;
    ensure!(found == Left::Tree, "{found:?} is left; crr said: {}", ran.stderr);
    victim.end()
}
