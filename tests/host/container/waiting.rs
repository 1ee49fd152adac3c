//! `crr restore --container --wait`: begun while the container runs yet.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::{self, Running};
use crate::kill::paused::{KILLED, Kill, Paused, children};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::waiting::criu_of;
use crate::{Outcome, ensure, test};

use super::bed::{Bed, Container, LIMIT};
use super::bundle::Bundle;
use super::dumped::journals;
use super::output::Output;
use super::restores::UNDONE;
use super::round_trip::{By, dump_with};
use super::runtime::Runtime::Runc11;
use super::snapshot::{Snapshot, cgroups_of};

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("a_container_that_is_waited_for_goes_on_where_its_dump_ended", NEEDS, || goes_on(&[])),
        test("a_container_that_is_waited_for_goes_on_with_images_of_crr", NEEDS, || goes_on(&["--images", "crr"])),
        test("a_container_is_waited_for_as_one_of_another_name", NEEDS, other_name),
        test("a_container_is_waited_for_with_streams_that_lead_nowhere", NEEDS, null_streams),
        test("a_wait_for_a_container_that_is_ended_leaves_nothing", NEEDS, ended),
        test("a_wait_for_a_container_whose_criu_is_killed_starts_another", NEEDS, criu_killed),
        test("a_wait_for_a_dump_of_a_container_that_fails_says_so", NEEDS, dump_fails),
        test("of_two_that_wait_for_a_container_one_restores_it", NEEDS, two),
        test("a_container_that_lives_on_beside_its_checkpoint_is_left_alone", NEEDS, lives_on),
        test("a_killed_wait_beside_a_killed_dump_leaves_the_container_alone", NEEDS, both_killed),
    ];
    for step in UNDONE {
        trials.push(test(format!("a_wait_killed_at_{step}_leaves_nothing_after_the_next_run"), NEEDS, || killed(step)));
    }
    trials
}

/// A counter that runs.
struct Counter {
    bed: Bed,
    bundle: Bundle,
    output: Output,
    images: PathBuf,
}

impl Counter {
    fn new() -> Result<Self, Failed> {
        let bed = Bed::new(Runc11)?;
        let (output, bundle) = (Output::new()?, bed.bundle("bundle")?);
        bed.run_on("one", &bundle, &output)?;
        output.await_numbers(2)?;
        let images = bed.path("images");
        Ok(Self { bed, bundle, output, images })
    }

    fn container(&self) -> Container<'_> {
        self.bed.container("one")
    }

    fn restore(&self, name: &str, more: &[&str]) -> Command {
        let mut command = crr::command();
        command.args(["restore", "-d", "--container", &self.bed.id(name), "--runtime-root"]).arg(self.bed.root());
        command.arg("--dir").arg(&self.images).args(more);
        command
    }

    /// A restore whose output is the container's.
    fn wait(&self, name: &str, more: &[&str]) -> Result<Waiter, Failed> {
        let [input, output, errors] = self.output.streams()?;
        let mut command = self.restore(name, &[&["--wait=60"], more].concat());
        let waiter = Waiter(command.stdin(input).stdout(output).stderr(errors).spawn()?);
        until("CRIU to be started", SOON, || children(waiter.pid()).first().copied())?;
        Ok(waiter)
    }

    fn dump(&self, more: &[&str]) -> Outcome {
        dump_with(By::Crr, &self.bed, &self.container(), &self.images, more)
    }

    fn dump_command(&self) -> Command {
        let mut command = crr::command();
        command.args(["dump", "--container", &self.bed.id("one"), "--runtime-root"]).arg(self.bed.root());
        command.arg("--dir").arg(&self.images);
        command
    }

    /// It counts on, and nobody has ended it meanwhile.
    fn counts_on(&self) -> Outcome {
        self.output.await_numbers(2)?;
        self.output.counted_without_gap()
    }

    fn is_clean(&self) -> Outcome {
        let id = self.bed.id("one");
        ensure!(!self.bed.root().join(&id).exists(), "its directory is left");
        ensure!(cgroups_of(&id).is_empty(), "cgroups are left: {:?}", cgroups_of(&id));
        ensure!(self.bed.mounts().is_empty(), "mounts are left: {:?}", self.bed.mounts());
        until("the processes to be gone", SOON, || self.bed.processes().is_empty().then_some(()))?;
        ensure!(journals(&id).is_empty(), "a journal is left: {:?}", journals(&id));
        Ok(())
    }
}

