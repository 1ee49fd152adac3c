//! Containers that crr dumps, and what is left of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::crr::{self, Ran, Running};
use crate::need::Need::{self, Busybox, Cgroup2, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, Container, LIMIT};
use super::bundle::counter;
use super::output::Output;
use super::round_trip::{self, By};
use super::runtime::Runtime::{self, Crun121, Runc11, Runc13};
use super::situation;
use super::snapshot::{Snapshot, cgroups_of};
use super::unified::unified;

const RUNC_1_1: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];
const RUNC_1_3: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc13)];
const CRUN_1_21: &[Need] = &[Root, Criu, Netns, Busybox, Cgroup2, Need::Runtime(Crun121)];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("dump::runc_1_1_restores_what_crr_dumped", RUNC_1_1, || interop(Runc11)),
        test("dump::runc_1_3_restores_what_crr_dumped", RUNC_1_3, || interop(Runc13)),
        test("dump::crun_1_21_restores_what_crr_dumped", CRUN_1_21, || unified(|| interop(Crun121))),
        test("dump::leaves_the_container_running_where_asked", RUNC_1_1, left_running),
        test("dump::refuses_processes_of_exec_and_drops_them_where_asked", RUNC_1_1, outsiders),
        test("dump::a_paused_container_stays_paused", RUNC_1_1, paused),
        test("dump::several_containers_go_into_a_directory_each", RUNC_1_1, several),
        test("dump::a_regular_file_as_standard_output_is_no_obstacle", RUNC_1_1, regular_file),
        test("dump::images_for_crr_need_no_tar", RUNC_1_1, for_crr),
        test("dump::what_cannot_be_dumped_is_refused_and_nothing_changed", RUNC_1_1, refused),
        test("dump::a_volume_whose_source_is_gone_is_named_before_the_freeze", RUNC_1_1, volume_gone),
        test("dump::a_container_of_an_engine_is_refused", RUNC_1_1, engine),
        test("dump::check_prints_the_command_that_works", RUNC_1_1, checked),
    ];
    for situation in situation::ALL {
        trials.push(test(format!("dump::crr_then_runc::{}", situation.name), RUNC_1_1, || {
            round_trip::keeps(*situation, Runc11, [By::Crr, By::Runtime])
        }));
    }
    trials
}

/// `crr dump --container` with more words.
pub(super) fn dump(bed: &Bed, container: &Container, images: &Path, more: &[&str]) -> Result<Ran, Failed> {
    let mut command = command(bed, container.id(), images);
    Running::start(command.args(more))?.end(LIMIT)
}

pub(super) fn command(bed: &Bed, id: &str, images: &Path) -> Command {
    let mut command = crr::command();
    command.args(["dump", "--container", id, "--runtime-root"]).arg(bed.root()).arg("--dir").arg(images);
    command
}

/// Nothing of the container is left but its checkpoint.
fn is_gone(container: &Container) -> Outcome {
    ensure!(!container.exists(), "the runtime still knows it");
    let left = cgroups_of(container.id());
    ensure!(left.is_empty(), "cgroups are left: {left:?}");
    Ok(())
}

/// It counts on, unfrozen, and its state is as it was.
pub(super) fn runs_on(container: &Container, output: &Output, state: &[u8], bed: &Bed) -> Outcome {
    output.await_numbers(2)?;
    ensure!(container.status()? == "running", "it is {}", container.status()?);
    ensure!(state_of(bed, container)? == state, "the runtime's state of it has changed");
    Ok(())
}

pub(super) fn state_of(bed: &Bed, container: &Container) -> Result<Vec<u8>, Failed> {
    let directory = bed.root().join(container.id());
    Ok(fs::read(directory.join("state.json")).or_else(|_| fs::read(directory.join("status")))?)
}

fn record(images: &Path) -> Result<Value, Failed> {
    let record: Value = serde_json::from_slice(&fs::read(images.join("crr.json"))?)?;
    Ok(record["checkpoint"].clone())
}

