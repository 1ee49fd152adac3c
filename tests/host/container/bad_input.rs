//! What is wrong around a container: named with its cure, and nothing is changed. Beside what [`super::dumps`], [`super::restores`]
//! and [`super::namespaces`] try.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::crr::{self, Running};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, LIMIT};
use super::dumped::Dumped;
use super::dumps::dump;
use super::output::Output;
use super::round_trip::{By, restore};
use super::runtime::Runtime::Runc11;
use super::snapshot::{Snapshot, cgroups_of};

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("bad_input::a_bundle_that_is_missing_is_named_with_the_cure", NEEDS, no_bundle),
        test("bad_input::a_bundle_of_another_image_is_refused", NEEDS, other_image),
        test("bad_input::a_cgroup_that_is_gone_is_told_of_and_made_again", NEEDS, no_cgroup),
    ]
}

fn no_bundle() -> Outcome {
    let dumped = Dumped::new(By::Crr)?;
    let outside = Snapshot::take(dumped.bed.tag());
    let away = dumped.bed.path("away");
    for recorded in [false, true] {
        let bundle = if recorded { dumped.bundle.path().to_owned() } else { dumped.bed.path("nowhere") };
        let mut command = crr::command();
        command.args(["restore", "-d", "--container", &dumped.bed.id("one"), "--runtime-root"]).arg(dumped.bed.root());
        command.arg("--dir").arg(&dumped.images);
        if recorded {
            fs::rename(&bundle, &away)?;
        } else {
            command.arg("--bundle").arg(&bundle);
        }
        let ran = Running::start(&mut command)?.end(LIMIT)?.must_exit(66, "crr restore without a bundle")?;
        for word in [&*bundle.to_string_lossy(), "--bundle", "nothing was touched"] {
            ensure!(ran.stderr.contains(word), "{word} is not said: {}", ran.stderr);
        }
        if recorded {
            fs::rename(&away, &bundle)?;
        }
        dumped.is_clean("one")?;
    }
    dumped.restore("one", &[])?.must_pass("crr restore")?;
    dumped.bed.container("one").obeys_its_runtime(&dumped.output)?;
    outside.must_be_unchanged()
}

/// Of an update, say: the program is not the one whose memory is in the images.
fn other_image() -> Outcome {
    for by in [By::Crr, By::Runtime] {
        let dumped = Dumped::new(by)?;
        let other = dumped.bed.bundle("other")?;
        other.write()?;
        let program = other.inside("bin/busybox");
        let mut content = fs::read(&program)?;
        content.extend(b"of another version");
        fs::write(&program, content)?;
        let mut command = crr::command();
        command.args(["restore", "-d", "--container", &dumped.bed.id("one"), "--runtime-root"]).arg(dumped.bed.root());
        command.arg("--dir").arg(&dumped.images).arg("--bundle").arg(other.path());
        let ran = Running::start(&mut command)?.end(LIMIT)?.must_exit(68, "crr restore of another image")?;
        for word in ["/bin/busybox", "--bundle", "nothing was touched"] {
            ensure!(ran.stderr.contains(word), "{by:?}: {word} is not said: {}", ran.stderr);
        }
        dumped.is_clean("one")?;
        dumped.restore("one", &[])?.must_pass("crr restore")?;
        dumped.bed.container("one").obeys_its_runtime(&dumped.output)?;
    }
    Ok(())
}

fn no_cgroup() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let cgroups = cgroups_of(container.id());
    let of_pids =
        |path: &&std::path::PathBuf| path.join("pids.max").exists() && path.to_string_lossy().contains("/pids/");
    let gone = cgroups.iter().find(of_pids).ok_or("it has no cgroup of the pids controller")?;
    let above = gone.parent().unwrap_or(Path::new("/")).join("cgroup.procs");
    until("the cgroup to be removed", SOON, || {
        // Its shell makes children all the time.
        for pid in fs::read_to_string(gone.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&above, pid);
        }
        fs::remove_dir(gone).ok()
    })?;
    let images = bed.path("images");
    let ran = dump(&bed, &container, &images, &[])?.must_pass("crr dump")?;
    ensure!(ran.stderr.contains("is not there") && ran.stderr.contains("pids"), "{}", ran.stderr);
    ensure!(cgroups_of(container.id()).is_empty(), "cgroups are left: {:?}", cgroups_of(container.id()));
    let again = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    ensure!(cgroups_of(again.id()) == cgroups, "its cgroups are {:?}", cgroups_of(again.id()));
    again.obeys_its_runtime(&output)
}
