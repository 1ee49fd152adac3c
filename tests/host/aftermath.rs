//! What is left after a dump that was disturbed: either the tree runs on and DIR is as it was, or DIR is whole and restores,
//! or both.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

use crate::victim::{self, Victim};
use crate::{Outcome, crr, ensure};

/// What the disturbance is allowed to leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Litter {
    /// Nothing but the log of a failure.
    Log,
    /// DIR.partial too: crr was killed and could not remove it.
    Partial,
    /// The mapping of CRIU's parasite: CRIU was killed while it wrote memory.
    Parasite,
}

/// Which of the two there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The tree runs, and there is no checkpoint.
    Tree,
    /// There is a checkpoint, and no tree.
    Checkpoint,
    /// Both: the dump was stopped between the renaming and the kill.
    Both,
}

/// Checks that nothing was lost: says which of the two is left, and that the next dump and restore pass.
pub(crate) fn nothing_lost(victim: &mut Victim, tree: &[i32], litter: Litter) -> Result<Left, Failed> {
    let images = victim.images();
    let there: Vec<bool> = tree.iter().map(|pid| is_alive(*pid)).collect();
    let all_there = there.iter().all(|is_there| *is_there);
    let none_there = there.iter().all(|is_there| !is_there);
    ensure!(all_there || none_there, "of the tree {tree:?} some run and some do not: {there:?}");
    let left = match (all_there, images.exists()) {
        (true, true) => Left::Both,
        (true, false) => Left::Tree,
        (false, true) => Left::Checkpoint,
        (false, false) => return Err("neither the tree nor a checkpoint is left".into()),
    };
    if left != Left::Checkpoint {
        tree_is_unharmed(victim, tree, litter)?;
    }
    leftovers(victim, litter)?;
    match left {
        Left::Checkpoint => {
            victim.await_gone(tree)?;
            crr::restore(&images, &[])?.must_pass("crr restore of what was left")?;
        }
        Left::Both => {
            let refused = crr::restore(&images, &[])?.must_exit(83, "crr restore while the tree runs")?;
            ensure!(refused.stderr.contains(&tree[0].to_string()), "the refusal names no PID: {}", refused.stderr);
            dump_and_restore(victim, &victim.directory().join("again"))?;
        }
        Left::Tree => dump_and_restore(victim, &images)?,
    }
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    Ok(left)
}

fn dump_and_restore(victim: &mut Victim, images: &Path) -> Outcome {
    let tree = victim.tree();
    crr::dump(victim.pid(), images, &[])?.must_pass("the next crr dump")?;
    victim.await_gone(&tree)?;
    crr::restore(images, &[])?.must_pass("the next crr restore")?;
    Ok(())
}

fn is_alive(pid: i32) -> bool {
    victim::state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn tree_is_unharmed(victim: &Victim, tree: &[i32], litter: Litter) -> Outcome {
    victim.await_ticks(3)?;
    victim.self_check()?;
    let leaked: Vec<i32> = tree.iter().copied().filter(|pid| has_parasite(*pid)).collect();
    if litter != Litter::Parasite {
        ensure!(leaked.is_empty(), "CRIU's parasite stays in {leaked:?}");
    }
    if !leaked.is_empty() {
        let report = crr::crr(["check", "--pid", &victim.pid().to_string(), "--json"])?.stdout;
        ensure!(report.contains("parasite"), "crr check --pid does not report the parasite in {leaked:?}: {report}");
    }
    Ok(())
}

/// Whether CRIU's code is still mapped into a process.
pub(crate) fn has_parasite(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains("/memfd:CRIUMFD"))
}

/// Nothing but what is allowed lies beside DIR.
fn leftovers(victim: &Victim, litter: Litter) -> Outcome {
    let mut unexpected: Vec<PathBuf> = fs::read_dir(victim.directory())?.flatten().map(|entry| entry.path()).collect();
    unexpected.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let expected = matches!(name.as_str(), "work" | "output" | "images" | "images.failed.log");
        !(expected || name == "images.partial" && litter == Litter::Partial)
    });
    ensure!(unexpected.is_empty(), "left behind: {unexpected:?}");
    Ok(())
}
