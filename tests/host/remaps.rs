//! A file that lost the name by which it is open, and has another: CRIU's own name for it, `link_remap.N`, is there for a dump
//! and a restore, and never before or after.

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};

use ::crr::checkpoint::Remaps;
use ::crr::images::Images;
use libtest_mimic::{Failed, Trial};

use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::SOON;
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

/// The situation of a file that has another name in the same directory.
const LINKED: &str = "unlinked_linked";

/// An extended attribute that any file system of a host has; /tmp may be a tmpfs, which only later kernels give those of users.
const ATTRIBUTE: &str = "trusted.crr";

/// Whether the name that the file still has is taken away after the first restore.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherName {
    Stays,
    Goes,
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("criu_restores_a_link_remap_three_times", NEEDS, || by_criu(LINKED, OtherName::Stays)),
        test("criu_restores_a_link_remap_whose_other_name_is_gone", NEEDS, || by_criu(LINKED, OtherName::Goes)),
        test("criu_restores_a_link_remap_of_a_deleted_directory_three_times", NEEDS, || {
            by_criu("unlinked_linked_deleted_directory", OtherName::Stays)
        }),
        test("a_link_remap_that_crr_turns_on_is_restored_three_times", NEEDS, || by_crr(&[])),
        test("a_link_remap_is_restored_three_times", NEEDS, || by_crr(&["--link-remap"])),
        test("a_link_remap_left_running_is_restored_three_times", NEEDS, || {
            by_crr(&["--link-remap", "--leave-running"])
        }),
    ]
}

fn start(situation: &str) -> Result<Victim, Failed> {
    let program = programs::program_with("situation", &["-pthread", "-lutil", "-lrt"])?;
    let victim = Victim::start(&program, &[situation])?;
    ensure!(link_remaps(&victim)?.is_empty(), "there is a link remap before any dump");
    Ok(victim)
}

/// CRIU's names in the work directory of the tree.
fn link_remaps(victim: &Victim) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    for entry in fs::read_dir(victim.directory().join("work"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("link_remap.") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn none_left(victim: &Victim, after: &str) -> Outcome {
    let left = link_remaps(victim)?;
    ensure!(left.is_empty(), "left after {after}: {left:?}");
    Ok(())
}

/// What every restore must give; then the tree is killed again.
fn came_back(victim: &mut Victim, tree: &[i32], after: &str) -> Outcome {
    none_left(victim, after)?;
    victim.self_check()?;
    victim.kill_all()?;
    victim.await_gone(tree)
}

/// The value of a file's [`ATTRIBUTE`].
fn attribute_of(path: &Path) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(path, ATTRIBUTE, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

fn by_criu(situation: &str, other: OtherName) -> Outcome {
    let mut victim = start(situation)?;
    let (images, tree) = (victim.images(), victim.tree());
    fs::create_dir(&images)?;
    if other == OtherName::Goes {
        let file = victim.directory().join("work/other-name");
        rustix::fs::setxattr(&file, ATTRIBUTE, b"kept", rustix::fs::XattrFlags::empty())?;
    }
    let pid = victim.pid().to_string();
    crr::criu("dump", &images, ["-t", &pid, "--link-remap"], SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    ensure!(link_remaps(&victim)?.len() == 1, "criu left {:?}", link_remaps(&victim)?);

    let (root, directory) = (Path::new("/"), File::open(&images)?);
    let remaps = Remaps::keep(&Images::open(&images)?, root, &directory, &images)?;
    remaps.clear(root)?;
    none_left(&victim, "the dump")?;
    for time in 1..=3 {
        let put_back = remaps.put_back(root, &directory, &images)?;
        let attribute = link_remaps(&victim)?.first().and_then(|path| attribute_of(path));
        crr::criu("restore", &images, ["-d", "--link-remap"], SOON)?.must_pass(&format!("criu restore {time}"))?;
        put_back.clear()?;
        came_back(&mut victim, &tree, &format!("restore {time}"))?;
        if other == OtherName::Goes && time == 2 {
            // Made anew, from what was kept.
            ensure!(attribute == Some(b"kept".to_vec()), "its extended attribute is {attribute:?}");
        }
        if other == OtherName::Goes && time == 1 {
            fs::remove_file(victim.directory().join("work/other-name"))?;
        }
    }
    Ok(())
}

fn by_crr(options: &[&str]) -> Outcome {
    let mut victim = start(LINKED)?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, options)?.must_pass("crr dump")?;
    none_left(&victim, "the dump")?;
    victim.kill_all()?;
    victim.await_gone(&tree)?;
    for time in 1..=3 {
        crr::restore(&images, &[])?.must_pass(&format!("crr restore {time}"))?;
        came_back(&mut victim, &tree, &format!("restore {time}"))?;
    }
    Ok(())
}
