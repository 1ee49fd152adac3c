//! A small tmpfs that fills up in the middle of a dump.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

use super::paused::Paused;
use super::{directory_is_as_before, next_round_trip_passes, runs_on};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("a_dump_whose_filesystem_fills_up_before_memory_is_written_leaves_the_tree", NEEDS, || {
            full_at("pre-dump")
        }),
        test("a_dump_whose_filesystem_fills_up_before_the_record_is_written_leaves_the_tree", NEEDS, || {
            full_at("post-dump")
        }),
    ]
}

/// Fills the filesystem up to its last byte.
fn fill(file: &Path) -> Outcome {
    let mut file = fs::File::create(file)?;
    for block in [vec![0u8; 1 << 20], vec![0u8; 4096], vec![0u8; 1]] {
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

fn full_at(step: &str) -> Outcome {
    let mut victim = Victim::start(&programs::program("memory")?, &["32", "1"])?;
    let tree = victim.tree();
    let (place, filler) = (victim.directory().join("small"), victim.directory().join("small/filler"));
    fs::create_dir(&place)?;
    mount(Some("small"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=64m"))?;
    let directory = place.join("images");
    let mut command = crr::command();
    command.args(["dump", "--pid", &victim.pid().to_string(), "--dir"]).arg(&directory);
    let paused = Paused::start(&mut command, step)?;
    fill(&filler)?;
    let ran = paused.go_on()?;
    ensure!([74, 80].contains(&ran.code), "exit status {}:\n{}", ran.code, ran.stderr);
    ensure!(ran.stderr.contains("No space left"), "crr does not name the cause:\n{}", ran.stderr);
    runs_on(&victim, &tree)?;
    directory_is_as_before(&directory, false)?;
    fs::remove_file(&filler)?;
    next_round_trip_passes(&mut victim, &directory, &[])?;
    victim.end()
}