/// A crr that waits.
struct Waiter(Child);

impl Waiter {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap_or(i32::MAX)
    }

    fn code(&mut self) -> Result<Option<i32>, Failed> {
        Ok(until("the end of crr restore --wait", LIMIT, || self.0.try_wait().ok().flatten())?.code())
    }

    fn passes(mut self, output: &Output) -> Outcome {
        let code = self.code()?;
        ensure!(code == Some(0), "crr restore --wait: exit status {code:?}: {}", output.errors());
        Ok(())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// What descriptors its first process has.
fn descriptors(container: &Container) -> Result<Vec<String>, Failed> {
    let entries = fs::read_dir(format!("/proc/{}/fd", container.pid()?))?;
    let mut all: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    Ok(all)
}

fn goes_on(more: &[&str]) -> Outcome {
    let counter = Counter::new()?;
    let outside = Snapshot::take(counter.bed.tag());
    let before = descriptors(&counter.container())?;
    let waiter = counter.wait("one", &[])?;
    // Nothing of what it makes ready is seen outside of it.
    ensure!(counter.bed.mounts().is_empty(), "it has mounted {:?}", counter.bed.mounts());
    counter.counts_on()?;
    counter.dump(more)?;
    waiter.passes(&counter.output)?;
    counter.counts_on()?;
    // The shell has a pipe open now and then.
    until("the descriptors that it had", SOON, || (descriptors(&counter.container()).ok()? == before).then_some(()))?;
    counter.bed.container("one").obeys_its_runtime(&counter.output)?;
    counter.is_clean()?;
    outside.must_be_unchanged()
}

fn other_name() -> Outcome {
    let counter = Counter::new()?;
    let waiter = counter.wait("two", &[])?;
    counter.dump(&[])?;
    waiter.passes(&counter.output)?;
    counter.counts_on()?;
    let two = counter.bed.container("two");
    // Its original had ended: there is nothing to share the root file system with.
    let rootfs = two.state()?["rootfs"].as_str().unwrap_or_default().to_owned();
    ensure!(rootfs.starts_with(counter.bundle.path().to_str().ok_or("no UTF-8")?), "its root is {rootfs}");
    counter.bed.container("two").obeys_its_runtime(&counter.output)?;
    counter.is_clean()
}

fn null_streams() -> Outcome {
    let counter = Counter::new()?;
    let waiter = counter.wait("one", &["--stdio", "null"])?;
    counter.dump(&[])?;
    waiter.passes(&counter.output)?;
    let container = counter.container();
    ensure!(container.sh("readlink /proc/1/fd/1")?.trim() == "/dev/null", "its output leads somewhere");
    container.delete()
}

fn ended() -> Outcome {
    let counter = Counter::new()?;
    let outside = Snapshot::take(counter.bed.tag());
    for how in [Kill::CtrlC, Kill::Terminate, Kill::Crr] {
        let paused = Paused::start(&mut counter.restore("one", &["--wait"]), "waiting")?;
        ensure!(paused.criu.is_some(), "there is no CRIU yet");
        paused.strike(how)?.must_exit(if how == Kill::Crr { KILLED } else { 82 }, "a restore that waits")?;
        ensure!(journals(counter.container().id()).is_empty(), "a journal is left");
        ensure!(counter.bed.mounts().is_empty(), "mounts are left: {:?}", counter.bed.mounts());
    }
    let late = Running::start(&mut counter.restore("one", &["--wait=0.2"]))?.end(LIMIT)?;
    late.must_exit(75, "crr restore --wait=0.2")?;
    counter.counts_on()?;
    counter.bed.container("one").obeys_its_runtime(&counter.output)?;
    counter.is_clean()?;
    outside.must_be_unchanged()
}

fn criu_killed() -> Outcome {
    let counter = Counter::new()?;
    let waiter = counter.wait("one", &[])?;
    for criu in children(waiter.pid()) {
        kill(Pid::from_raw(criu), Signal::SIGKILL)?;
    }
    counter.dump(&[])?;
    waiter.passes(&counter.output)?;
    counter.counts_on()?;
    counter.bed.container("one").obeys_its_runtime(&counter.output)
}

fn dump_fails() -> Outcome {
    let counter = Counter::new()?;
    let mut waiter = counter.wait("one", &[])?;
    Paused::start(&mut counter.dump_command(), "post-dump")?.strike(Kill::CtrlC)?.must_exit(82, "crr dump")?;
    let code = waiter.code()?;
    ensure!(code == Some(80), "exit status {code:?}: {}", counter.output.errors());
    counter.counts_on()?;
    counter.bed.container("one").obeys_its_runtime(&counter.output)?;
    counter.is_clean()
}

fn two() -> Outcome {
    let counter = Counter::new()?;
    let mut waiters = [counter.wait("one", &[])?, counter.wait("one", &[])?];
    counter.dump(&[])?;
    let mut codes = Vec::new();
    for waiter in &mut waiters {
        codes.push(waiter.code()?);
    }
    codes.sort();
    ensure!(codes == [Some(0), Some(83)], "{codes:?}: {}", counter.output.errors());
    counter.counts_on()?;
    counter.bed.container("one").obeys_its_runtime(&counter.output)?;
    counter.is_clean()
}

fn lives_on() -> Outcome {
    let counter = Counter::new()?;
    let mut waiter = counter.wait("one", &["--deadline", "1"])?;
    let dump = Paused::start(&mut counter.dump_command(), "renamed")?;
    let code = waiter.code()?;
    ensure!(code == Some(83), "exit status {code:?}: {}", counter.output.errors());
    dump.strike(Kill::Crr)?;
    counter.counts_on()?;
    counter.bed.container("one").obeys_its_runtime(&counter.output)?;
    counter.is_clean()
}

/// Both are killed when the checkpoint is there and the container has not been ended: the next run must not take the container
/// for what the restore has left.
fn both_killed() -> Outcome {
    for step in ["container-journal", "container-rootfs"] {
        let counter = Counter::new()?;
        let mut waiting = counter.restore("one", &["--wait=60"]);
        let waiter = Running::start(waiting.env("CRR_TEST_PAUSE_AT", step))?;
        criu_of(&waiter)?;
        let dump = Paused::start(&mut counter.dump_command(), "renamed")?;
        Paused::of(waiter, step)?.strike(Kill::Crr)?;
        dump.strike(Kill::Crr)?;
        let refused = Running::start(&mut counter.restore("one", &[]))?.end(LIMIT)?;
        refused.must_exit(83, "crr restore beside the container")?;
        ensure!(journals(counter.container().id()).is_empty(), "the journal is left");
        counter.counts_on()?;
        counter.bed.container("one").obeys_its_runtime(&counter.output)?;
        counter.is_clean()?;
    }
    Ok(())
}

fn killed(step: &str) -> Outcome {
    let counter = Counter::new()?;
    let outside = Snapshot::take(counter.bed.tag());
    let mut waiting = counter.restore("one", &["--wait=60", "--rootfs", "shared"]);
    let waiter = Running::start(waiting.env("CRR_TEST_PAUSE_AT", step))?;
    criu_of(&waiter)?;
    counter.dump(&[])?;
    Paused::of(waiter, step)?.strike(Kill::Crr)?;
    until("CRIU to take everything back", SOON, || counter.bed.processes().is_empty().then_some(()))?;
    ensure!(counter.bed.mounts().is_empty(), "mounts are left: {:?}", counter.bed.mounts());
    counter.output.run(&mut counter.restore("one", &[]), LIMIT)?.must_pass("the next crr restore")?;
    counter.counts_on()?;
    counter.bed.container("one").obeys_its_runtime(&counter.output)?;
    counter.is_clean()?;
    outside.must_be_unchanged()
}
