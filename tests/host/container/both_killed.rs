//! crr and its CRIU are killed at the same moment, while a container is being restored: CRIU is not there to take back what it made.

use std::fs;

use libtest_mimic::{Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::crr;
use crate::kill::paused::{Kill, Paused};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::{Outcome, ensure, test, victim, world};

use super::dumped::{Dumped, journals};
use super::round_trip::By;
use super::runtime::Runtime::Runc11;
use super::snapshot::Snapshot;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

/// Its tasks are there, and wait in CRIU's restorer for a CRIU that does not come.
const BEFORE: [&str; 3] = ["post-restore", "state-written", "network-unlock"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for step in BEFORE {
        let name = format!("crr_and_criu_killed_at_{}_leave_what_the_next_run_removes", step.replace('-', "_"));
        trials.push(test(name, NEEDS, move || world::alone(move || hangs(step))));
    }
    trials.push(test("crr_and_criu_killed_at_pre_resume_leave_a_container_that_runs", NEEDS, || world::alone(runs)));
    trials
}

/// Where no other test's crr cleans up.
fn own_notes() -> Outcome {
    fs::create_dir_all("/run/crr")?;
    Ok(mount(Some("tmpfs"), "/run/crr", Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?)
}

/// What `crr check` lists. It exits as the host deserves.
fn listed() -> Result<String, Failed> {
    let report: Value = serde_json::from_str(&crr::crr(["check", "--json"])?.stdout)?;
    Ok(report["left_of_containers"].to_string())
}

fn strike(dumped: &Dumped, step: &str) -> Outcome {
    let paused = Paused::start(&mut dumped.command("one", &["--stdio", "null"])?, step)?;
    let criu = paused.criu.ok_or("crr has no CRIU")?;
    // crr stands still: it does not see that.
    kill(Pid::from_raw(criu), Signal::SIGKILL)?;
    paused.strike(Kill::Crr).map(drop)
}

fn hangs(step: &str) -> Outcome {
    own_notes()?;
    let dumped = Dumped::new(By::Runtime)?;
    let id = dumped.bed.id("one");
    let outside = Snapshot::take(dumped.bed.tag());
    strike(&dumped, step)?;
    // Of CRIU somebody has yet to take note.
    let tasks = || -> Vec<i32> {
        let all = dumped.bed.processes().into_iter();
        all.filter(|pid| !matches!(victim::state(*pid), None | Some('Z' | 'X'))).collect()
    };
    let left = tasks();
    ensure!(!left.is_empty(), "CRIU has left nothing: this shows nothing");
    ensure!(listed()?.contains(&id), "crr check does not list it: {}", listed()?);
    ensure!(tasks() == left, "crr check has changed something");
    let ran = dumped.restore("one", &[])?.must_pass("the next crr restore")?;
    ensure!(ran.stderr.contains("removed what a killed restore"), "{}", ran.stderr);
    dumped.output.await_numbers(2)?;
    dumped.output.counted_without_gap()?;
    ensure!(!tasks().iter().any(|pid| left.contains(pid)), "tasks of the killed restore are left");
    ensure!(!listed()?.contains(&id), "crr check still lists it: {}", listed()?);
    dumped.bed.container("one").obeys_its_runtime(&dumped.output)?;
    dumped.is_clean("one")?;
    outside.must_be_unchanged()
}

fn runs() -> Outcome {
    own_notes()?;
    let dumped = Dumped::new(By::Runtime)?;
    strike(&dumped, "pre-resume")?;
    let container = dumped.bed.container("one");
    container.await_status("running")?;
    ensure!(container.sh("echo $((40 + 2))")?.trim() == "42", "it cannot be entered");
    ensure!(!listed()?.contains(container.id()), "crr check lists it: {}", listed()?);
    // The next run of any kind has nothing to undo.
    crr::crr(["dump", "--container", "nobody", "--dir", "/nowhere"])?;
    ensure!(journals(container.id()).is_empty(), "the journal is left");
    container.await_status("running")?;
    container.delete()
}
