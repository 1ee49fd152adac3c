//! What `crr restore --container` does beyond bringing a container back: streams, what is in its way, and what is left when it is
//! killed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::json;

use crate::crr::{self, Running};
use crate::kill::paused::{Kill, Paused};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, LIMIT};
use super::console::Console;
use super::dumped::{Dumped, journals};
use super::output::null_streams;
use super::round_trip::{By, dump_with};
use super::runtime::Runtime::Runc11;
use super::snapshot::Snapshot;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

/// Until `post-restore` is answered nothing of the container has run.
pub(super) const UNDONE: [&str; 9] = [
    "container-journal",
    "container-state",
    "container-cgroups",
    "container-rootfs",
    "pre-restore",
    "setup-namespaces",
    "post-setup-namespaces",
    "post-restore",
    "state-written",
];

/// From there on CRIU goes on alone.
const RUNS: [&str; 2] = ["pre-resume", "post-resume"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("everything_that_a_container_lacks_is_named_at_once_and_nothing_is_made", NEEDS, lacking),
        test("a_name_that_is_taken_is_refused", NEEDS, taken),
        test("plain_processes_are_no_container_and_a_container_is_no_plain_process", NEEDS, kinds),
        test("a_container_that_wrote_to_a_file_of_the_host_goes_on_writing_to_it", NEEDS, file_of_the_host),
        test("a_container_without_streams_runs_on", NEEDS, no_streams),
        test("a_container_on_a_terminal_is_restored_on_another", NEEDS, terminal),
        test("images_that_only_root_may_read_are_restored_in_a_user_namespace", NEEDS, user_namespace),
    ];
    for step in UNDONE {
        trials.push(test(format!("a_crr_killed_at_{step}_leaves_nothing_after_the_next_run"), NEEDS, || undone(step)));
    }
    for (step, kill, name) in [
        ("setup-namespaces", Kill::CtrlC, "interrupted"),
        ("post-restore", Kill::CtrlC, "interrupted"),
        ("pre-resume", Kill::Terminate, "interrupted"),
        ("setup-namespaces", Kill::Criu, "left_by_criu"),
        ("post-restore", Kill::Criu, "left_by_criu"),
    ] {
        trials.push(test(format!("a_restore_{name}_at_{step}_leaves_nothing"), NEEDS, move || given_up(step, kill)));
    }
    for step in RUNS {
        trials.push(test(format!("a_container_whose_crr_is_killed_at_{step}_runs"), NEEDS, || runs(step)));
    }
    trials
}

fn undone(step: &str) -> Outcome {
    let dumped = Dumped::new(By::Runtime)?;
    let outside = Snapshot::take(dumped.bed.tag());
    let paused = Paused::start(&mut dumped.command("one", &[])?, step)?;
    paused.strike(Kill::Crr)?;
    // CRIU finds the end of its socket and takes back what it made.
    until("CRIU to take everything back", SOON, || dumped.bed.processes().is_empty().then_some(()))?;
    ensure!(dumped.bed.mounts().is_empty(), "mounts are left: {:?}", dumped.bed.mounts());
    // The next run removes what is left, whatever it is about, unless one of another test has done so: the name is free again.
    dumped.restore("one", &[])?.must_pass("the next crr restore")?;
    dumped.output.await_numbers(2)?;
    dumped.output.counted_without_gap()?;
    dumped.bed.container("one").obeys_its_runtime(&dumped.output)?;
    dumped.is_clean("one")?;
    outside.must_be_unchanged()
}

/// crr lives, and cleans up itself.
fn given_up(step: &str, kill: Kill) -> Outcome {
    let dumped = Dumped::new(By::Runtime)?;
    let ran = Paused::start(&mut dumped.command("one", &[])?, step)?.strike(kill)?;
    ensure!(!ran.passed() && ran.code != 90, "exit status {}: {}", ran.code, ran.stderr);
    dumped.is_clean("one")?;
    dumped.restore("one", &[])?.must_pass("another crr restore")?;
    dumped.output.await_numbers(2)?;
    dumped.bed.container("one").obeys_its_runtime(&dumped.output)
}

