//! `crr restore` around the tree: exit status, signals, what is refused before anything is made, and where the tree lives.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use ::crr::host::cgroup::{Layout, Membership, OwnCgroup};
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::Running;
use crate::need::Need::{self, Cc, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const CGROUPS: &[Need] = &[Root, Criu, Cc, Netns, Cgroups];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_foreground_restore_exits_as_the_root_does", NEEDS, exit_status),
        test("a_foreground_restore_tells_the_signal_that_killed_the_root", NEEDS, killed),
        test("signals_to_a_foreground_crr_reach_the_root", NEEDS, passed_on),
        test("a_tree_whose_foreground_crr_was_killed_runs_on", NEEDS, orphaned),
        test("json_and_pidfile_are_there_before_the_tree_ends", NEEDS, announced),
        test("a_taken_pid_is_named_and_nothing_is_touched", NEEDS, taken),
        test("damaged_images_are_all_named_at_once", NEEDS, damaged),
        test("an_empty_or_missing_directory_is_told_apart", NEEDS, no_checkpoint),
        test("a_changed_file_is_a_warning_and_with_strict_files_an_error", NEEDS, changed_file),
        test("a_directory_that_others_may_write_is_refused_unless_trusted", NEEDS, untrusted),
        test("the_tree_outlives_the_cgroup_that_crr_ran_in", CGROUPS, outlives),
        test("a_program_of_crr_run_is_dumped_and_restored", NEEDS, run),
    ]
}

/// A dumped tree: `tree COUNT`, which exits with 7 on SIGTERM.
fn dumped(count: &str) -> Result<Victim, Failed> {
    let mut victim = Victim::start(&programs::program("tree")?, &[count])?;
    victim.await_ticks(3)?;
    let tree = victim.tree();
    crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    Ok(victim)
}

fn foreground(victim: &Victim, more: &[&str]) -> Result<Running, Failed> {
    let running = Running::start(crr::command().args(["restore", "--dir"]).arg(victim.images()).args(more))?;
    victim.await_ticks(3)?;
    Ok(running)
}

fn send(pid: i32, signal: Signal) -> Outcome {
    Ok(kill(Pid::from_raw(pid), signal)?)
}

fn exit_status() -> Outcome {
    let victim = dumped("3")?;
    let crr = foreground(&victim, &[])?;
    send(victim.pid(), Signal::SIGTERM)?;
    crr.end(SOON)?.must_exit(7, "crr restore of a tree that exits with 7")?;
    Ok(())
}

fn killed() -> Outcome {
    let victim = dumped("1")?;
    let crr = foreground(&victim, &[])?;
    send(victim.pid(), Signal::SIGKILL)?;
    crr.end(SOON)?.must_exit(137, "crr restore of a tree that was killed")?;
    Ok(())
}

fn passed_on() -> Outcome {
    let victim = dumped("2")?;
    let crr = foreground(&victim, &[])?;
    let before = victim.output().len();
    send(crr.pid(), Signal::SIGUSR1)?;
    until("the tree's answer to SIGUSR1", SOON, || victim.output().get(before..)?.contains("ok\n").then_some(()))?;
    send(crr.pid(), Signal::SIGTERM)?;
    crr.end(SOON)?.must_exit(7, "crr restore, to which SIGTERM was sent")?;
    Ok(())
}

fn orphaned() -> Outcome {
    let victim = dumped("2")?;
    let crr = foreground(&victim, &[])?;
    send(crr.pid(), Signal::SIGKILL)?;
    let ran = crr.end(SOON)?;
    ensure!(ran.code == 137, "crr was not killed: {ran:?}");
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.end()
}

fn announced() -> Outcome {
    let victim = dumped("2")?;
    let pidfile = victim.directory().join("pid");
    let words = ["--json", "--pidfile", pidfile.to_str().unwrap_or_default()];
    let ran = crr::restore(&victim.images(), &words)?.must_pass("crr restore --json")?;
    let object: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    ensure!(object["pid"] == victim.pid(), "{object}");
    ensure!(object["pids"].as_array().is_some_and(|pids| pids.len() == 2), "{object}");
    let written = fs::read_to_string(&pidfile)?;
    ensure!(written == format!("{}\n", victim.pid()), "the pidfile holds {written:?}");
    let ran = Running::start(crr::command().args(["restore", "--json", "--dir"]).arg(victim.images()))?.end(SOON)?;
    ran.must_exit(64, "--json in the foreground without --json-fd")?;
    victim.end()
}

fn taken() -> Outcome {
    let victim = dumped("2")?;
    crr::restore(&victim.images(), &[])?.must_pass("crr restore")?;
    let ran = crr::restore(&victim.images(), &[])?.must_exit(83, "a second restore")?;
    ensure!(ran.stderr.contains(&format!("PID {} belongs to `tree`", victim.pid())), "{}", ran.stderr);
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.end()
}

