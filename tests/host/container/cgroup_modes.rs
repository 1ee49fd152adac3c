//! What becomes of a container's cgroups by `--manage-cgroups`.
//!
//! crr makes the cgroups itself, with the limits of the bundle, whatever CRIU is told. The modes differ in what CRIU then does
//! with what it has recorded: `props`, `full` and `strict` bring back limits that were changed behind the runtime's back.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::crr::Running;
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, LIMIT};
use super::dumped::Dumped;
use super::output::Output;
use super::round_trip::{By, dump_with, restore};
use super::runtime::Runtime::Runc11;
use super::snapshot::{Snapshot, cgroups_of};

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

/// The bundle's limit of processes, and the one it has at the dump.
const GIVEN: &str = "77";
const CHANGED: &str = "55";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (mode, limit) in [
        ("ignore", GIVEN),
        ("none", GIVEN),
        ("soft", GIVEN),
        ("props", CHANGED),
        ("full", CHANGED),
        ("strict", CHANGED),
    ] {
        trials.push(test(format!("manage_cgroups_{mode}_restores_the_limits_it_promises"), NEEDS, move || {
            restores(mode, limit)
        }));
    }
    trials.push(test("manage_cgroups_strict_is_refused_where_a_cgroup_is_there", NEEDS, strict));
    trials
}

/// The file with the limit of a container's processes.
fn limit(id: &str) -> Result<PathBuf, Failed> {
    let files = cgroups_of(id).into_iter().map(|directory| directory.join("pids.max"));
    Ok(files.filter(|file| file.exists()).min().ok_or("it has no limit of processes")?)
}

fn restores(mode: &str, wanted: &str) -> Outcome {
    let bed = Bed::new(Runc11)?;
    let outside = Snapshot::take(bed.tag());
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.resources("pids", json!({ "limit": GIVEN.parse::<u32>()? }));
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let file = limit(container.id())?;
    fs::write(&file, CHANGED)?;
    let membership = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let before = (cgroups_of(container.id()), membership(container.pid()?)?);
    let (images, option) = (bed.path("images"), format!("--manage-cgroups={mode}"));
    dump_with(By::Crr, &bed, &container, &images, &[&option])?;
    ensure!(cgroups_of(container.id()).is_empty(), "cgroups are left by the dump");
    // What was said at the dump holds for the restore.
    let again = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    ensure!(fs::read_to_string(&file)?.trim() == wanted, "the limit is {}, not {wanted}", fs::read_to_string(&file)?);
    let after = (cgroups_of(again.id()), membership(again.pid()?)?);
    ensure!(after == before, "its cgroups were {before:?} and are {after:?}");
    again.obeys_its_runtime(&output)?;
    outside.must_be_unchanged()
}

fn strict() -> Outcome {
    let dumped = Dumped::new(By::Crr)?;
    let id = dumped.bed.id("one");
    let cgroup = PathBuf::from("/sys/fs/cgroup/pids").join(&id);
    fs::create_dir(&cgroup)?;
    let mut command = dumped.command("one", &["--manage-cgroups=strict"])?;
    let refused = Running::start(&mut command)?.end(LIMIT)?.must_exit(68, "crr restore --manage-cgroups=strict")?;
    ensure!(refused.stderr.contains(&*cgroup.to_string_lossy()), "{}", refused.stderr);
    ensure!(cgroups_of(&id).len() == 1, "others were made: {:?}", cgroups_of(&id));
    fs::remove_dir(&cgroup)?;
    dumped.is_clean("one")?;
    dumped.restore("one", &["--manage-cgroups=strict"])?.must_pass("crr restore --manage-cgroups=strict")?;
    dumped.output.await_numbers(2)?;
    dumped.bed.container("one").obeys_its_runtime(&dumped.output)
}