fn runs(step: &str) -> Outcome {
    let dumped = Dumped::new(By::Runtime)?;
    let paused = Paused::start(&mut dumped.command("one", &["--stdio", "null"])?, step)?;
    paused.strike(Kill::Crr)?;
    let container = dumped.bed.container("one");
    container.await_status("running")?;
    ensure!(container.sh("echo $((40 + 2))")?.trim() == "42", "it cannot be entered");
    // The next run of any restore finds that there is nothing to undo.
    let refused = Running::start(&mut dumped.command("one", &[])?)?.end(LIMIT)?.must_exit(83, "crr restore")?;
    ensure!(refused.stderr.contains("there is a container"), "{}", refused.stderr);
    ensure!(journals(container.id()).is_empty(), "the journal is left");
    container.await_status("running")?;
    container.delete()
}

fn lacking() -> Outcome {
    let mut dumped = Dumped::of(By::Runtime, |bed, bundle| {
        for name in ["volume", "other"] {
            fs::create_dir(bed.path(name))?;
            bundle.bind(&bed.path(name), &format!("/mnt/{name}"), &["rw"])?;
        }
        Ok(())
    })?;
    let outside = Snapshot::take(dumped.bed.tag());
    for name in ["volume", "other"] {
        fs::remove_dir(dumped.bed.path(name))?;
    }
    dumped.bundle.namespace("ipc", Some(Path::new("/no/such/namespace")))?;
    let said = dumped.refuses(&[], 68)?;
    for word in ["/volume", "/other", "/no/such/namespace"] {
        ensure!(said.contains(word), "{word} is not named: {said}");
    }
    for name in ["volume", "other"] {
        fs::create_dir(dumped.bed.path(name))?;
    }
    dumped.bundle.namespace("ipc", None)?;
    let busybox = dumped.bundle.inside("bin/busybox");
    fs::rename(&busybox, dumped.bed.path("busybox"))?;
    let said = dumped.refuses(&[], 68)?;
    ensure!(said.contains("/bin/busybox"), "{said}");
    fs::rename(dumped.bed.path("busybox"), &busybox)?;
    let config = dumped.bundle.path().join("config.json");
    let kept = dumped.bundle.config.clone();
    dumped.bundle.config = json!([]);
    dumped.refuses(&[], 65)?;
    dumped.bundle.config = kept;
    dumped.bundle.config["root"]["path"] = "nowhere".into();
    dumped.refuses(&[], 66)?;
    dumped.bundle.config["root"]["path"] = "rootfs".into();
    fs::remove_file(&config)?;
    let empty = dumped.bed.path("empty");
    fs::create_dir(&empty)?;
    let mut command = dumped.command("one", &[])?;
    fs::remove_file(&config)?;
    Running::start(&mut command)?.end(LIMIT)?.must_exit(66, "crr restore without a config.json")?;
    dumped.is_clean("one")?;
    dumped.restore("one", &[])?.must_pass("crr restore")?;
    dumped.bed.container("one").obeys_its_runtime(&dumped.output)?;
    outside.must_be_unchanged()
}

fn taken() -> Outcome {
    let dumped = Dumped::new(By::Crr)?;
    dumped.restore("one", &[])?.must_pass("crr restore")?;
    let container = dumped.bed.container("one");
    let state = fs::read(dumped.bed.root().join(container.id()).join("state.json"))?;
    let refused = Running::start(&mut dumped.command("one", &[])?)?.end(LIMIT)?.must_exit(83, "crr restore")?;
    ensure!(refused.stderr.contains(container.id()), "{}", refused.stderr);
    let after = fs::read(dumped.bed.root().join(container.id()).join("state.json"))?;
    ensure!(after == state, "the state has changed");
    container.obeys_its_runtime(&dumped.output)
}