fn damaged() -> Outcome {
    let victim = dumped("2")?;
    let images = victim.images();
    let before = names(&images)?;
    // One flipped byte of memory, which CRIU would restore without a word, and a missing and a cut image.
    let pages = fs::File::options().read(true).write(true).open(images.join("pages-1.img"))?;
    let mut byte = [0];
    pages.read_exact_at(&mut byte, 100)?;
    pages.write_all_at(&[byte[0] ^ 1], 100)?;
    crr::restore(&images, &[])?.must_exit(65, "a restore of flipped pages")?;
    let files = images.join("files.img");
    fs::File::options().write(true).open(&files)?.set_len(fs::metadata(&files)?.len() - 1)?;
    fs::remove_file(images.join(format!("core-{}.img", victim.pid())))?;
    let ran = crr::restore(&images, &[])?.must_exit(65, "a restore of damaged images")?;
    for name in ["files.img", "pages-1.img", &format!("core-{}.img", victim.pid())] {
        ensure!(ran.stderr.contains(name), "{name} is not named:\n{}", ran.stderr);
    }
    ensure!(!victim.is_there(), "something was restored");
    let added: Vec<String> = names(&images)?.into_iter().filter(|name| !before.contains(name)).collect();
    ensure!(added.is_empty(), "the directory got {added:?}");
    Ok(())
}

fn names(directory: &Path) -> Result<Vec<String>, Failed> {
    let entries = fs::read_dir(directory)?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn no_checkpoint() -> Outcome {
    let directory = tempfile::tempdir()?;
    crr::restore(directory.path(), &[])?.must_exit(65, "a restore of an empty directory")?;
    crr::restore(&directory.path().join("none"), &[])?.must_exit(66, "a restore of what does not exist")?;
    fs::write(directory.path().join("file"), "")?;
    crr::restore(&directory.path().join("file"), &[])?.must_exit(73, "a restore of a file")?;
    Ok(())
}

fn changed_file() -> Outcome {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("program.py");
    fs::copy(programs::file("program.py"), &script)?;
    // Held open by the shell that became the program, so that the images name it.
    let line = format!("exec python3 {0} 3<{0}", script.display());
    let mut victim = Victim::start(Path::new("sh"), &["-c", &line])?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    let mut content = fs::read(&script)?;
    let last = content.len() - 2;
    content[last] ^= 1;
    fs::write(&script, content)?;
    let ran = crr::restore(&images, &["--strict-files"])?.must_exit(68, "a restore with --strict-files")?;
    ensure!(ran.stderr.contains("program.py` has another content"), "{}", ran.stderr);
    let ran = crr::restore(&images, &[])?.must_pass("a restore onto a file with another content")?;
    ensure!(ran.stderr.contains("warning: "), "nothing was said: {}", ran.stderr);
    victim.end()
}

fn untrusted() -> Outcome {
    use std::os::unix::fs::PermissionsExt as _;

    let victim = dumped("2")?;
    let images = victim.images();
    fs::set_permissions(&images, fs::Permissions::from_mode(0o777))?;
    let ran = crr::restore(&images, &[])?.must_exit(67, "a restore of what others may write")?;
    ensure!(ran.stderr.contains("--trust-images"), "{}", ran.stderr);
    crr::restore(&images, &["--trust-images"])?.must_pass("a restore with --trust-images")?;
    victim.await_ticks(3)?;
    victim.end()
}

fn outlives() -> Outcome {
    let victim = dumped("3")?;
    let layout = Layout::read()?;
    let name = format!("test-outlives-{}", std::process::id());
    let (own, _) = OwnCgroup::create(&layout, &name);
    let directories = own.directories().to_vec();
    let procs: Vec<String> = directories.iter().map(|at| format!("{}/cgroup.procs", at.display())).collect();
    let enter: String = procs.iter().map(|file| format!("echo $$ > '{file}'; ")).collect();
    let script = format!("{enter} exec {} restore -d --dir {}", env!("CARGO_BIN_EXE_crr"), victim.images().display());
    Running::start(Command::new("sh").args(["-c", &script]))?.end(SOON)?.must_pass("crr restore in a cgroup")?;
    // All that is in the cgroup that crr was in would be killed with it.
    for pid in victim.tree() {
        let membership = Membership::of(pid)?;
        ensure!(membership.0.values().all(|path| !path.contains(&name)), "PID {pid} is in {membership:?}");
    }
    let members = procs.iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<String>();
    ensure!(members.is_empty(), "left in the cgroup: {members}");
    own.remove_if_empty();
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.end()
}

fn run() -> Outcome {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let program = programs::program("tree")?;
    let (log, pidfile, images) = (at("log"), at("pid"), at("images"));
    let words = ["run", "-d", "--log", &log, "--pidfile", &pidfile, "--"];
    let program = program.to_string_lossy().into_owned();
    crr::crr(words.into_iter().chain([program.as_str(), "3"]))?.must_pass("crr run")?;
    let pid: i32 = fs::read_to_string(&pidfile)?.trim().parse()?;
    let lines =
        || fs::read_to_string(&log).unwrap_or_default().lines().filter(|line| line.starts_with("tick ")).count();
    until("the program to tick", SOON, || (lines() > 3).then_some(()))?;
    crr::dump(pid, Path::new(&images), &[])?.must_pass("crr dump of what crr run started")?;
    let before = lines();
    let crr = Running::start(crr::command().args(["restore", "--dir", &images]))?;
    until("the program to tick again", SOON, || (lines() > before + 3).then_some(()))?;
    send(pid, Signal::SIGTERM)?;
    crr.end(SOON)?.must_exit(7, "crr restore of what crr run started")?;
    let ran = crr::crr(["run", "--log", &log, "--", "sh", "-c", "kill -9 $$"])?;
    ensure!(ran.code == 137, "crr run of a killed program: {ran:?}");
    crr::crr(["run", "--", "/nonexistent"])?.must_exit(66, "crr run of no program")?;
    crr::crr(["rm", &images])?.must_pass("crr rm")?;
    ensure!(!Path::new(&images).exists(), "the checkpoint is still there");
    Ok(())
}
