//! A dump and a restore of a container, each by crr or by its runtime, in any pairing.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;

use crate::crr::{self, Running};
use crate::state::State;
use crate::{Outcome, ensure};

use super::bed::{Bed, Container, LIMIT};
use super::bundle::Bundle;
use super::output::Output;
use super::runtime::Runtime;
use super::situation::Situation;
use super::snapshot::{Snapshot, differences, settings_of};

/// Who dumps or restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Crr,
    Runtime,
}

/// Dumps a container, which ends it.
pub(crate) fn dump(by: By, bed: &Bed, container: &Container, images: &Path) -> Result<(), Failed> {
    dump_with(by, bed, container, images, &[])
}

/// As [`dump`], with options that crr and the runtimes share.
pub(crate) fn dump_with(by: By, bed: &Bed, container: &Container, images: &Path, more: &[&str]) -> Result<(), Failed> {
    match by {
        By::Crr => {
            let mut command = crr::command();
            command.args(["dump", "--container", container.id(), "--runtime-root"]).arg(bed.root());
            Running::start(command.args(cgroup_mode(bed.runtime())).args(more).arg("--dir").arg(images))?
                .end(LIMIT)?
                .must_pass("crr dump")?;
        }
        By::Runtime => {
            container.checkpoint(images, &[cgroup_mode(bed.runtime()), more].concat())?;
            make_readable(images)?;
        }
    }
    Ok(())
}

/// Within a user namespace CRIU reads images as its root, who may not look into a directory of the host's. crr sees to that
/// when it dumps.
fn make_readable(images: &Path) -> Result<(), Failed> {
    Command::new("chmod").args(["-R", "a+rX"]).arg(images).status()?;
    Ok(())
}

/// Restores it under a name, its output going where the output of the one before went.
pub(crate) fn restore<'a>(
    by: By,
    bed: &'a Bed,
    name: &str,
    bundle: &Bundle,
    images: &Path,
    more: &[&str],
    output: &Output,
) -> Result<Container<'a>, Failed> {
    if by == By::Runtime {
        return bed.restore(name, bundle, images, &[cgroup_mode(bed.runtime()), more].concat(), output);
    }
    bundle.write()?;
    let mut command = crr::command();
    command.args(["restore", "-d", "--container", &bed.id(name), "--runtime-root"]).arg(bed.root());
    command.arg("--bundle").arg(bundle.path()).arg("--dir").arg(images).args(more);
    output.run(&mut command, LIMIT)?.must_pass("crr restore")?;
    Ok(bed.container(name))
}

/// The situation is as it was after a dump and a restore, and nothing else is.
pub(crate) fn keeps(situation: Situation, runtime: Runtime, [dumper, restorer]: [By; 2]) -> Outcome {
    let bed = Bed::new(runtime)?;
    let outside = Snapshot::take(bed.tag());
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    (situation.prepare)(&bed, &mut bundle)?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    (situation.arrange)(&container)?;
    (situation.check)(&bed, &container)?;
    let before = State::of(&[container.pid()?]);
    let settings = settings_of(bed.tag());
    let images = bed.path("images");
    dump(dumper, &bed, &container, &images)?;
    (situation.between)(&bundle)?;
    let restored = restore(restorer, &bed, "one", &bundle, &images, &[], &output)?;
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    (situation.check)(&bed, &restored)?;
    let mut lost = before.lost(&State::of(&[restored.pid()?]));
    // The shell's children and its pipes to them come and go all the time; while it starts one it blocks every signal.
    lost.retain(|line| !line.contains("Pnd:") && !line.contains("pipe") && !line.contains("fffffffffffbfeff"));
    ensure!(lost.is_empty(), "{lost:#?}");
    let lost = differences(&settings, &settings_of(bed.tag()));
    ensure!(lost.is_empty(), "{lost:#?}");
    restored.obeys_its_runtime(&output)?;
    outside.must_be_unchanged()
}

/// crun has CRIU restore all cgroups by default, also those of the hybrid layout's hierarchies, which it knows nothing of: a
/// new cpuset with the root's `cpu_exclusive` is refused as soon as any other one is there.
pub(crate) fn cgroup_mode(runtime: Runtime) -> &'static [&'static str] {
    if runtime.is_crun() { &["--manage-cgroups-mode=ignore"] } else { &[] }
}
