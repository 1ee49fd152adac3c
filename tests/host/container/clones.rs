//! Containers that live beside the one that was dumped.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};

use crate::crr;
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, Container};
use super::output::Output;
use super::round_trip::{By, dump_with, restore};
use super::runtime::Runtime::Runc11;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("clones_of_a_running_container_share_nothing_that_they_write", NEEDS, clones),
        test("a_clone_of_a_clone_has_what_the_first_wrote_and_writes_for_itself", NEEDS, clone_of_a_clone),
        test("a_clone_that_was_dumped_comes_back_with_what_it_wrote", NEEDS, clone_again),
    ]
}

/// `crr rm --container`.
fn remove(bed: &Bed, id: &str) -> Result<crr::Ran, Failed> {
    crr::crr(["rm", "--container", id, "--runtime-root", bed.root().to_str().ok_or("no UTF-8")?])
}

/// The directories of a container's clones.
fn directories(id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/var/lib/crr/clones").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(id)).collect()
}

fn clones() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let original = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    original.sh("echo original >/root/note")?;
    let images = bed.path("images");
    dump_with(By::Crr, &bed, &original, &images, &["--leave-running"])?;
    let outputs = [Output::new()?, Output::new()?, Output::new()?];
    let clones: Vec<Container> = [("two", None), ("three", None), ("four", Some("copy"))]
        .into_iter()
        .zip(&outputs)
        .map(|((name, how), output)| {
            let more: Vec<&str> = how.into_iter().flat_map(|how| ["--rootfs", how]).collect();
            restore(By::Crr, &bed, name, &bundle, &images, &more, output)
        })
        .collect::<Result<_, Failed>>()?;
    for (clone, output) in clones.iter().zip(&outputs) {
        output.await_numbers(2)?;
        ensure!(clone.sh("cat /root/note")?.trim() == "original", "a clone has lost what was there");
        clone.sh(&format!("echo {} >/root/note; echo x >/root/{}", clone.id(), clone.id()))?;
    }
    for clone in &clones {
        ensure!(clone.sh("cat /root/note")?.trim() == clone.id(), "clones share their root file system");
        ensure!(clone.sh("ls /root")?.lines().count() == 2, "a clone sees what another wrote");
        let network =
            |container: &Container| Ok::<_, Failed>(fs::read_link(format!("/proc/{}/ns/net", container.pid()?))?);
        ensure!(network(clone)? != network(&original)?, "a clone shares the network");
    }
    ensure!(original.sh("cat /root/note; ls /root")? == "original\nnote\n", "a clone wrote into the original");
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    for (clone, output) in clones.into_iter().zip(&outputs) {
        let id = clone.id().to_owned();
        clone.obeys_its_runtime(output)?;
        remove(&bed, &id)?.must_pass("crr rm --container")?;
        ensure!(directories(&id).is_empty(), "the directory of the clone is left");
    }
    original.obeys_its_runtime(&output)
}