fn interop(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let before = Snapshot::take(bed.tag());
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(3)?;
    let images = bed.path("images");
    let state = state_of(&bed, &container)?;
    dump(&bed, &container, &images, round_trip::cgroup_mode(runtime))?.must_pass("crr dump")?;
    is_gone(&container)?;
    let kept = if runtime.is_crun() { "status" } else { "state.json" };
    ensure!(fs::read(images.join(kept))? == state, "{kept} is not what it was");
    ensure!(images.join("config.json").exists() && images.join("descriptors.json").exists(), "files are missing");
    ensure!(record(&images)?["container"]["runtime"] == if runtime.is_crun() { "crun" } else { "runc" }, "no record");
    let counted = output.numbers().len();
    let restored = bed.restore("one", &bundle, &images, round_trip::cgroup_mode(runtime), &output)?;
    output.await_numbers(3)?;
    ensure!(output.numbers().len() > counted, "it stands still");
    output.counted_without_gap()?;
    restored.obeys_its_runtime(&output)?;
    before.must_be_unchanged()
}

fn left_running() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    let state = state_of(&bed, &container)?;
    for number in 0..3 {
        let images = bed.path(&format!("images{number}"));
        dump(&bed, &container, &images, &["--leave-running"])?.must_pass("crr dump")?;
        runs_on(&container, &output, &state, &bed)?;
    }
    output.counted_without_gap()?;
    container.obeys_its_runtime(&output)
}

fn outsiders() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    let state = state_of(&bed, &container)?;
    let mut executed = bed.command();
    executed.args(["exec", "-d", container.id(), "/bin/sleep", "1000"]);
    // What is executed keeps the streams of whoever executes.
    crr::run_on_streams(&mut executed, output.streams()?, LIMIT)?.must_pass("exec -d")?;
    let images = bed.path("images");
    for more in [&[][..], &["--leave-running"]] {
        let ran = dump(&bed, &container, &images, more)?.must_exit(79, "a dump that would lose a process")?;
        ensure!(ran.stderr.contains("(sleep)") && ran.stderr.contains("--drop-exec"), "{}", ran.stderr);
        ensure!(!images.exists(), "a directory is left");
        runs_on(&container, &output, &state, &bed)?;
    }
    let ran = dump(&bed, &container, &images, &["--drop-exec"])?.must_pass("a dump that drops it")?;
    ensure!(ran.stderr.contains("(sleep)"), "what is dropped is not said: {}", ran.stderr);
    is_gone(&container)
}

fn paused() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    container.with("pause", &[])?.must_pass("pause")?;
    dump(&bed, &container, &bed.path("running"), &["--leave-running"])?.must_pass("crr dump --leave-running")?;
    ensure!(container.status()? == "paused", "it is {}", container.status()?);
    let images = bed.path("images");
    dump(&bed, &container, &images, &[])?.must_pass("crr dump")?;
    is_gone(&container)?;
    ensure!(record(&images)?["container"]["paused"] == true, "that it was paused is not recorded");
    let restored = bed.restore("one", &bundle, &images, &[], &output)?;
    if restored.status()? == "paused" {
        restored.with("resume", &[])?.must_pass("resume")?;
    }
    output.await_numbers(2)?;
    output.counted_without_gap()
}

fn several() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let before = Snapshot::take(bed.tag());
    let outputs = [Output::new()?, Output::new()?, Output::new()?];
    let bundle = bed.bundle("bundle")?;
    let mut containers = Vec::new();
    for (number, output) in outputs.iter().enumerate() {
        containers.push(bed.run_on(&format!("c{number}"), &bundle, output)?);
        output.await_numbers(1)?;
    }
    let images = bed.path("images");
    let mut command = command(&bed, containers[0].id(), &images);
    for container in &containers[1..] {
        command.args(["--container", container.id()]);
    }
    // One of four that is not there does not keep the others from being dumped.
    command.args(["--container", "nobody", "--jobs", "2"]);
    let ran = Running::start(&mut command)?.end(LIMIT)?.must_exit(66, "crr dump of four")?;
    for (number, container) in containers.iter().enumerate() {
        is_gone(container)?;
        ensure!(ran.stdout.contains(container.id()), "the table lacks {}: {}", container.id(), ran.stdout);
        let output = &outputs[number];
        bed.restore(&format!("c{number}"), &bundle, &images.join(container.id()), &[], output)?;
        output.await_numbers(2)?;
        output.counted_without_gap()?;
    }
    ensure!(ran.stderr.contains("nobody"), "{}", ran.stderr);
    bed.clear()?;
    before.must_be_unchanged()
}

