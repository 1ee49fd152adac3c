//! A process tree to be dumped: started in a session of its own, without inherited descriptors, writing to a file.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::spawning;
use crate::until::{SOON, until};

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A tree that tests dump and restore. Dropping it kills all that is left of it and removes its directory.
pub(crate) struct Victim {
    pid: i32,
    child: Child,
    /// In the environment of every process of the tree, by which they are found even when restored.
    mark: String,
    directory: TempDir,
}

/// What `situation` said instead of `ready`.
pub(crate) enum Start {
    Ready(Victim),
    Skipped(String),
}

impl Victim {
    /// Starts a program and waits until it has printed `ready`.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Result<Self, Failed> {
        match Self::try_start(program, arguments)? {
            Start::Ready(victim) => Ok(victim),
            Start::Skipped(reason) => Err(format!("{} says: skip {reason}", program.display()).into()),
        }
    }

    /// As [`Victim::start`], for a program that may say that it cannot do its work here.
    pub(crate) fn try_start(program: &Path, arguments: &[&str]) -> Result<Start, Failed> {
        let mut command = Command::new(program);
        command.args(arguments);
        let mut victim = Self::spawn(&mut command)?;
        let skipped = until("the program to be ready", SOON, || {
            let output = victim.output();
            if let Some(reason) = output.lines().find_map(|line| line.strip_prefix("skip ")) {
                return Some(Ok(Some(reason.to_owned())));
            }
            if output.lines().any(|line| line == "ready") {
                return Some(Ok(None));
            }
            let ended = victim.child.try_wait().ok().flatten()?;
            (!output.contains("victim ")).then(|| Err(format!("the program ended ({ended}): {output}")))
        })??;
        if let Some(reason) = skipped {
            return Ok(Start::Skipped(reason));
        }
        if let Some(pid) = victim.said("victim ").last() {
            victim.pid = pid.parse()?;
        }
        Ok(Start::Ready(victim))
    }

    /// Starts a command; its work directory is an empty one.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Failed> {
        let directory = tempfile::Builder::new().prefix("crr-host.").tempdir()?;
        let output = output_file(directory.path())?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Self::launch(command, directory, false)
    }

    /// Starts a shell on a terminal of its own. What is written to the file given back is typed; what the terminal shows goes
    /// to the output.
    pub(crate) fn on_terminal() -> Result<(Self, File), Failed> {
        let directory = tempfile::Builder::new().prefix("crr-host.").tempdir()?;
        let mut output = output_file(directory.path())?;
        let pty = nix::pty::openpty(None, None)?;
        let (master, slave) = (File::from(pty.master), pty.slave);
        let mut shown = master.try_clone()?;
        // Ends when the last process on the terminal has: reading gives an error then.
        std::thread::spawn(move || std::io::copy(&mut shown, &mut output));
        let mut command = Command::new("sh");
        command.arg("-i").env("PS1", "").stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        Ok((Self::launch(&mut command, directory, true)?, master))
    }

    fn launch(command: &mut Command, directory: TempDir, has_terminal: bool) -> Result<Self, Failed> {
        let work = directory.path().join("work");
        fs::create_dir(&work)?;
        let mark = format!("CRR_TEST_VICTIM={}.{}.", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let (name, value) = mark.split_once('=').unwrap_or_default();
        command.env(name, value).current_dir(&work);
        if has_terminal {
            spawning::own_terminal(command);
        } else {
            spawning::own_session(command);
        }
        let child = command.spawn().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        let pid = i32::try_from(child.id())?;
        Ok(Self { pid, child, mark, directory })
    }

    /// Makes a descendant the root of the tree that is to be dumped.
    pub(crate) fn narrow_to(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// The PID of the root of the tree.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// A directory of the test's own, which the tree does not use but for its output.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory the tree works in.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Where a test puts its images; it does not exist yet.
    pub(crate) fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    /// All that the tree has printed.
    pub(crate) fn output(&self) -> String {
        let bytes = fs::read(self.directory.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What follows a word at the start of a line of the output.
    pub(crate) fn said(&self, word: &str) -> Vec<String> {
        self.output().lines().filter_map(|line| line.strip_prefix(word).map(str::to_owned)).collect()
    }

    /// The number of the last `tick N`.
    pub(crate) fn last_tick(&self) -> Option<u64> {
        self.said("tick ").last().and_then(|tick| tick.split(' ').next()?.parse().ok())
    }

    /// Waits until the tree has ticked `count` times more.
    pub(crate) fn await_ticks(&self, count: u64) -> Result<(), Failed> {
        let from = self.last_tick().unwrap_or(0);
        until(format_args!("{count} ticks after tick {from}"), SOON, || {
            self.last_tick().is_some_and(|now| now >= from + count).then_some(())
        })
    }

    /// Every tick follows the one before it: none is missing, none came twice.
    pub(crate) fn ticks_without_gap(&self) -> Result<(), Failed> {
        let ticks: Vec<u64> =
            self.said("tick ").iter().filter_map(|tick| tick.split(' ').next()?.parse().ok()).collect();
        for pair in ticks.windows(2) {
            crate::ensure!(pair[1] == pair[0] + 1, "tick {} came after tick {}", pair[1], pair[0]);
        }
        Ok(())
    }

    /// Asks the tree by SIGUSR1 to look at its own state; waits for `ok`.
    pub(crate) fn self_check(&self) -> Result<(), Failed> {
        let before = self.output().len();
        kill(Pid::from_raw(self.pid), Signal::SIGUSR1)?;
        let answer = until("`ok` from the tree", SOON, || {
            let output = self.output();
            let new = output.get(before..)?;
            new.lines().find(|line| *line == "ok" || line.starts_with("BAD ")).map(str::to_owned)
        })?;
        crate::ensure!(answer == "ok", "the tree says: {answer}");
        Ok(())
    }

    /// What the tree finds wrong with its own state; `None` too when it does not answer, as some cannot.
    pub(crate) fn complaint(&self) -> Option<String> {
        let before = self.output().len();
        kill(Pid::from_raw(self.pid), Signal::SIGUSR1).ok()?;
        let answer = until("an answer", Duration::from_millis(1500), || {
            let output = self.output();
            output.get(before..)?.lines().find(|line| *line == "ok" || line.starts_with("BAD ")).map(str::to_owned)
        });
        answer.ok().filter(|answer| answer != "ok")
    }

    /// Whether any process of the tree is there, not counting zombies.
    pub(crate) fn is_there(&self) -> bool {
        !self.processes().is_empty()
    }

    /// The PIDs of the tree: the root and all its descendants.
    pub(crate) fn tree(&self) -> Vec<i32> {
        let mut found = vec![self.pid];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            next += 1;
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
            }
        }
        found
    }

    /// Waits until all of these PIDs, the tree before its dump, are gone and reaped: their numbers are free.
    pub(crate) fn await_gone(&mut self, tree: &[i32]) -> Result<(), Failed> {
        let child = &mut self.child;
        until(format_args!("PIDs {tree:?} to be gone"), SOON, || {
            let _ = child.try_wait();
            tree.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })
    }

    /// Ends the tree by SIGTERM; it must print `end`, and nothing of it may stay.
    pub(crate) fn end(&self) -> Result<(), Failed> {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM)?;
        until("the tree to say `end`", SOON, || self.output().lines().any(|line| line == "end").then_some(()))?;
        until("the tree to end", SOON, || (!self.is_there()).then_some(()))?;
        crate::ensure!(self.said("BAD ").is_empty(), "the tree said: {:?}", self.said("BAD "));
        Ok(())
    }

    /// All processes of the tree and of what stays outside of it: those with its mark in their environment, or that work
    /// below its directory.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let process = PathBuf::from(format!("/proc/{pid}"));
                fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.directory.path()))
                    || fs::read(process.join("environ")).is_ok_and(|environment| {
                        environment.windows(self.mark.len()).any(|window| window == self.mark.as_bytes())
                    })
            })
            .collect()
    }

    /// Kills all processes of the tree, and of what stays outside of it.
    pub(crate) fn kill_all(&self) -> Result<(), Failed> {
        until("the tree to be killed", SOON, || {
            let left = self.processes();
            for pid in &left {
                // It may have ended since it was listed.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        })
    }

    fn remove_traces(&self) {
        for directory in self.said("cgroup-directory ") {
            // It may be gone with the tree, or never have been made.
            let _ = fs::remove_dir(directory);
        }
        for (word, flag) in [("shm ", "-m"), ("sem ", "-s"), ("msg ", "-q")] {
            for id in self.said(word) {
                let _ = Command::new("ipcrm").args([flag, &id]).output();
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point).starts_with(self.directory.path()) {
                let _ = umount2(point, MntFlags::MNT_DETACH);
            }
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.kill_all();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.remove_traces();
    }
}

/// The state letter of a process, as in /proc/PID/stat.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The file for the output: appended to, so that CRIU does not insist on the size it had.
fn output_file(directory: &Path) -> Result<File, Failed> {
    Ok(OpenOptions::new().append(true).create(true).open(directory.join("output"))?)
}
