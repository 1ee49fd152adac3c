//! A place in which one test runs its containers, and of which nothing is left when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::crr::{self, Ran, Running};
use crate::ensure;
use crate::until::{SOON, until};

use super::bundle::Bundle;
use super::output::Output;
use super::runtime::Runtime;
use super::snapshot;

/// The longest a command of a runtime may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// In the names of all cgroups and containers of all beds.
pub(crate) const MARK: &str = "-crrbed";

static BEDS: AtomicU32 = AtomicU32::new(0);

/// A runtime with a root, and a directory for bundles and images.
pub(crate) struct Bed {
    runtime: Runtime,
    /// At the end of all its containers' names, and of nobody else's.
    tag: String,
    directory: TempDir,
    root: PathBuf,
}

impl Bed {
    pub(crate) fn new(runtime: Runtime) -> Result<Self, Failed> {
        Self::with_root(runtime, None)
    }

    /// As [`Bed::new`], with the runtime's root at a place that is not the bed's own.
    pub(crate) fn with_root(runtime: Runtime, root: Option<&Path>) -> Result<Self, Failed> {
        let tag = format!("{MARK}{}x{}", std::process::id(), BEDS.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new().prefix("crr-bed.").tempdir()?;
        let root = root.map_or_else(|| directory.path().join("root"), Path::to_owned);
        fs::create_dir_all(&root)?;
        Ok(Self { runtime, tag, directory, root })
    }

    /// A bed for another runtime, whose containers have the same names: their cgroups have the same paths.
    pub(crate) fn beside(&self, runtime: Runtime, root: Option<&Path>) -> Result<Self, Failed> {
        let mut other = Self::with_root(runtime, root)?;
        other.tag.clone_from(&self.tag);
        Ok(other)
    }

    pub(crate) fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// What the runtime calls `--root`, and crr `--runtime-root`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the bed's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What every name of a container or cgroup of this bed ends in.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The ID of the container that the test calls `name`.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{name}{}", self.tag)
    }

    /// A new bundle in the bed's directory.
    pub(crate) fn bundle(&self, name: &str) -> Result<Bundle, Failed> {
        Bundle::create(self.path(name), self.runtime)
    }