fn regular_file() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let bundle = bed.bundle("bundle")?;
    let path = bed.path("printed");
    let file = fs::File::create(&path)?;
    let streams = [std::process::Stdio::null(), file.try_clone()?.into(), file.into()];
    let container = bed.run("one", &bundle, streams)?;
    let lines = || fs::read_to_string(&path).unwrap_or_default().lines().count();
    until("three numbers", SOON, || (lines() > 3).then_some(()))?;
    let images = bed.path("images");
    dump(&bed, &container, &images, &[])?.must_pass("crr dump")?;
    let recorded = record(&images)?;
    let stream = &recorded["container"]["stdio_files"]["1"];
    ensure!(stream["path"].as_str() == path.to_str(), "recorded is {stream}");
    ensure!(stream["key"].as_str().is_some_and(|key| key.starts_with("file[")), "recorded is {stream}");
    is_gone(&container)
}

fn for_crr() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let images = bed.path("images");
    dump(&bed, &container, &images, &["--images", "crr", "--leave-running"])?.must_pass("crr dump --images crr")?;
    let names = fs::read_dir(&images)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let archives: Vec<String> = names.filter(|name| name.starts_with("tmpfs-")).collect();
    ensure!(archives.is_empty(), "{archives:?}");
    let recorded = record(&images)?["container"]["tmpfs"].as_array().map_or(0, Vec::len);
    ensure!(recorded >= 4, "{recorded} are recorded");
    // What holds data is not left out.
    container.sh("echo content > /dev/shm/file")?;
    let images = bed.path("with-data");
    dump(&bed, &container, &images, &["--images", "crr"])?.must_pass("crr dump --images crr")?;
    let names = fs::read_dir(&images)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    ensure!(names.filter(|name| name.starts_with("tmpfs-")).count() == 1, "/dev/shm is not in the images");
    is_gone(&container)
}

fn refused() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let images = bed.path("images");
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let refuses = |id: &str, code: i32, word: &str, more: &[&str]| -> Outcome {
        let ran = Running::start(command(&bed, id, &images).args(more))?.end(LIMIT)?.must_exit(code, id)?;
        ensure!(ran.stderr.contains(word), "{id}: {} lacks `{word}`", ran.stderr);
        ensure!(!images.exists(), "{id}: a directory is left");
        Ok(())
    };
    refuses("nobody", 66, "there is no such container", &[])?;
    refuses("../root", 64, "may have only", &[])?;
    // Made, but not started.
    bed.launch("create", "waiting", &bundle, &[], output.streams()?)?;
    refuses(&bed.id("waiting"), 78, "created", &[])?;
    let stopped = bed.run_on("stopped", &bundle, &output)?;
    stopped.kill("KILL")?;
    stopped.await_status("stopped")?;
    refuses(stopped.id(), 78, "stopped", &[])?;
    ensure!(stopped.status()? == "stopped", "it is {}", stopped.status()?);
    // A state that no runc has written.
    let strange = bed.root().join(bed.id("strange"));
    fs::create_dir(&strange)?;
    // Cut off, another's, and of a release that keeps what is needed elsewhere.
    let later = format!("{{\"id\":\"{}\",\"format\":9,\"spec\":{{}}}}", bed.id("strange"));
    for (text, word) in
        [("{", "malformed"), ("{\"id\":\"other\",\"config\":{\"rootfs\":\"/\"}}", "other"), (&later, "config")]
    {
        fs::write(strange.join("state.json"), text)?;
        refuses(&bed.id("strange"), 65, word, &[])?;
    }
    fs::remove_dir_all(&strange)?;
    // Options of containers without one, and the reverse.
    let pid = std::process::id().to_string();
    for words in [
        &["dump", "--pid", &pid, "--drop-exec", "--dir", "d"][..],
        &["dump", "--pid", &pid, "--container", "a", "--dir", "d"],
        &["check", "--images", "crr", "--pid", &pid],
        &["check", "--dir", "d"],
        &["dump", "--container", "a", "--container", "a", "--dir", "d"],
    ] {
        crr::crr(words)?.must_exit(64, &words.join(" "))?;
    }
    Ok(())
}

