//! Containers in which processes are made and end all the time: CRIU cannot take hold of them unless their cgroup is frozen.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::crr::Running;
use crate::kill::frozen::{Cage, Version, no_guard};
use crate::kill::paused::{KILLED, Kill, Paused};
use crate::need::Need::{self, Busybox, Cc, Cgroup2, Cgroups, Criu, Netns, Root};
use crate::rounds::rounds;
use crate::until::until;
use crate::{Outcome, crr, ensure, programs, test};

use super::bed::{Bed, Container, LIMIT};
use super::bundle::Bundle;
use super::output::Output;
use super::round_trip::{By, restore};
use super::runtime::Runtime::{self, Crun121, Runc11};
use super::snapshot::cgroups_of;
use super::unified::unified;

const RUNC: &[Need] = &[Root, Criu, Netns, Busybox, Cc, Cgroups, Need::Runtime(Runc11)];
const CRUN: &[Need] = &[Root, Criu, Netns, Busybox, Cc, Cgroup2, Need::Runtime(Crun121)];

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_container_of_runc_1_1_that_forks_wildly_is_dumped_and_restored", RUNC, || passes(Runc11)),
        test("a_container_of_crun_1_21_that_forks_wildly_is_dumped_and_restored", CRUN, || unified(|| passes(Crun121))),
        test("a_container_of_runc_1_1_that_was_frozen_runs_on_when_crr_or_criu_is_killed", RUNC, || struck(Runc11)),
        test("a_container_of_crun_1_21_that_was_frozen_runs_on_when_crr_or_criu_is_killed", CRUN, || {
            unified(|| struck(Crun121))
        }),
    ]
}

/// A bundle whose container has eight chains of processes, each of which makes the next and ends, and counts.
fn wild(bed: &Bed) -> Result<Bundle, Failed> {
    let mut bundle = bed.bundle("bundle")?;
    bundle.install(&programs::program_with("wild", &["-static"])?, "/bin/wild")?;
    bundle.command(&["/bin/wild", "8", "numbers"]);
    Ok(bundle)
}

fn dump(bed: &Bed, container: &Container, more: &[&str]) -> Command {
    let mut command = crr::command();
    command.args(["--json", "dump", "--container", container.id(), "--runtime-root"]).arg(bed.root());
    command.arg("--dir").arg(bed.path("images")).args(more);
    command
}

/// The cgroup by which it is frozen.
fn cage(bed: &Bed, container: &Container) -> Result<Cage, Failed> {
    let version = if bed.runtime().is_crun() { Version::V2 } else { Version::V1 };
    let file = if version == Version::V1 { "freezer.state" } else { "cgroup.freeze" };
    let found = cgroups_of(container.id()).into_iter().find(|directory| directory.join(file).exists());
    Ok(Cage::of(found.ok_or("no cgroup that can be frozen")?, version))
}

fn passes(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let output = Output::new()?;
    let bundle = wild(&bed)?;
    let container = bed.run_on("wild", &bundle, &output)?;
    output.await_numbers(2)?;
    let cage = cage(&bed, &container)?;
    let mut repeated = 0;
    for _ in 0..rounds(5) {
        let ran =
            Running::start(&mut dump(&bed, &container, &["--leave-running"]))?.end(LIMIT)?.must_pass("crr dump")?;
        let report: Value = serde_json::from_str(&ran.stdout)?;
        repeated += usize::from(report["attempts"] == 2);
        ensure!(!cage.is_frozen(), "it is left frozen");
        output.await_numbers(2)?;
        no_guard(&bed.path("images"))?;
        std::fs::remove_dir_all(bed.path("images"))?;
    }
    ensure!(repeated > 0, "CRIU caught up with it each time: is it wild?");
    Running::start(&mut dump(&bed, &container, &[]))?.end(LIMIT)?.must_pass("crr dump")?;
    ensure!(!container.exists(), "a dumped container is still known");
    let counted = output.numbers().len();
    restore(By::Crr, &bed, "wild", &bundle, &bed.path("images"), &[], &output)?;
    output.await_numbers(3)?;
    ensure!(output.numbers().len() > counted, "it stands still");
    output.counted_without_gap()
}

fn struck(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let output = Output::new()?;
    let bundle = wild(&bed)?;
    let container = bed.run_on("wild", &bundle, &output)?;
    let cage = cage(&bed, &container)?;
    for step in ["frozen", "query-ext-files", "post-dump", "record-written", "renamed"] {
        for strike in ["crr", "its process group", "CRIU"] {
            let at = |failed: Failed| format!("{strike} at {step}: {}", failed.message().unwrap_or_default());
            output.await_numbers(2).map_err(at)?;
            strike_at(&bed, &container, &cage, &output, step, strike).map_err(at)?;
            for name in ["images", "images.partial"] {
                if bed.path(name).exists() {
                    std::fs::remove_dir_all(bed.path(name))?;
                }
            }
        }
    }
    output.counted_without_gap()?;
    ensure!(container.status()? == "running", "it is {}", container.status()?);
    Ok(())
}

fn strike_at(bed: &Bed, container: &Container, cage: &Cage, output: &Output, step: &str, strike: &str) -> Outcome {
    // Where crr sees it, in whose mount namespace the unified hierarchy may have another place.
    let below: PathBuf =
        cage.directory().components().skip_while(|part| part.as_os_str() != "cgroup").skip(2).collect();
    let hierarchy = Path::new("/sys/fs/cgroup").join(if bed.runtime().is_crun() { "" } else { "freezer" });
    let place = hierarchy.join(below);
    // Now and then CRIU catches up with it unless told.
    let told = ["--freeze-cgroup", place.to_str().ok_or("no UTF-8")?];
    let paused = Paused::start(&mut dump(bed, container, &told), step)?;
    let crr = Pid::from_raw(paused.pid());
    ensure!(step != "frozen" || cage.is_frozen(), "it is not frozen");
    match strike {
        "crr" => kill(crr, Signal::SIGKILL)?,
        "its process group" => killpg(crr, Signal::SIGKILL)?,
        _ => {
            kill(Pid::from_raw(paused.criu.ok_or("no CRIU")?), Signal::SIGKILL)?;
            kill(crr, Signal::SIGCONT)?;
        }
    }
    let before = output.numbers().len();
    until("it to be thawed and to count", SECOND, || {
        (!cage.is_frozen() && output.numbers().len() > before).then_some(())
    })?;
    if strike == "CRIU" {
        // Of tasks that end all the time crr cannot say, once it has told CRIU to end them, that CRIU did not.
        let ran = paused.go_on()?;
        let may_be_unsure = ran.code == 90 && !["frozen", "query-ext-files"].contains(&step);
        ensure!(ran.code == 76 || may_be_unsure, "a dump whose CRIU was killed: {ran:?}");
    } else {
        paused.strike(Kill::Crr)?.must_exit(KILLED, "a killed crr")?;
    }
    ensure!(!cage.is_frozen(), "it is frozen again");
    no_guard(&bed.path("images"))
}
