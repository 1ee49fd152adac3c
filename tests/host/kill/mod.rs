//! crr and CRIU are killed, interrupted and dropped at every step of a dump and of a restore, and what is left is looked at.
//!
//! A debug build of crr stops itself (SIGSTOP) at the step that `CRR_TEST_PAUSE_AT` names; a release build knows no such
//! variable.

mod connections;
mod dropped;
mod dump;
pub(crate) mod frozen;
mod memory;
pub(crate) mod paused;
mod refill;
mod restore;
mod room;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Failed, Trial};

use crate::until::{SOON, until};
use crate::victim::{self, Victim};
use crate::{Outcome, crr, ensure};

/// The mapping of CRIU's parasite.
const PARASITE: &str = "/memfd:CRIUMFD";

/// The mode of a DIR that is there before a dump.
const MODE: u32 = 0o750;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = dump::trials();
    trials.extend(restore::trials());
    trials.extend(dropped::trials());
    trials.extend(frozen::trials());
    trials.extend(room::trials());
    trials.extend(connections::trials());
    trials.extend(memory::trials());
    trials.extend(refill::trials());
    trials
}

/// What this program does instead of testing where a test has started it as its helper.
pub(crate) fn as_helper() -> Option<ExitCode> {
    dropped::as_helper()
}

/// Makes DIR as an empty directory.
fn make_empty(directory: &Path) -> Result<(), Failed> {
    Ok(fs::DirBuilder::new().mode(MODE).create(directory)?)
}

/// DIR.partial.
fn partial(directory: &Path) -> PathBuf {
    beside(directory, ".partial")
}

fn beside(directory: &Path, end: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Whether DIR holds a checkpoint.
fn is_whole(directory: &Path) -> bool {
    ["crr.json", "inventory.img", "pstree.img"].iter().all(|name| directory.join(name).is_file())
}

/// DIR is what it was before the dump, and nothing is beside it but the log.
fn directory_is_as_before(directory: &Path, was_there: bool) -> Outcome {
    ensure!(!partial(directory).exists(), "{} is left", partial(directory).display());
    if !was_there {
        ensure!(!directory.exists(), "{} is left", directory.display());
        return Ok(());
    }
    let left: Vec<_> = fs::read_dir(directory)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "left in {}: {left:?}", directory.display());
    let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
    ensure!(mode == MODE, "DIR has the mode {mode:o} instead of {MODE:o}");
    Ok(())
}

/// The tree runs on, whole, and nothing of CRIU is in it.
pub(crate) fn runs_on(victim: &Victim, tree: &[i32]) -> Outcome {
    no_parasite(tree)?;
    goes_on(victim, tree)
}

/// The tree runs on, whole.
pub(crate) fn goes_on(victim: &Victim, tree: &[i32]) -> Outcome {
    // A restore may change the order of siblings.
    let (before, now) = (BTreeSet::from_iter(tree.iter().copied()), BTreeSet::from_iter(victim.tree()));
    ensure!(before == now, "the tree was {before:?} and is {now:?}");
    for pid in tree {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        ensure!(status.contains("TracerPid:\t0\n"), "PID {pid} is still traced");
        let state = victim::state(*pid).unwrap_or('?');
        ensure!(!matches!(state, 'T' | 't' | 'Z' | '?'), "PID {pid} is in state {state}");
    }
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    no_link_remaps(victim)
}

/// Whether CRIU's code is still mapped into a process.
pub(crate) fn has_parasite(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(PARASITE))
}

fn parasites(tree: &[i32]) -> Vec<i32> {
    tree.iter().copied().filter(|pid| has_parasite(*pid)).collect()
}

fn no_parasite(tree: &[i32]) -> Outcome {
    let found = parasites(tree);
    ensure!(found.is_empty(), "CRIU's parasite is left in {found:?}");
    Ok(())
}

/// No name of CRIU's is left in the work directory of the tree.
fn no_link_remaps(victim: &Victim) -> Outcome {
    for entry in fs::read_dir(victim.directory().join("work"))?.flatten() {
        let name = entry.file_name();
        ensure!(!name.to_string_lossy().starts_with("link_remap."), "{name:?} is left");
    }
    Ok(())
}

/// Dumps to DIR and restores from it: whatever was left stands in nobody's way. Then DIR is removed.
fn next_round_trip_passes(victim: &mut Victim, directory: &Path, more: &[&str]) -> Outcome {
    let tree = victim.tree();
    crr::dump(victim.pid(), directory, more)?.must_pass("the next dump")?;
    ensure!(!partial(directory).exists(), "{} is left by the next dump", partial(directory).display());
    victim.await_gone(&tree)?;
    crr::restore(directory, &[])?.must_pass("the next restore")?;
    runs_on(victim, &tree)?;
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// Waits until a process has ended; it may be a zombie whose parent takes its time.
pub(crate) fn await_end(pid: i32) -> Outcome {
    until(format_args!("the end of PID {pid}"), SOON, || {
        matches!(victim::state(pid), None | Some('Z' | 'X')).then_some(())
    })
}