fn volume_gone() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    fs::create_dir(bed.path("volume"))?;
    bundle.bind(&bed.path("volume"), "/mnt", &["rw"])?;
    let container = bed.run_on("one", &bundle, &output)?;
    let state = state_of(&bed, &container)?;
    fs::remove_dir(bed.path("volume"))?;
    let images = bed.path("images");
    let ran = dump(&bed, &container, &images, &[])?.must_exit(78, "a dump that could not be restored")?;
    ensure!(ran.stderr.contains("/volume") && ran.stderr.contains("/mnt"), "{}", ran.stderr);
    ensure!(!images.exists(), "a directory is left");
    runs_on(&container, &output, &state, &bed)?;
    fs::create_dir(bed.path("volume"))?;
    dump(&bed, &container, &images, &["--leave-running"])?.must_pass("crr dump")?;
    runs_on(&container, &output, &state, &bed)
}

/// A process that is called as a shim is, and is the parent of the container's.
fn engine() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    bundle.write()?;
    // Takes the orphans of what it runs, and waits for them, as conmon does.
    let script = "import ctypes, os, sys\n\
                  libc = ctypes.CDLL(None)\n\
                  libc.prctl(36, 1, 0, 0, 0); libc.prctl(15, b'conmon', 0, 0, 0)\n\
                  if os.fork() == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
                  while True:\n\
                  \x20   try: os.wait()\n\
                  \x20   except ChildProcessError: break\n";
    let mut shim = Command::new("python3");
    shim.args(["-c", script]).arg(bed.runtime().program()).arg("--root").arg(bed.root());
    shim.args(["run", "-d", "--bundle"]).arg(bundle.path()).arg(bed.id("one"));
    let [stdin, stdout, stderr] = output.streams()?;
    let mut shim = shim.stdin(stdin).stdout(stdout).stderr(stderr).spawn()?;
    let done = (|| {
        output.await_numbers(2)?;
        let container = bed.container("one");
        let images = bed.path("images");
        let ran = dump(&bed, &container, &images, &[])?.must_exit(79, "a dump below an engine")?;
        ensure!(ran.stderr.contains("137") && ran.stderr.contains("--below-engine"), "{}", ran.stderr);
        dump(&bed, &container, &images, &["--leave-running"])?.must_pass("crr dump --leave-running")?;
        output.await_numbers(2)?;
        dump(&bed, &container, &bed.path("again"), &["--below-engine"])?.must_pass("crr dump --below-engine")?;
        is_gone(&container)
    })();
    let _ = shim.kill();
    shim.wait()?;
    done
}

fn checked() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    let deleted = "dd if=/dev/zero of=/tmp/big bs=1024k count=2 2>/dev/null; exec 7</tmp/big; rm /tmp/big";
    bundle.shell(&format!("{deleted}; {}", counter("0.1")));
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    let root = bed.root().to_str().ok_or("no UTF-8")?;
    let images = bed.path("images");
    let dir = images.to_str().ok_or("no UTF-8")?;
    let words = ["--root", root, "check", "--container", container.id(), "--dir", dir];
    let ran = crr::crr(words)?.must_pass("crr check --container")?;
    let printed = ran.stdout.lines().find(|line| line.trim().starts_with("crr dump")).ok_or("no command")?.trim();
    ensure!(printed.contains("--ghost-limit"), "{printed}");
    let words: Vec<&str> = printed.split(' ').skip(1).collect();
    crr::crr(words.into_iter().chain(["--no-auto"]))?.must_pass(printed)?;
    is_gone(&container)
}