/// The first clone removes, replaces and makes; the second has all of that, and nothing that either writes later is the other's.
fn clone_of_a_clone() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let outputs = [Output::new()?, Output::new()?, Output::new()?];
    let bundle = bed.bundle("bundle")?;
    fs::create_dir_all(bundle.inside("srv/gone"))?;
    fs::write(bundle.inside("srv/gone/file"), "of the bundle")?;
    fs::create_dir_all(bundle.inside("srv/replaced"))?;
    fs::write(bundle.inside("srv/replaced/old"), "of the bundle")?;
    let original = bed.run_on("one", &bundle, &outputs[0])?;
    outputs[0].await_numbers(2)?;
    let (first_images, second_images) = (bed.path("first"), bed.path("second"));
    dump_with(By::Crr, &bed, &original, &first_images, &["--leave-running"])?;
    let first = restore(By::Crr, &bed, "two", &bundle, &first_images, &[], &outputs[1])?;
    outputs[1].await_numbers(2)?;
    // A removed and a replaced directory are told by an overlay in ways of its own.
    first.sh(
        "rm -r /srv/gone /srv/replaced; mkdir /srv/replaced; echo new >/srv/replaced/new; chmod 641 /srv/replaced/new",
    )?;
    dump_with(By::Crr, &bed, &first, &second_images, &["--leave-running"])?;
    let mut command = crr::command();
    command.args(["restore", "-d", "--container", &bed.id("three"), "--runtime-root"]).arg(bed.root());
    outputs[2].run(command.arg("--dir").arg(&second_images), super::bed::LIMIT)?.must_pass("crr restore")?;
    let second = bed.container("three");
    outputs[2].await_numbers(2)?;
    outputs[2].counted_without_gap()?;
    let seen = second.sh("ls /srv /srv/replaced; stat -c %a /srv/replaced/new; cat /srv/replaced/new")?;
    ensure!(seen == "/srv:\nreplaced\n\n/srv/replaced:\nnew\n641\nnew\n", "{seen}");
    second.sh("echo second >/srv/replaced/new; touch /srv/second")?;
    first.sh("echo first >/srv/replaced/new; touch /srv/first")?;
    ensure!(second.sh("cat /srv/replaced/new; ls /srv")? == "second\nreplaced\nsecond\n", "the first writes for both");
    ensure!(first.sh("cat /srv/replaced/new; ls /srv")? == "first\nfirst\nreplaced\n", "the second writes for both");
    ensure!(original.sh("ls /srv")? == "gone\nreplaced\n", "a clone wrote into the original");
    for (container, output) in [second, first].into_iter().zip([&outputs[2], &outputs[1]]) {
        let id = container.id().to_owned();
        container.obeys_its_runtime(output)?;
        remove(&bed, &id)?.must_pass("crr rm --container")?;
        ensure!(directories(&id).is_empty(), "the directory of the clone is left");
    }
    original.obeys_its_runtime(&outputs[0])
}

/// Under its name, and then under another, where its directory is the other's, too.
fn clone_again() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let outputs = [Output::new()?, Output::new()?];
    let bundle = bed.bundle("bundle")?;
    let original = bed.run_on("one", &bundle, &outputs[0])?;
    outputs[0].await_numbers(2)?;
    let images = ["first", "second", "third"].map(|name| bed.path(name));
    dump_with(By::Crr, &bed, &original, &images[0], &["--leave-running"])?;
    let clone = restore(By::Crr, &bed, "two", &bundle, &images[0], &[], &outputs[1])?;
    clone.sh("echo kept >/root/note")?;
    let again = |name: &str, images: &PathBuf| -> Outcome {
        let mut command = crr::command();
        command.args(["restore", "-d", "--container", &bed.id(name), "--runtime-root"]).arg(bed.root());
        outputs[1].run(command.arg("--dir").arg(images), super::bed::LIMIT)?.must_pass("crr restore of a clone")?;
        outputs[1].await_numbers(2)?;
        outputs[1].counted_without_gap()?;
        ensure!(bed.container(name).sh("cat /root/note")? == "kept\n", "what the clone wrote is lost");
        Ok(())
    };
    dump_with(By::Crr, &bed, &clone, &images[1], &[])?;
    again("two", &images[1])?;
    dump_with(By::Crr, &bed, &bed.container("two"), &images[2], &[])?;
    again("three", &images[2])?;
    let refused = remove(&bed, &bed.id("two"))?;
    ensure!(!refused.passed() && refused.stderr.contains(&bed.id("three")), "{}", refused.stderr);
    ensure!(bed.container("three").sh("cat /root/note")? == "kept\n", "what it wrote is gone");
    bed.container("three").obeys_its_runtime(&outputs[1])?;
    remove(&bed, &bed.id("two"))?.must_pass("crr rm --container")?;
    original.delete()
}
