//! Who goes before whom while a tree is dumped, and that nothing of it stays with the tree.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::kill::paused::Paused;
use crate::need::Need::{self, Cc, Criu, Latency, Netns, Root, Turns};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

/// What crr has open to keep the processors awake.
pub(crate) const LATENCY: &str = "/dev/cpu_dma_latency";

const LONG_NS: u64 = 10_000_000;
const SHORT_NS: u64 = 100_000;

const TURNS: &[Need] = &[Root, Criu, Cc, Netns, Turns];
const AWAKE: &[Need] = &[Root, Criu, Cc, Netns, Latency];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("crr_and_criu_stand_back_but_while_the_tree_stands_still", TURNS, turns),
        test("a_dump_and_a_restore_keep_processors_awake", AWAKE, awake),
    ]
}

/// How long the turns of a process's first thread are; `None` where the kernel does not tell.
pub(crate) fn turn_ns(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/sched")).ok()?;
    let line = text.lines().find(|line| line.starts_with("se.slice "))?;
    line.rsplit_once(':')?.1.trim().parse().ok()
}

fn turns_of(pids: &[i32]) -> Vec<Option<u64>> {
    pids.iter().map(|pid| turn_ns(*pid)).collect()
}

fn dump(victim: &Victim, directory: &Path, more: &[&str]) -> Command {
    let mut command = crr::command();
    command.args(["dump", "--pid", &victim.pid().to_string(), "--dir"]).arg(directory).args(more);
    command
}

fn turns() -> Outcome {
    let mut victim = start()?;
    let tree = victim.tree();
    let before = turns_of(&tree);
    ensure!(!before.contains(&Some(LONG_NS)) && !before.contains(&Some(SHORT_NS)), "turns of the tree: {before:?}");
    let steps =
        [("pre-dump", LONG_NS, LONG_NS), ("query-ext-files", SHORT_NS, SHORT_NS), ("released", LONG_NS, SHORT_NS)];
    for (step, of_crr, of_criu) in steps {
        let directory = victim.directory().join(step);
        let paused = Paused::start(&mut dump(&victim, &directory, &["--leave-running"]), step)?;
        let now = turns_of(&[paused.pid(), paused.criu.unwrap_or(0), victim.pid()]);
        // CRIU may have ended when the tree is released.
        let is_gone = step == "released" && now[1].is_none();
        let wanted = [Some(of_crr), Some(of_criu).filter(|_| !is_gone), before[0]];
        ensure!(now == wanted, "at {step} the turns of crr, CRIU and the tree are {now:?} instead of {wanted:?}");
        paused.go_on()?.must_pass("crr dump")?;
        let after = turns_of(&tree);
        ensure!(after == before, "turns of a tree left running: {before:?} became {after:?}");
    }
    let images = victim.images();
    crr::dump(victim.pid(), &images, &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    crr::restore(&images, &[])?.must_pass("crr restore")?;
    let after = turns_of(&tree);
    ensure!(after == before, "turns of a restored tree: {before:?} became {after:?}");
    victim.end()
}

fn awake() -> Outcome {
    let mut victim = start()?;
    let (tree, images) = (victim.tree(), victim.images());
    held_by(&mut dump(&victim, &images, &[]))?;
    victim.await_gone(&tree)?;
    let mut restore = crr::command();
    held_by(restore.args(["restore", "-d", "--dir"]).arg(&images))?;
    victim.end()
}

/// Runs a command of crr that keeps the processors awake from its beginning; what it starts or restores does not.
fn held_by(command: &mut Command) -> Outcome {
    let paused = Paused::start(command, "awake")?;
    let opened = fs::read_dir(format!("/proc/{}/fd", paused.pid()))?.flatten();
    let holds = opened.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| file == Path::new(LATENCY));
    ensure!(holds, "{command:?} does not hold {LATENCY}");
    paused.go_on()?.must_pass("crr")?;
    Ok(())
}

fn start() -> Result<Victim, Failed> {
    let victim = Victim::start(&programs::program("tree")?, &["3"])?;
    victim.await_ticks(2)?;
    Ok(victim)
}