    /// The runtime with the options before the command.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.runtime.command();
        command.arg("--root").arg(self.root());
        command
    }

    /// `run -d`: starts a container from a bundle, which is written first.
    pub(crate) fn run(&self, name: &str, bundle: &Bundle, streams: [Stdio; 3]) -> Result<Container<'_>, Failed> {
        self.launch("run", name, bundle, &["-d"], streams)
    }

    /// As [`Bed::run`], with the output on a pipe.
    pub(crate) fn run_on(&self, name: &str, bundle: &Bundle, output: &Output) -> Result<Container<'_>, Failed> {
        let container = self.run(name, bundle, output.streams()?);
        container.map_err(|failed| format!("{}\n{}", failed.message().unwrap_or_default(), output.errors()).into())
    }

    /// The runtime's own `restore -d`.
    pub(crate) fn restore(
        &self,
        name: &str,
        bundle: &Bundle,
        images: &Path,
        more: &[&str],
        output: &Output,
    ) -> Result<Container<'_>, Failed> {
        let work = self.work("restore")?;
        let words = ["-d", "--image-path", text(images)?, "--work-path", text(&work)?];
        let container = self.launch("restore", name, bundle, &[&words, more].concat(), output.streams()?);
        container.map_err(|failed| {
            let log = fs::read_to_string(work.join("restore.log")).unwrap_or_default();
            let (said, log) = (failed.message().unwrap_or_default().to_owned(), crr::decisive(&log));
            format!("{said}\n{}\nCRIU's log: {log}", output.errors()).into()
        })
    }

    /// A command of the runtime's that makes a container of a bundle.
    pub(crate) fn launch(
        &self,
        verb: &str,
        name: &str,
        bundle: &Bundle,
        more: &[&str],
        streams: [Stdio; 3],
    ) -> Result<Container<'_>, Failed> {
        bundle.write()?;
        let log = self.path(&format!("{verb}.{name}.log"));
        let mut command = self.runtime.command();
        command.arg("--log").arg(&log).arg("--root").arg(self.root());
        command.arg(verb).args(more).arg("--bundle").arg(bundle.path()).arg(self.id(name));
        let code = crr::run_on_streams(&mut command, streams, LIMIT)?.code;
        let said = fs::read_to_string(&log).unwrap_or_default();
        ensure!(code == 0, "{} {verb}: exit status {code}: {said}", self.runtime.name());
        Ok(self.container(name))
    }

    /// A directory for CRIU's logs: crun makes none itself.
    fn work(&self, what: &str) -> Result<PathBuf, Failed> {
        Ok(tempfile::Builder::new().prefix(&format!("{what}.")).tempdir_in(self.directory.path())?.keep())
    }

    /// A container of the bed, whether it exists or not.
    pub(crate) fn container(&self, name: &str) -> Container<'_> {
        Container { bed: self, id: self.id(name) }
    }

    /// The IDs that the runtime lists.
    pub(crate) fn list(&self) -> Result<Vec<String>, Failed> {
        let ran = Running::start(self.command().args(["list", "-q"]))?.end(LIMIT)?.must_pass("list")?;
        Ok(ran.stdout.lines().map(str::to_owned).collect())
    }

    /// All processes in a cgroup of one of the bed's containers.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                cgroups.contains(&self.tag)
            })
            .collect()
    }

    /// The mounts below its directory that the tests' own namespace has, the last first.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(self.directory.path())).collect()
    }

    /// Ends all containers and removes all that is left of them.
    pub(crate) fn clear(&self) -> Result<(), Failed> {
        for directory in snapshot::cgroups_of(&self.tag) {
            // Only one of the two is there, and only in some hierarchies.
            let _ = fs::write(directory.join("freezer.state"), "THAWED");
            let _ = fs::write(directory.join("cgroup.freeze"), "0");
        }
        until("the containers' processes to be killed", SOON, || {
            let left = self.processes();
            for pid in &left {
                // It may have ended since it was listed.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        })?;
        // Before `delete`, which would empty what is mounted in its state.
        for point in self.mounts() {
            umount2(&point, MntFlags::MNT_DETACH)?;
        }
        let entries = fs::read_dir(self.root())?.flatten().map(|entry| entry.file_name());
        for id in entries.filter(|id| id.to_string_lossy().ends_with(&self.tag)) {
            // What this does not remove, the following does.
            let _ = Running::start(self.command().args(["delete", "--force"]).arg(id))?.end(LIMIT)?;
        }
        // A listing may miss some while others are made and removed beside them.
        let mut missed = 0;
        until("the containers' cgroups to be removed", SOON, || {
            let mut left = snapshot::cgroups_of(&self.tag);
            // The deepest first.
            left.reverse();
            left.iter().for_each(|directory| drop(fs::remove_dir(directory)));
            missed = if left.is_empty() { missed + 1 } else { 0 };
            (missed > 1).then_some(())
        })
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(failed) = self.clear() {
            eprintln!("containers {}: {}", self.tag, failed.message().unwrap_or_default());
        }
    }
}

/// A container of a bed, as its runtime knows it.
pub(crate) struct Container<'a> {
    bed: &'a Bed,
    id: String,
}

impl Container<'_> {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Runs a command of the runtime's for this container: `with("kill", &["TERM"])`.
    pub(crate) fn with(&self, verb: &str, more: &[&str]) -> Result<Ran, Failed> {
        Running::start(self.bed.command().arg(verb).arg(&self.id).args(more))?.end(LIMIT)
    }

    /// What the runtime says of it.
    pub(crate) fn state(&self) -> Result<Value, Failed> {
        Ok(serde_json::from_str(&self.with("state", &[])?.must_pass("state")?.stdout)?)
    }

    /// `running`, `stopped`…
    pub(crate) fn status(&self) -> Result<String, Failed> {
        Ok(self.state()?["status"].as_str().ok_or("no status")?.to_owned())
    }

    /// Waits for that status.
    pub(crate) fn await_status(&self, wanted: &str) -> Result<(), Failed> {
        until(format_args!("{} to be {wanted}", self.id), SOON, || {
            self.status().is_ok_and(|status| status == wanted).then_some(())
        })
    }

    /// Whether the runtime knows of it.
    pub(crate) fn exists(&self) -> bool {
        self.with("state", &[]).is_ok_and(|ran| ran.passed())
    }

    /// The PID of its first process, as the host sees it.
    pub(crate) fn pid(&self) -> Result<i32, Failed> {
        Ok(i32::try_from(self.state()?["pid"].as_i64().ok_or("no pid")?)?)
    }

    /// Runs a command in it, and gives what that printed.
    pub(crate) fn exec(&self, words: &[&str]) -> Result<Ran, Failed> {
        self.with("exec", words)
    }

    /// What a shell in it prints.
    pub(crate) fn sh(&self, line: &str) -> Result<String, Failed> {
        Ok(self.exec(&["/bin/sh", "-c", line])?.must_pass(line)?.stdout)
    }

    /// Sends a signal to its first process.
    pub(crate) fn kill(&self, signal: &str) -> Result<(), Failed> {
        self.with("kill", &[signal])?.must_pass("kill").map(drop)
    }

    /// Kills it and has the runtime forget it.
    pub(crate) fn delete(&self) -> Result<(), Failed> {
        Running::start(self.bed.command().args(["delete", "--force", &self.id]))?
            .end(LIMIT)?
            .must_pass("delete --force")
            .map(drop)
    }

    /// The runtime's own `checkpoint`.
    pub(crate) fn checkpoint(&self, images: &Path, more: &[&str]) -> Result<(), Failed> {
        let work = self.bed.work("checkpoint")?;
        let mut command = self.bed.command();
        command.arg("checkpoint").arg("--image-path").arg(images).arg("--work-path").arg(&work);
        let ran = Running::start(command.args(more).arg(&self.id))?.end(LIMIT)?;
        if !ran.passed() {
            let log = fs::read_to_string(work.join("dump.log")).unwrap_or_default();
            let (code, said, log) = (ran.code, &ran.stderr, crr::decisive(&log));
            return Err(format!("checkpoint: exit status {code}: {said}\nCRIU's log: {log}").into());
        }
        Ok(())
    }

    /// All that the runtime's commands must do with a container that counts on `output`: `list`, `state`, `exec`, `pause`,
    /// `resume`, `kill` and `delete`, which end it.
    pub(crate) fn obeys_its_runtime(self, output: &Output) -> Result<(), Failed> {
        ensure!(self.bed.list()?.contains(&self.id), "`list` has no {}", self.id);
        let state = self.state()?;
        ensure!(state["status"] == "running", "{state}");
        // The executed process is a sibling: it sees the container's init as 1, and shares its cgroups.
        let pid = self.pid()?;
        let seen = self.sh("cat /proc/1/cmdline; readlink /proc/self/ns/pid; cat /proc/self/cgroup")?;
        let namespace = fs::read_link(format!("/proc/{pid}/ns/pid"))?;
        ensure!(seen.contains(text(&namespace)?), "exec came into another namespace than {namespace:?}: {seen}");
        output.await_numbers(1)?;
        self.with("pause", &[])?.must_pass("pause")?;
        self.await_status("paused")?;
        let paused_at = output.numbers().len();
        ensure!(
            until("a number from a paused container", Duration::from_millis(500), || {
                (output.numbers().len() > paused_at + 1).then_some(())
            })
            .is_err(),
            "it counts while it is paused"
        );
        self.with("resume", &[])?.must_pass("resume")?;
        output.await_numbers(2)?;
        self.kill("KILL")?;
        self.await_status("stopped")?;
        self.with("delete", &[])?.must_pass("delete")?;
        ensure!(!self.exists(), "`state` knows it after `delete`");
        ensure!(!self.bed.root().join(&self.id).exists(), "its state directory is left");
        // `delete` gives up on cgroups that are still busy for a moment, and so do its processes on their way out.
        until("its cgroups to be gone", SOON, || snapshot::cgroups_of(&self.id).is_empty().then_some(()))
    }
}

fn text(path: &Path) -> Result<&str, Failed> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}
