//! What the runtimes do on their own, without crr: the tests of the bed, and the facts that crr builds on.

use std::path::Path;

use libtest_mimic::Trial;

use crate::need::Need::{self, Busybox, Cgroup2, Cgroups, Criu, Netns, Root};
use crate::{Outcome, ensure, test};

use super::bed::Bed;
use super::bundle::counter;
use super::console::Console;
use super::output::{Output, null_streams};
use super::round_trip::cgroup_mode;
use super::runtime::Runtime::{self, Crun121, Crun128, Runc11, Runc13};
use super::snapshot::Snapshot;
use super::unified::{CRUN_ROOT, unified};

const RUNC_1_1: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];
const RUNC_1_3: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc13)];
const CRUN_1_21: &[Need] = &[Root, Criu, Netns, Busybox, Cgroup2, Need::Runtime(Crun121)];
const CRUN_1_28: &[Need] = &[Root, Criu, Netns, Busybox, Cgroup2, Need::Runtime(Crun128)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("runc_1_1_restores_its_own_checkpoint", RUNC_1_1, || round_trip(Runc11)),
        test("runc_1_3_restores_its_own_checkpoint", RUNC_1_3, || round_trip(Runc13)),
        test("runc_1_3_in_a_unified_hierarchy_restores_its_own_checkpoint", RUNC_1_3, || {
            unified(|| round_trip(Runc13))
        }),
        test("crun_1_21_restores_its_own_checkpoint", CRUN_1_21, || unified(|| round_trip(Crun121))),
        test("runc_1_1_restores_a_container_on_a_terminal", RUNC_1_1, terminal),
        test("crun_1_28_restores_its_own_checkpoint_below_its_default_root", CRUN_1_28, || {
            unified(|| round_trip(Crun128))
        }),
        test("crun_1_28_cannot_restore_a_checkpoint_below_another_root", CRUN_1_28, || unified(crun_1_28)),
    ]
}

fn round_trip(runtime: Runtime) -> Outcome {
    let bed = Bed::with_root(runtime, (runtime == Crun128).then_some(Path::new(CRUN_ROOT)))?;
    let before = Snapshot::take(bed.tag());
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.shell(&counter("0.1"));
    let container = bed.run_on("counter", &bundle, &output)?;
    output.await_numbers(3)?;
    let images = bed.path("images");
    container.checkpoint(&images, cgroup_mode(runtime))?;
    ensure!(!container.exists(), "a checkpointed container is still known");
    let counted = output.numbers().len();
    let restored = bed.restore("counter", &bundle, &images, cgroup_mode(runtime), &output)?;
    output.await_numbers(3)?;
    ensure!(output.numbers().len() > counted, "it stands still");
    output.counted_without_gap()?;
    restored.obeys_its_runtime(&output)?;
    ensure!(bed.mounts().is_empty(), "mounts are left: {:?}", bed.mounts());
    before.must_be_unchanged()
}

fn terminal() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let console = Console::listen(bed.path("console"))?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.config["process"]["terminal"] = true.into();
    bundle.command(&["/bin/sh"]);
    let socket = ["--console-socket", console.path().to_str().ok_or("no UTF-8")?];
    let container = bed.launch("run", "shell", &bundle, &[&["-d"], &socket[..]].concat(), null_streams())?;
    console.await_terminals(1)?;
    console.answers("kept=here; echo $((40 + 2))", "42")?;
    let images = bed.path("images");
    container.checkpoint(&images, &["--shell-job"])?;
    let output = Output::new()?;
    bed.restore("shell", &bundle, &images, &[&["--shell-job"], &socket[..]].concat(), &output)?;
    console.await_terminals(2)?;
    console.answers("echo \"still $kept\"", "still here")
}

/// It registers the directory that it masks directories with as that of its default root, and looks for it below the one that
/// it was given. Kept as a test so that its end is noticed.
fn crun_1_28() -> Outcome {
    let bed = Bed::new(Crun128)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("counter", &bundle, &output)?;
    output.await_numbers(3)?;
    let images = bed.path("images");
    container.checkpoint(&images, cgroup_mode(Crun128))?;
    match bed.restore("counter", &bundle, &images, cgroup_mode(Crun128), &output) {
        Ok(_) => Err("it restores its own checkpoint".into()),
        Err(failed) if failed.message().unwrap_or_default().contains("mnt: No mapping for") => Ok(()),
        Err(failed) => Err(failed),
    }
}
