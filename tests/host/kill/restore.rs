//! Restores that are interrupted or killed at each event.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use libtest_mimic::{Failed, Trial};

use super::paused::{KILLED, Kill, Paused, children};
use super::{no_link_remaps, runs_on};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

/// Before the tree may run: whatever dies, nothing of it is left.
const BEFORE: &[&str] = &["pre-restore", "post-restore"];

pub(super) fn trials() -> Vec<Trial> {
    let before = BEFORE.iter().map(|event| {
        let name = format!("a_restore_ended_at_{}_leaves_nothing_and_the_next_one_passes", event.replace('-', "_"));
        test(name, NEEDS, move || ended_at(event, &[]))
    });
    let later = [
        test("a_restore_ended_at_pre_resume_leaves_nothing_and_one_killed_runs", NEEDS, || {
            ended_at("pre-resume", &[Kill::Crr, Kill::Criu])
        }),
        test("a_restore_ended_at_post_resume_runs", NEEDS, || ended_at("post-resume", &Kill::ALL)),
    ];
    before.chain(later).collect()
}

/// Names, sizes and times of the files in a directory.
fn listing(directory: &Path) -> Result<BTreeMap<PathBuf, (u64, SystemTime)>, Failed> {
    let mut listing = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        listing.insert(entry.path(), (metadata.len(), metadata.modified()?));
    }
    Ok(listing)
}

/// The directories of crr's own cgroups.
fn cgroups() -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let parents = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|path| path.join("crr"));
    parents.flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten()).map(|entry| entry.path()).collect()
}

/// Ends restores at an event in every way; after those in `runs` the tree is there.
fn ended_at(event: &str, runs: &[Kill]) -> Outcome {
    let mut victim = Victim::start(&programs::program("linked")?, &[])?;
    let (tree, directory) = (victim.tree(), victim.images());
    crr::dump(victim.pid(), &directory, &["--link-remap"])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    let before = listing(&directory)?;
    for kill in Kill::ALL {
        let said = victim.output();
        let mut command = crr::command();
        command.args(["restore", "-d", "--dir"]).arg(&directory);
        let mut paused = Paused::start(&mut command, event)?;
        let restorer = paused.pid();
        paused.criu = children(restorer).into_iter().find(|child| !tree.contains(child));
        let ran = paused.strike(kill)?;
        let what = format!("a restore ended by {kill:?} at {event}");
        if runs.contains(&kill) {
            if kill == Kill::Crr {
                ran.must_exit(KILLED, &what)?;
            } else {
                ran.must_pass(&what)?;
            }
            victim.await_ticks(3)?;
            victim.self_check()?;
            victim.kill_all()?;
            victim.await_gone(&tree)?;
        } else {
            let code = match kill {
                Kill::CtrlC | Kill::Terminate => 82,
                Kill::Criu => 76,
                Kill::Crr => KILLED,
            };
            ran.must_exit(code, &what)?;
            victim.await_gone(&tree).map_err(|_| format!("{what}: {:?} is left", victim.processes()))?;
        }
        if !runs.contains(&kill) {
            ensure!(victim.output() == said, "{what}: the tree ran before it was ended");
        }
        no_link_remaps(&victim).or_else(|failed| if kill == Kill::Crr { Ok(()) } else { Err(failed) })?;
        let after = listing(&directory)?;
        ensure!(after == before, "{what}: DIR was\n{before:?}\nand is\n{after:?}");
        let own = format!("restore-{restorer}");
        let left = || cgroups().into_iter().filter(|path| path.ends_with(&own)).collect::<Vec<_>>();
        // One whose crr was killed has nobody to remove it: the next crr does.
        if kill != Kill::Crr && !runs.contains(&kill) {
            until("crr's cgroup to be removed", SOON, || left().is_empty().then_some(()))?;
        }
    }
    crr::restore(&directory, &[])?.must_pass("the next restore")?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    no_link_remaps(&victim)?;
    if runs.is_empty() {
        runs_on(&victim, &tree)?;
    }
    victim.kill_all()
}