fn kinds() -> Outcome {
    let dumped = Dumped::new(By::Crr)?;
    crr::restore(&dumped.images, &["--new-pid-ns"])?.must_exit(64, "crr restore --new-pid-ns of a container")?;
    let refused = crr::restore(&dumped.images, &[])?.must_exit(64, "crr restore without --container")?;
    ensure!(refused.stderr.contains("--container"), "{}", refused.stderr);
    let mut victim = Command::new("sleep");
    crate::spawning::own_session(&mut victim);
    let mut victim = victim.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let plain = dumped.bed.path("plain");
    let pid = i32::try_from(victim.id())?;
    let ran = crr::dump(pid, &plain, &["--leave-running"]);
    victim.kill()?;
    victim.wait()?;
    ran?.must_pass("crr dump")?;
    let of_plain = Dumped { images: plain, ..dumped };
    let said = of_plain.refuses(&[], 64)?;
    ensure!(said.contains("plain processes"), "{said}");
    Ok(())
}

fn file_of_the_host() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let bundle = bed.bundle("bundle")?;
    let log = bed.path("log");
    let file = fs::File::options().create(true).append(true).open(&log)?;
    let streams = [Stdio::null(), file.try_clone()?.into(), file.try_clone()?.into()];
    let container = bed.run("one", &bundle, streams)?;
    let numbers = || -> Vec<u64> {
        fs::read_to_string(&log).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    };
    let more = |count: usize| until("numbers in the file", SOON, || (numbers().len() > count).then_some(()));
    more(2)?;
    let images = bed.path("images");
    dump_with(By::Crr, &bed, &container, &images, &[])?;
    let counted = numbers().len();
    let mut command = crr::command();
    command.args(["restore", "-d", "--stdio", "recorded", "--container", &bed.id("one"), "--runtime-root"]);
    command.arg(bed.root()).arg("--dir").arg(&images);
    Running::start(&mut command)?.end(LIMIT)?.must_pass("crr restore --stdio recorded")?;
    more(counted + 2)?;
    let all = numbers();
    ensure!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
    bed.container("one").delete()
}

fn no_streams() -> Outcome {
    let dumped = Dumped::new(By::Runtime)?;
    let refused = dumped.refuses(&["--stdio", "recorded"], 79)?;
    ensure!(refused.contains("pipe:["), "{refused}");
    dumped.restore("one", &["--stdio", "null"])?.must_pass("crr restore --stdio null")?;
    let container = dumped.bed.container("one");
    ensure!(container.sh("readlink /proc/1/fd/1")?.trim() == "/dev/null", "its output leads somewhere");
    container.await_status("running")?;
    container.delete()
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
    let mut command = crr::command();
    command.args(["restore", "-d", "--container", &bed.id("shell"), "--runtime-root"]).arg(bed.root());
    command.arg("--bundle").arg(bundle.path()).arg("--dir").arg(&images);
    let refused = Running::start(&mut command)?.end(LIMIT)?.must_exit(64, "crr restore without a socket")?;
    ensure!(refused.stderr.contains("--console-socket"), "{}", refused.stderr);
    Running::start(command.args(socket))?.end(LIMIT)?.must_pass("crr restore --console-socket")?;
    console.await_terminals(2)?;
    console.answers("echo \"still $kept\"", "still here")?;
    bed.container("shell").delete()
}

fn user_namespace() -> Outcome {
    const SHIFT: u32 = 100_000;
    for by in [By::Crr, By::Runtime] {
        let dumped = Dumped::of(by, |_, bundle| {
            bundle.namespace("user", None)?;
            for kind in ["uidMappings", "gidMappings"] {
                bundle.config["linux"][kind] = json!([{ "containerID": 0, "hostID": SHIFT, "size": 65_536 }]);
            }
            bundle.own_rootfs(SHIFT)
        })?;
        fs::set_permissions(&dumped.images, fs::Permissions::from_mode(0o700))?;
        let inventory = dumped.images.join("inventory.img");
        fs::set_permissions(&inventory, fs::Permissions::from_mode(0o600))?;
        dumped.restore("one", &[])?.must_pass("crr restore")?;
        let container = dumped.bed.container("one");
        ensure!(container.sh("id -u; touch /tmp/mine && stat -c %u /tmp/mine")? == "0\n0\n", "its root is not root");
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&inventory)?);
        ensure!(owner == 0, "the images have become PID 1's");
        container.obeys_its_runtime(&dumped.output)?;
    }
    Ok(())
}
