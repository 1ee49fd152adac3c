//! Namespaces that a container shares: those that its bundle names by a path, and those that `--join-ns` names.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};

use crate::crr::{self, Running};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, Container, LIMIT};
use super::bundle::Bundle;
use super::dumps::{dump, runs_on, state_of};
use super::output::Output;
use super::round_trip::{By, dump_with, restore};
use super::runtime::Runtime::Runc11;
use super::snapshot::cgroups_of;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

/// As /proc/PID/ns has them; CRIU makes a time namespace of its own for what it restores.
const KINDS: [&str; 6] = ["ipc", "uts", "net", "mnt", "pid", "time"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("a_namespace_that_cannot_be_joined_is_refused_and_nothing_is_made", NEEDS, refused),
        test("ipc_and_uts_by_path_are_the_same_again_or_others_that_the_bundle_names", NEEDS, by_path),
        test("a_cgroup_namespace_by_path_is_refused_before_anything_changes", NEEDS, cgroup_by_path),
        test("a_container_in_the_pid_namespace_of_another_comes_back_there", NEEDS, pid_by_path),
    ];
    for kind in ["ipc", "uts", "time"] {
        trials.push(test(format!("a_clone_joins_the_{kind}_namespace_of_a_running_container"), NEEDS, || joined(kind)));
    }
    trials
}

fn namespace(container: &Container, kind: &str) -> Result<PathBuf, Failed> {
    Ok(fs::read_link(format!("/proc/{}/ns/{kind}", container.pid()?))?)
}

/// Those that two containers share.
fn shared(one: &Container, other: &Container) -> Result<Vec<&'static str>, Failed> {
    let mut shared = Vec::new();
    for kind in KINDS {
        if namespace(one, kind)? == namespace(other, kind)? {
            shared.push(kind);
        }
    }
    Ok(shared)
}

fn joined(kind: &'static str) -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    let images = bed.path("images");
    dump_with(By::Crr, &bed, &container, &images, &["--leave-running"])?;
    let pid = container.pid()?;
    let ways = [
        ("two", format!("{kind}:{}", container.id())),
        ("three", format!("{kind}:{pid}")),
        ("four", format!("{kind}:/proc/{pid}/ns/{kind}")),
    ];
    for (name, join) in ways {
        let output = Output::new()?;
        let clone = restore(By::Crr, &bed, name, &bundle, &images, &["--join-ns", &join], &output)?;
        let same = shared(&clone, &container)?;
        ensure!(same == [kind], "{join}: it shares {same:?}");
        output.await_numbers(2)?;
        clone.obeys_its_runtime(&output)?;
    }
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    container.delete()
}

fn refused() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let images = bed.path("images");
    dump_with(By::Crr, &bed, &container, &images, &["--leave-running"])?;
    let pid = container.pid()?;
    let wrong = format!("ipc:/proc/{pid}/ns/uts");
    let id = container.id();
    for (join, code, word) in [
        (format!("mnt:{id}"), 64, "mounts"),
        (format!("user:{pid},0,0"), 64, "user namespace"),
        (format!("pid:{id}"), 64, "pid:"),
        (wrong, 66, "another kind"),
        ("ipc:/dev/null".to_owned(), 66, "no namespace"),
        (format!("ipc:{}", bed.id("gone")), 64, "no container"),
    ] {
        let mut command = crr::command();
        command.args(["restore", "-d", "--stdio", "null", "--join-ns", &join, "--container", &bed.id("two")]);
        command.arg("--runtime-root").arg(bed.root()).arg("--dir").arg(&images);
        let ran = Running::start(&mut command)?.end(LIMIT)?.must_exit(code, &join)?;
        ensure!(ran.stderr.contains(word), "{join}: {}", ran.stderr);
        ensure!(!bed.root().join(bed.id("two")).exists(), "{join}: its directory is left");
        ensure!(cgroups_of(&bed.id("two")).is_empty(), "{join}: cgroups are left");
    }
    output.await_numbers(1)?;
    container.delete()
}

/// A bundle whose container has namespaces of another one.
fn borrowing(bundle: &mut Bundle, lender: &Container, kinds: &[&str]) -> Outcome {
    for kind in kinds {
        bundle.namespace(kind, Some(Path::new(&format!("/proc/{}/ns/{kind}", lender.pid()?))))?;
    }
    // A name of its own would be the other's, too.
    bundle.object("")?.remove("hostname");
    Ok(())
}

