//! Several containers by one command.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr;
use crate::kill::paused::{KILLED, children};
use crate::need::Need::{self, Busybox, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test, victim};

use super::bed::{Bed, LIMIT};
use super::dumped::journals;
use super::output::Output;
use super::runtime::Runtime;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Need::Runtime(Runtime::Runc11)];

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("several_containers_are_dumped_and_restored_by_one_command_each", NEEDS, several),
        test("a_crr_that_restores_several_and_is_killed_leaves_nothing_of_its_own", NEEDS, killed),
    ]
}

/// Containers that count, dumped to a directory each below this one.
fn dumped(bed: &Bed, names: &[&str]) -> Result<PathBuf, Failed> {
    let images = bed.path("images");
    for name in names {
        let (bundle, output) = (bed.bundle(&format!("bundle.{name}"))?, Output::new()?);
        bed.run_on(name, &bundle, &output)?;
        output.await_numbers(2)?;
    }
    let mut command = crr::command();
    command.args(["dump", "--jobs", "2", "--runtime-root"]).arg(bed.root()).arg("--dir").arg(&images);
    let ran = crr::Running::start(command.args(named(bed, names)))?.end(LIMIT)?;
    ran.must_pass(&format!("crr dump of {} containers", names.len()))?;
    ensure!(bed.list()?.iter().all(|id| !id.ends_with(bed.tag())), "dumped containers are still there");
    Ok(images)
}

/// `--container` for each.
fn named(bed: &Bed, names: &[&str]) -> Vec<String> {
    names.iter().flat_map(|name| ["--container".to_owned(), bed.id(name)]).collect()
}

/// The restores of single containers go on, and nothing tells that there was one who had begun them.
fn killed() -> Outcome {
    let bed = Bed::new(Runtime::Runc11)?;
    let names = ["one", "two"];
    let images = dumped(&bed, &names)?;
    let scratch = bed.path("scratch");
    fs::create_dir(&scratch)?;
    let mut command = crr::command();
    command.args(["restore", "-d", "--jobs", "2", "--stdio", "null", "--runtime-root"]).arg(bed.root());
    // Each of the two stands still on its way.
    command.env("TMPDIR", &scratch).env("CRR_TEST_PAUSE_AT", "post-restore");
    let crr = crr::Running::start(command.arg("--dir").arg(&images).args(named(&bed, &names)))?;
    let single = until("both to stand still", SOON, || {
        let children = children(crr.pid());
        (children.len() == 2 && children.iter().all(|pid| victim::state(*pid) == Some('T'))).then_some(children)
    })?;
    // First: the kernel hangs up on a stopped group whose last parent outside of it ends.
    for pid in single {
        kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    }
    kill(Pid::from_raw(crr.pid()), Signal::SIGKILL)?;
    crr.end(LIMIT)?.must_exit(KILLED, "crr restore of two containers")?;
    for name in names {
        let container = bed.container(name);
        until(format_args!("{name} to be restored"), SOON, || container.exists().then_some(()))?;
        container.await_status("running")?;
        until("its journal to be gone", SOON, || journals(container.id()).is_empty().then_some(()))?;
        container.delete()?;
    }
    let left: Vec<_> = fs::read_dir(&scratch)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "{left:?} is left");
    Ok(())
}

fn several() -> Outcome {
    let bed = Bed::new(Runtime::Runc11)?;
    let names = ["one", "two", "three"];
    let images = dumped(&bed, &names)?;

    // One of them cannot be restored: the others are all the same.
    let (broken, aside) = (images.join(bed.id("two")).join("pstree.img"), bed.path("pstree.img"));
    fs::rename(&broken, &aside)?;
    let output = Output::new()?;
    let mut command = crr::command();
    // In one word with another option.
    command.args(["restore", "--jobs", "2", "--runtime-root"]).arg(bed.root()).arg(format!("-dD{}", images.display()));
    let ran = output
        .run(command.args(named(&bed, &names)), LIMIT)?
        .must_exit(65, "crr restore of three containers, one broken")?;
    // Its standard output is that of the containers.
    let said = output.text();
    let line = |name: &str| said.lines().find(|line| line.trim_start().starts_with(&bed.id(name)));
    for (name, fails) in [("one", false), ("two", true), ("three", false)] {
        let line = line(name).ok_or_else(|| format!("{name} is not in the table: {said}{}", ran.stderr))?;
        ensure!(line.contains("exit status 65") == fails, "{line}");
        ensure!(bed.container(name).exists() != fails, "{name}: {line}");
        ensure!(fails || line.contains(&bed.container(name).pid()?.to_string()), "its PID is not told: {line}");
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
