//! Several containers by one command.

use std::fs;

use libtest_mimic::Trial;

use crate::crr;
use crate::need::Need::{self, Busybox, Criu, Netns, Root};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, LIMIT};
use super::output::Output;
use super::runtime::Runtime;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Need::Runtime(Runtime::Runc11)];

pub(super) fn trials() -> Vec<Trial> {
    vec![test("several_containers_are_dumped_and_restored_by_one_command_each", NEEDS, several)]
}

fn several() -> Outcome {
    let bed = Bed::new(Runtime::Runc11)?;
    let mut outputs = Vec::new();
    for name in ["one", "two", "three"] {
        let (bundle, output) = (bed.bundle(&format!("bundle.{name}"))?, Output::new()?);
        bed.run_on(name, &bundle, &output)?;
        output.await_numbers(2)?;
        outputs.push(output);
    }
    let images = bed.path("images");
    let named = || ["one", "two", "three"].map(|name| ["--container".to_owned(), bed.id(name)]).concat();
    let mut command = crr::command();
    command.args(["dump", "--jobs", "2", "--runtime-root"]).arg(bed.root()).arg("--dir").arg(&images).args(named());
    crr::Running::start(&mut command)?.end(LIMIT)?.must_pass("crr dump of three containers")?;
    ensure!(bed.list()?.iter().all(|id| !id.ends_with(bed.tag())), "dumped containers are still there");

    // One of them cannot be restored: the others are all the same.
    let (broken, aside) = (images.join(bed.id("two")).join("pstree.img"), bed.path("pstree.img"));
    fs::rename(&broken, &aside)?;
    let output = Output::new()?;
    let mut command = crr::command();
    command.args(["restore", "-d", "--jobs", "2", "--runtime-root"]).arg(bed.root()).arg("--dir").arg(&images);
    let ran = output.run(command.args(named()), LIMIT)?.must_exit(65, "crr restore of three containers, one broken")?;
    // Its standard output is that of the containers.
    let said = output.text();
    let line = |name: &str| said.lines().find(|line| line.trim_start().starts_with(&bed.id(name)));
    for (name, fails) in [("one", false), ("two", true), ("three", false)] {
        let line = line(name).ok_or_else(|| format!("{name} is not in the table: {said}{}", ran.stderr))?;
        ensure!(line.contains("exit status 65") == fails, "{line}");
        ensure!(bed.container(name).exists() != fails, "{name}: {line}");
    }
    fs::rename(&aside, &broken)?;
    let mut command = crr::command();
    command.args(["restore", "-d", "--runtime-root"]).arg(bed.root()).arg("--container").arg(bed.id("two"));
    let other = Output::new()?;
    other.run(command.arg("--dir").arg(images.join(bed.id("two"))), LIMIT)?.must_pass("crr restore of the third")?;
    other.await_numbers(2)?;
    for name in ["one", "three"] {
        bed.container(name).await_status("running")?;
    }
    output.await_numbers(4)
}
