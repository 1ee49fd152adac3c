//! A tree whose root has asked for a signal when its parent ends (PR_SET_PDEATHSIG): what crr says, and what then happens.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::crr::{self, Running};
use crate::dumped::start;
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::until;
use crate::victim::{self, Victim};
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_signal_at_the_parents_death_is_told_by_dump_and_restore", NEEDS, told),
        test("a_tree_with_a_signal_at_its_parents_death_lives_as_long_as_a_crr_in_the_foreground", NEEDS, foreground),
    ]
}

/// A dumped tree of one that asks for SIGTERM.
fn dumped() -> Result<Victim, libtest_mimic::Failed> {
    let mut victim = start("parent_death_signal")?;
    let tree = victim.tree();
    let ran = crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    ensure!(ran.stderr.contains("signal 15 when its parent ends"), "the dump says only: {}", ran.stderr);
    victim.await_gone(&tree)?;
    Ok(victim)
}

fn is_gone(victim: &Victim) -> bool {
    victim::state(victim.pid()).is_none_or(|state| state == 'Z')
}

fn told() -> Outcome {
    let victim = dumped()?;
    let ran = crr::restore(&victim.images(), &[])?.must_pass("crr restore -d")?;
    let warned = ran.stderr.contains("warning: the tree's root gets signal 15 when its parent ends");
    ensure!(warned, "the restore says only: {}", ran.stderr);
    until("the end of the tree", LIMIT, || is_gone(&victim).then_some(()))
}

fn foreground() -> Outcome {
    let victim = dumped()?;
    let pidfile = victim.directory().join("pidfile");
    let mut command = crr::command();
    command.args(["restore", "--dir"]).arg(victim.images()).arg("--pidfile").arg(&pidfile);
    let restore = Running::start(&mut command)?;
    until("the restored tree", LIMIT, || std::fs::read_to_string(&pidfile).ok().filter(|pid| !pid.is_empty()))?;
    victim.self_check()?;
    ensure!(!is_gone(&victim), "the tree ended before its parent");
    drop(restore);
    until("the end of the tree", LIMIT, || is_gone(&victim).then_some(()))
}
