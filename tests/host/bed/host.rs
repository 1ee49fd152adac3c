//! One host of a bed: its programs, files, addresses and its cable.

use std::ffi::{CString, OsStr};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::crr::{Ran, Running};
use crate::need;
use crate::spawning;
use crate::until::{SOON, until};

use super::cgroups::Cgroups;

/// The longest a command in a host may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A host. Programs in it are started by `nsenter`, and belong to its cgroups from their first instruction.
pub(crate) struct Host {
    name: String,
    number: usize,
    /// Outside: the PID of its first process, and of the switch.
    pub(super) init: i32,
    switch: i32,
    /// By which a process enters its cgroups.
    pub(super) entries: Vec<CString>,
}

/// How a host is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The cable is pulled: the host sees its link go down.
    Cable,
    /// Nothing comes through and nobody is told.
    Silence,
}

/// A program that runs detached in a host, in a session of its own.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Its PID in the host.
    pub(crate) pid: i32,
    /// Where in the host its output goes.
    pub(crate) output: String,
}

impl Host {
    pub(super) fn new(name: &str, number: usize, switch: i32, made: &Value) -> Result<Self, Failed> {
        let init = i32::try_from(made["init"].as_i64().ok_or("no PID")?)?;
        let cgroups = made["cgroups"].as_array().ok_or("no cgroups")?.iter().filter_map(Value::as_str);
        let directories: Vec<PathBuf> = cgroups.map(PathBuf::from).collect();
        Ok(Self { name: name.to_owned(), number, init, switch, entries: Cgroups::entries(&directories) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its own address on the segment.
    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(self.number).unwrap_or(u8::MAX))
    }

    /// A file of the host as it is seen from outside.
    pub(crate) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        Path::new(&format!("/proc/{}/root", self.init)).join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// What is in a file of the host; nothing if it is not there.
    pub(crate) fn read(&self, inside: impl AsRef<Path>) -> String {
        String::from_utf8_lossy(&fs::read(self.path(inside)).unwrap_or_default()).into_owned()
    }

    /// One of its namespaces, such as `net`.
    pub(crate) fn namespace(&self, name: &str) -> PathBuf {
        format!("/proc/{}/ns/{name}", self.init).into()
    }

    /// The names of all programs that run in the host but its first, sorted.
    pub(crate) fn programs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("/proc")).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let running = pids.filter(|pid| *pid > 1 && self.is_alive(*pid));
        let mut names: Vec<String> =
            running.map(|pid| self.read(format!("/proc/{pid}/comm")).trim().to_owned()).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names
    }

    /// A program in the host, its arguments not yet given: in a session of its own, with no descriptor above 2.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"]).arg(program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("LANG", "C.UTF-8").env("NO_COLOR", "1");
        if let Some(criu) = std::env::var_os("CRR_CRIU") {
            command.env("CRR_CRIU", criu);
        }
        spawning::in_cgroups(&mut command, self.entries.clone());
        spawning::own_session(&mut command);
        command
    }

    /// The crr under test, in the host.
    pub(crate) fn crr(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_crr"))
    }

    /// Runs a program in the host to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Ran, Failed> {
        let mut words = words.into_iter();
        let mut command = self.command(words.next().ok_or("no program")?);
        Running::start_prepared(command.args(words))?.end(LIMIT)
    }

    /// What a shell in the host prints; its failure is the test's.
    pub(crate) fn sh(&self, line: &str) -> Result<String, Failed> {
        Ok(self.run(["sh", "-c", line])?.must_pass(&format!("on host {}: {line}", self.name))?.stdout)
    }

    /// Starts a program in the host, detached, in a session of its own and with all output in a file there.
    pub(crate) fn spawn<S: AsRef<OsStr>>(
        &self,
        output: &str,
        words: impl IntoIterator<Item = S>,
    ) -> Result<Process, Failed> {
        // A job in the background leads no process group: setsid does not fork, and its PID is the program's.
        let line = "out=$1; shift; setsid \"$@\" </dev/null >\"$out\" 2>&1 & echo $!";
        let mut command = self.command("sh");
        command.args(["-c", line, "sh", output]).args(words);
        let ran = Running::start_prepared(&mut command)?.end(LIMIT)?.must_pass("a program to be detached")?;
        Ok(Process { pid: ran.stdout.trim().parse()?, output: output.to_owned() })
    }

    /// Runs the criu program in the host, with its log in the directory of the images.
    pub(crate) fn criu(&self, verb: &str, images: &str, more: &[&str]) -> Result<Ran, Failed> {
        let log = format!("{verb}.log");
        let mut command = self.command(need::criu().ok_or("no criu")?);
        command.args([verb, "-D", images, "-v4", "-o", &log]).args(more);
        let mut ran = Running::start_prepared(&mut command)?.end(LIMIT)?;
        if !ran.passed() {
            ran.stderr += &crate::crr::decisive(&self.read(Path::new(images).join(log)));
        }
        Ok(ran)
    }

    /// The state of a process of the host, as in /proc/PID/stat; `None` when there is none.
    pub(crate) fn state(&self, pid: i32) -> Option<char> {
        let stat = self.read(format!("/proc/{pid}/stat"));
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    }

    /// Whether a process of the host is there, and not only a zombie.
    pub(crate) fn is_alive(&self, pid: i32) -> bool {
        !matches!(self.state(pid), None | Some('Z' | 'X'))
    }

    /// Sends a signal to a process of the host: `"KILL"`.
    pub(crate) fn kill(&self, pid: i32, signal: &str) -> Result<(), Failed> {
        self.sh(&format!("kill -{signal} {pid}")).map(drop)
    }

    /// Waits until a process of the host is gone, zombies included.
    pub(crate) fn await_gone(&self, pid: i32) -> Result<(), Failed> {
        until(format_args!("PID {pid} of host {} to be gone", self.name), SOON, || {
            self.state(pid).is_none().then_some(())
        })
    }

    /// The names of the nf_tables tables in the host.
    pub(crate) fn tables(&self) -> Result<Vec<String>, Failed> {
        let listed = self.sh("nft list tables")?;
        Ok(listed.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect())
    }

    /// Gives the host one more address on its segment, with nobody told.
    pub(crate) fn add_address(&self, address: &str) -> Result<(), Failed> {
        self.sh(&format!("ip addr add {address} dev eth0 $(expr {address} : '.*:' >/dev/null && echo nodad)")).map(drop)
    }

    /// Cuts the host off.
    pub(crate) fn cut(&self, cut: Cut) -> Result<(), Failed> {
        match cut {
            Cut::Cable => self.at_switch(&["ip", "link", "set", &self.port(), "down"]),
            Cut::Silence => self.at_switch(&["bridge", "link", "set", "dev", &self.port(), "state", "disabled"]),
        }
    }

    /// Ends both ways of being cut off.
    pub(crate) fn heal(&self) -> Result<(), Failed> {
        self.at_switch(&["ip", "link", "set", &self.port(), "up"])?;
        self.at_switch(&["bridge", "link", "set", "dev", &self.port(), "state", "forwarding"])
    }

    /// Limits the host's cable in both directions, as in `100mbit`; `None` ends that.
    pub(crate) fn limit(&self, rate: Option<&str>) -> Result<(), Failed> {
        for (namespace, device) in [(self.switch, self.port()), (self.init, "eth0".to_owned())] {
            // There may be none.
            let _ = in_network(namespace, &["tc", "qdisc", "del", "dev", &device, "root"]);
            if let Some(rate) = rate {
                let words = ["tc", "qdisc", "add", "dev", &device, "root", "tbf", "rate", rate];
                in_network(namespace, &[&words[..], &["burst", "64kb", "latency", "50ms"]].concat())?;
            }
        }
        Ok(())
    }

    /// The host's port on the switch.
    fn port(&self) -> String {
        format!("p{}", self.number)
    }

    fn at_switch(&self, words: &[&str]) -> Result<(), Failed> {
        in_network(self.switch, words)
    }
}

/// Runs a program of the machine in the network namespace of a process.
fn in_network(pid: i32, words: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &pid.to_string(), "--"]).args(words);
    Running::start(&mut command)?.end(LIMIT)?.must_pass(&words.join(" ")).map(drop)
}
