//! The hooks of a bundle: which crr runs, when, and what they get. Each as runc runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::crr::Running;
use crate::kill::paused::{Kill, Paused};
use crate::need::Need::{self, Busybox, Cgroup2, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test, world};

use super::bed::{Bed, LIMIT};
use super::bundle::Bundle;
use super::dumped::Dumped;
use super::dumps::command;
use super::output::Output;
use super::round_trip::{By, cgroup_mode, dump_with};
use super::runtime::Runtime::{self, Crun121, Runc11, Runc13};
use super::unified::unified;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];
const RUNC_1_3: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc13)];
const CRUN_1_21: &[Need] = &[Root, Criu, Netns, Busybox, Cgroup2, Need::Runtime(Crun121)];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("hooks_of_the_bundle_run_when_the_namespaces_are_there", NEEDS, hooks),
        test("a_hook_that_fails_leaves_no_container", NEEDS, failing_hook),
        test("poststop_hooks_run_after_a_dump_as_after_runc_1_1s_checkpoint", NEEDS, || poststop(Runc11)),
        test("poststop_hooks_run_after_a_dump_as_after_runc_1_3s_checkpoint", RUNC_1_3, || poststop(Runc13)),
        test("poststop_hooks_run_after_a_dump_as_after_cruns_checkpoint", CRUN_1_21, || unified(|| poststop(Crun121))),
        test("a_poststop_hook_that_fails_is_told_of", NEEDS, failing_poststop),
    ];
    for step in ["released", "cgroups-removed", "state-removed"] {
        let name = format!("poststop_hooks_of_a_dump_killed_at_{}_are_run_by_the_next_crr", step.replace('-', "_"));
        trials.push(test(name, NEEDS, move || world::alone(move || killed(step))));
    }
    trials
}

/// Each container of a bundle with this leaves what its poststop hook got in `poststop.state`.
fn with_poststop(bed: &Bed, bundle: &mut Bundle, status: i32) -> Outcome {
    bundle.config["hooks"]["poststop"] = hook(bed, "poststop", status)?;
    bundle.annotate("org.example.kept", "yes");
    Ok(())
}

/// What the poststop hook got, once; it is forgotten.
fn taken(bed: &Bed) -> Result<Value, Failed> {
    let kept = bed.path("poststop.state");
    let state = serde_json::from_slice(&fs::read(&kept)?)?;
    fs::remove_file(&kept)?;
    Ok(state)
}

/// By the runtime's own checkpoint first, then by crr.
fn poststop(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let mut bundle = bed.bundle("bundle")?;
    with_poststop(&bed, &mut bundle, 0)?;
    let mut states = Vec::new();
    for (by, images) in [(By::Runtime, "theirs"), (By::Crr, "ours")] {
        let output = Output::new()?;
        let container = bed.run_on("one", &bundle, &output)?;
        output.await_numbers(1)?;
        let images = bed.path(images);
        dump_with(by, &bed, &container, &images, &["--leave-running"])?;
        ensure!(!bed.path("poststop.state").exists(), "{by:?}: it ran although the container runs on");
        dump_with(by, &bed, &container, &images.with_extension("last"), &[])?;
        states.push(taken(&bed).map_err(|failed| format!("{by:?}: no hook ran: {failed:?}"))?);
    }
    let [theirs, ours] = &states[..] else { return Err("not two".into()) };
    for key in ["id", "bundle", "status", "annotations", "ociVersion", "pid"] {
        // crun keeps the dead process's number.
        let is_known = key != "pid" && (key != "annotations" || !theirs[key].is_null()) && key != "ociVersion";
        ensure!(!is_known || theirs[key] == ours[key], "{key}: {theirs} became {ours}");
    }
    ensure!(
        ours["pid"].is_null() && ours["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")),
        "{ours}"
    );
    Ok(())
}

