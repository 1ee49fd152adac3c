//! What a restore takes from its caller: a parent, descriptors, namespaces, a place to report to, a deadline.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::crr::Running;
use crate::dumped::Dumped;
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, crr, ensure, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("the_command_of_exec_cmd_becomes_the_parent_of_the_tree", NEEDS, exec_cmd),
        test("an_inherited_descriptor_takes_the_place_of_a_file", NEEDS, inherit_fd),
        test("a_tree_joins_the_network_namespace_of_a_process", NEEDS, || join_ns(false)),
        test("a_tree_joins_the_network_namespace_of_a_file", NEEDS, || join_ns(true)),
        test("json_fd_gets_its_object_before_the_tree_has_ended", NEEDS, json_fd),
        test("json_fd_gets_the_failure_of_a_restore_that_fails", NEEDS, json_fd_of_a_failure),
    ]
}

/// The parent of a process.
fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

fn exec_cmd() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let told = dumped.victim.directory().join("told");
    let mut command = crr::command();
    command.args(["restore", "-d", "--exec-cmd", "--dir"]).arg(&dumped.images);
    command.args(["--", "sh", "-c", "echo $$ >\"$1\"; wait; exec sleep 1000", "sh"]).arg(&told);
    Running::start(&mut command)?.end(SOON * 3)?.must_pass("crr restore --exec-cmd")?;
    let command: i32 =
        until("the command to tell its PID", SOON, || fs::read_to_string(&told).ok()?.trim().parse().ok())?;
    let root = dumped.victim.pid();
    let born = parent(root);
    let checked = dumped.victim.self_check();
    kill(Pid::from_raw(command), Signal::SIGKILL)?;
    ensure!(born == Some(command), "the parent of {root} is {born:?}, not the command, {command}");
    checked?;
    dumped.gone()
}

/// Has a command start with `file` open as `number`.
fn with_descriptor(command: &mut Command, file: OwnedFd, number: i32) {
    // SAFETY: dup2 and fcntl are system calls only; `file` lives as long as the command.
    unsafe {
        command.pre_exec(move || {
            if file.as_raw_fd() == number {
                nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
            } else if libc::dup2(file.as_raw_fd(), number) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// The tree's output goes to another file after the restore.
fn inherit_fd() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let output = dumped.victim.directory().join("output");
    let other = dumped.victim.directory().join("other");
    let file = File::options().append(true).create(true).open(&other)?;
    let before = fs::metadata(&output)?.len();
    // CRIU names a file by its path without the slash at its head.
    let key = output.strip_prefix("/")?.display().to_string();
    let mut command = crr::command();
    command.args(["restore", "-d", "--inherit-fd", &format!("fd[7]:{key}"), "--dir"]).arg(&dumped.images);
    with_descriptor(&mut command, file.into(), 7);
    Running::start(&mut command)?.end(SOON * 3)?.must_pass("crr restore --inherit-fd")?;
    let ticks = until("ticks in the other file", SOON, || {
        let text = fs::read_to_string(&other).ok()?;
        (text.lines().filter(|line| line.starts_with("tick ")).count() >= 3).then_some(text)
    });
    let after = fs::metadata(&output)?.len();
    dumped.gone()?;
    ticks?;
    ensure!(before == after, "{} bytes went to the file that was replaced", after - before);
    Ok(())
}

fn join_ns(by_file: bool) -> Outcome {
    let mut dumped = Dumped::pair()?;
    let mut command = Command::new("unshare");
    let holder = Running::start(command.args(["--net", "sleep", "1000"]))?;
    let network = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network(std::process::id().try_into()?);
    let wanted =
        until("a network namespace", SOON, || network(holder.pid()).filter(|theirs| Some(theirs) != own.as_ref()))?;
    let place = match by_file {
        true => format!("net:/proc/{}/ns/net", holder.pid()),
        false => format!("net:{}", holder.pid()),
    };
    crr::restore(&dumped.images, &["--join-ns", &place])?.must_pass("crr restore --join-ns")?;
    let joined = network(dumped.victim.pid());
    ensure!(joined.as_ref() == Some(&wanted), "the tree is in {joined:?}, not in {wanted:?}");
    dumped.intact()
}

/// A restore in the foreground whose object goes to descriptor 7.
fn foreground(images: &Path, told: &Path) -> Result<Running, Failed> {
    let mut command = crr::command();
    command.args(["restore", "--json", "--json-fd", "7", "--dir"]).arg(images);
    with_descriptor(&mut command, File::create(told)?.into(), 7);
    Running::start(&mut command)
}

fn json_fd() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let told = dumped.victim.directory().join("told");
    let running = foreground(&dumped.images, &told)?;
    let object: Value = until("the object", SOON, || serde_json::from_slice(&fs::read(&told).ok()?).ok())?;
    let root = dumped.victim.pid();
    ensure!(object["ok"] == true && object["pid"] == root, "{object}");
    dumped.victim.self_check()?;
    kill(Pid::from_raw(root), Signal::SIGKILL)?;
    let ran = running.end(SOON)?.must_exit(137, "crr whose tree was killed")?;
    ensure!(ran.stdout.is_empty(), "standard output is the tree's, and has: {}", ran.stdout);
    dumped.gone()
}

fn json_fd_of_a_failure() -> Outcome {
    let dumped = Dumped::pair()?;
    let told = dumped.victim.directory().join("told");
    fs::remove_file(dumped.images.join("pstree.img"))?;
    foreground(&dumped.images, &told)?.end(Duration::from_secs(20))?.must_exit(65, "a restore without pstree.img")?;
    let object: Value = serde_json::from_slice(&fs::read(&told)?)?;
    ensure!(object["ok"] == false, "{object}");
    dumped.nothing_runs()
}