fn by_path() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let quiet = [Output::new()?, Output::new()?];
    let bundles = [bed.bundle("first")?, bed.bundle("second")?];
    let first = bed.run_on("first", &bundles[0], &quiet[0])?;
    let second = bed.run_on("second", &bundles[1], &quiet[1])?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    borrowing(&mut bundle, &first, &["ipc", "uts"])?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    let images = bed.path("images");
    dump_with(By::Crr, &bed, &container, &images, &[])?;
    let again = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    ensure!(shared(&again, &first)? == ["ipc", "uts"], "it shares {:?}", shared(&again, &first)?);
    output.await_numbers(2)?;
    again.delete()?;
    borrowing(&mut bundle, &second, &["ipc", "uts"])?;
    let moved = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    ensure!(shared(&moved, &second)? == ["ipc", "uts"], "it shares {:?}", shared(&moved, &second)?);
    output.await_numbers(2)?;
    moved.obeys_its_runtime(&output)?;
    first.delete()?;
    second.delete()
}

fn cgroup_by_path() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let lent = Output::new()?;
    let plain = bed.bundle("plain")?;
    let lender = bed.run_on("lender", &plain, &lent)?;
    lent.await_numbers(1)?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    borrowing(&mut bundle, &lender, &["cgroup"])?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let (images, state) = (bed.path("images"), state_of(&bed, &container)?);
    for more in [&[][..], &["--leave-running"]] {
        let ran = dump(&bed, &container, &images, more)?.must_exit(78, "a dump that cannot be restored")?;
        ensure!(ran.stderr.contains("cgroup namespace"), "{}", ran.stderr);
        ensure!(!images.exists(), "a directory is left");
        runs_on(&container, &output, &state, &bed)?;
    }
    // By a runtime's checkpoint, and another bundle.
    dump_with(By::Crr, &bed, &lender, &images, &[])?;
    let mut other = plain.clone();
    other.namespace("cgroup", Some(Path::new(&format!("/proc/{}/ns/cgroup", container.pid()?))))?;
    other.write()?;
    let mut command = crr::command();
    command
        .args(["restore", "-d", "--stdio", "null", "--container", &bed.id("lender"), "--runtime-root"])
        .arg(bed.root());
    command.arg("--bundle").arg(other.path()).arg("--dir").arg(&images);
    let ran = Running::start(&mut command)?.end(LIMIT)?.must_exit(66, "crr restore")?;
    ensure!(ran.stderr.contains("cgroup namespace"), "{}", ran.stderr);
    ensure!(cgroups_of(&bed.id("lender")).is_empty(), "cgroups are left");
    container.delete()
}

/// It counts without a child, whose number another container's process might have by the time of the restore.
const CHILDLESS: &str =
    "mkfifo /tmp/never; exec 3<>/tmp/never; i=0; while true; do echo $i; i=$((i + 1)); read -t 1 x <&3; done";

fn pid_by_path() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let mut bundle = bed.bundle("holder")?;
    // It takes note of the end of whatever ends in its namespace.
    bundle.shell("sleep 100000 & while true; do wait; done");
    let holder = bed.run_on("holder", &bundle, &Output::new()?)?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    borrowing(&mut bundle, &holder, &["pid"])?;
    bundle.shell(CHILDLESS);
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    let inner = |container: &Container| -> Result<String, Failed> {
        let status = fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
        let line = status.lines().find(|line| line.starts_with("NSpid:")).ok_or("no NSpid")?;
        Ok(line.split_whitespace().last().unwrap_or_default().to_owned())
    };
    let number = inner(&container)?;
    let images = bed.path("images");
    // The other's processes are in its PID namespace, and no matter of the dump.
    dump_with(By::Crr, &bed, &container, &images, &[])?;
    let again = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    ensure!(shared(&again, &holder)? == ["pid"], "it shares {:?}", shared(&again, &holder)?);
    ensure!(inner(&again)? == number, "it was {number} in there and is {}", inner(&again)?);
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    // Its number is taken now.
    let mut command = crr::command();
    command.args(["restore", "-d", "--stdio", "null", "--container", &bed.id("two"), "--runtime-root"]).arg(bed.root());
    command.arg("--bundle").arg(bundle.path()).arg("--dir").arg(&images);
    let ran = Running::start(&mut command)?.end(LIMIT)?.must_exit(83, "crr restore where the PID is taken")?;
    ensure!(
        ran.stderr.contains(&format!("PID {number}")) && ran.stderr.contains("nothing was touched"),
        "{}",
        ran.stderr
    );
    ensure!(!bed.root().join(bed.id("two")).exists() && cgroups_of(&bed.id("two")).is_empty(), "something is left");
    again.obeys_its_runtime(&output)?;
    until("the holder to run on", SOON, || holder.status().is_ok_and(|status| status == "running").then_some(()))?;
    holder.delete()
}
