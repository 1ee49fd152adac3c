//! Restores of a process of 1 GiB that are ended while CRIU fills its memory.

use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::memory::Large;
use super::paused::{KILLED, children};
use super::{await_end, goes_on};
use crate::crr::{Ran, Running};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::state;
use crate::{Outcome, crr, ensure, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

/// CRIU is in the middle of it when the process has so much, in bytes.
const SOME: u64 = 64 << 20;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("a_restore_ended_in_mid_memory_leaves_nothing_and_the_next_one_passes", NEEDS, ended),
        test("a_restore_whose_deadline_passes_leaves_nothing", NEEDS, deadline),
    ]
}

/// The memory that a process has, in bytes.
fn resident(pid: i32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// A restore that stands still: the process that gets its memory, and CRIU.
struct Filling {
    running: Running,
    criu: i32,
    root: i32,
}

impl Filling {
    fn start(directory: &Path, root: i32, words: &[&str]) -> Result<Self, Failed> {
        let mut command = crr::command();
        command.args(["restore", "-d", "--no-verify", "--dir"]).arg(directory).args(words);
        let running = Running::start(&mut command)?;
        until("CRIU to fill the memory", SOON * 3, || (resident(root) >= SOME).then_some(()))?;
        kill(Pid::from_raw(root), Signal::SIGSTOP)?;
        let criu = children(running.pid()).into_iter().find(|child| *child != root).ok_or("there is no CRIU")?;
        kill(Pid::from_raw(criu), Signal::SIGSTOP)?;
        until("CRIU to stop", SOON, || (state(criu) == Some('T')).then_some(()))?;
        ensure!(resident(root) < 1 << 30, "the memory was whole before CRIU could be stopped");
        Ok(Self { running, criu, root })
    }

    fn go_on(self) -> Result<Ran, Failed> {
        for pid in [self.root, self.criu] {
            // What is not there any more need not go on.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        let ran = self.running.end(SOON * 3)?;
        await_end(self.criu)?;
        Ok(ran)
    }
}

fn ended() -> Outcome {
    let mut large = Large::start()?;
    let (directory, tree) = (large.directory(), large.tree.clone());
    crr::dump(large.victim.pid(), &directory, &["--no-sync", "--no-hash"])?.must_pass("crr dump")?;
    large.victim.await_gone(&tree)?;
    let root = tree[0];
    for (whom, signal, code) in [
        ("crr", Signal::SIGINT, 82),
        ("crr", Signal::SIGTERM, 82),
        ("CRIU", Signal::SIGKILL, 76),
        ("crr", Signal::SIGKILL, KILLED),
    ] {
        let filling = Filling::start(&directory, root, &[])?;
        let pid = if whom == "crr" { filling.running.pid() } else { filling.criu };
        kill(Pid::from_raw(pid), signal)?;
        filling.go_on()?.must_exit(code, &format!("a restore whose {whom} got {signal} in mid-memory"))?;
        let left = large.victim.await_gone(&tree);
        left.map_err(|_| format!("{signal} for {whom}: {:?} is left", large.victim.processes()))?;
    }
    crr::restore(&directory, &[])?.must_pass("the next restore")?;
    goes_on(&large.victim, &tree)?;
    large.victim.end()
}

fn deadline() -> Outcome {
    let mut large = Large::start()?;
    let (directory, tree) = (large.directory(), large.tree.clone());
    crr::dump(large.victim.pid(), &directory, &["--no-sync", "--no-hash"])?.must_pass("crr dump")?;
    large.victim.await_gone(&tree)?;
    let filling = Filling::start(&directory, tree[0], &["--deadline", "1"])?;
    let crr = filling.running.pid();
    // CRIU, which stands still, owes an answer for longer than that.
    let socket = || {
        fs::read_dir(format!("/proc/{crr}/fd")).map_or(0, |fds| {
            let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
        })
    };
    let before = socket();
    until("crr to give CRIU up", SOON, || (socket() < before).then_some(()))?;
    filling.go_on()?.must_exit(75, "a restore whose deadline passed")?;
    large.victim.await_gone(&tree)?;
    crr::restore(&directory, &[])?.must_pass("the next restore")?;
    goes_on(&large.victim, &tree)?;
    large.victim.end()
}