fn failing_poststop() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    with_poststop(&bed, &mut bundle, 3)?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let ran = Running::start(&mut command(&bed, container.id(), &bed.path("images")))?.end(LIMIT)?;
    let ran = ran.must_pass("crr dump")?;
    ensure!(ran.stderr.contains("poststop.sh") && ran.stderr.contains("was asked"), "{}", ran.stderr);
    ensure!(!container.exists(), "the container is left");
    Ok(())
}

/// In a /run/crr of its own, where nobody else cleans up.
fn killed(step: &str) -> Outcome {
    fs::create_dir_all("/run/crr")?;
    mount(Some("tmpfs"), "/run/crr", Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?;
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    with_poststop(&bed, &mut bundle, 0)?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let pid = container.pid()?;
    let images = bed.path("images");
    Paused::start(&mut command(&bed, container.id(), &images), step)?.strike(Kill::Crr)?;
    until("the container to end", SOON, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()))?;
    ensure!(!bed.path("poststop.state").exists(), "it has run already");
    // Whatever the next one is about.
    let more = [cgroup_mode(Runc11), &["--container", "nobody", "--dir", "/nowhere"]].concat();
    let mut next = crate::crr::command();
    next.arg("dump").args(more);
    let said = Running::start(&mut next)?.end(LIMIT)?.stderr;
    let state = taken(&bed).map_err(|failed| format!("no hook ran: {failed:?}; {said}"))?;
    ensure!(state["id"] == container.id() && state["status"] == "stopped", "{state}");
    ensure!(!container.exists(), "the container is left");
    let entries = fs::read_dir("/run/crr")?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let notes: Vec<String> = entries.filter(|name| name.starts_with("ending-")).collect();
    ensure!(notes.is_empty(), "{notes:?} are left");
    let mut again = crate::crr::command();
    Running::start(again.args(["dump", "--container", "nobody", "--dir", "/nowhere"]))?.end(LIMIT)?;
    ensure!(!bed.path("poststop.state").exists(), "it has run twice");
    Ok(())
}

/// A program that keeps its standard input, and whether the process that it tells of is there.
fn hook(bed: &Bed, name: &str, status: i32) -> Result<Value, Failed> {
    let (script, kept) = (bed.path(&format!("{name}.sh")), bed.path(&format!("{name}.state")));
    fs::write(&script, format!("#!/bin/sh\ncat >{}\necho \"$0 was asked\" >&2\nexit {status}\n", kept.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(json!([{ "path": script, "args": [name, "more"], "env": ["PATH=/usr/bin:/bin"] }]))
}

fn hooks() -> Outcome {
    let dumped = Dumped::of(By::Runtime, |bed, bundle| {
        for name in ["prestart", "createRuntime"] {
            bundle.config["hooks"][name] = hook(bed, name, 0)?;
        }
        bundle.annotate("org.example.kept", "yes");
        Ok(())
    })?;
    let kept = |name: &str| dumped.bed.path(&format!("{name}.state"));
    for name in ["prestart", "createRuntime"] {
        fs::remove_file(kept(name))?;
    }
    dumped.restore("one", &[])?.must_pass("crr restore")?;
    let container = dumped.bed.container("one");
    for name in ["prestart", "createRuntime"] {
        let state: Value = serde_json::from_slice(&fs::read(kept(name))?)?;
        ensure!(state["id"] == container.id(), "{name}: {state}");
        ensure!(state["pid"] == container.pid()?, "{name}: {state}");
        ensure!(state["bundle"] == json!(dumped.bundle.path()), "{name}: {state}");
        ensure!(state["annotations"]["org.example.kept"] == "yes", "{name}: {state}");
    }
    container.obeys_its_runtime(&dumped.output)
}

fn failing_hook() -> Outcome {
    let mut dumped = Dumped::new(By::Runtime)?;
    dumped.bundle.config["hooks"]["createRuntime"] = hook(&dumped.bed, "failing", 3)?;
    let said = dumped.refuses(&[], 71)?;
    ensure!(said.contains("failing.sh") && said.contains("was asked"), "{said}");
    ensure!(dumped.bed.path("failing.state").exists(), "it did not run");
    Ok(())
}
