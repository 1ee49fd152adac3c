//! The process that makes the hosts of a bed, is its switch, and takes everything away.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use libtest_mimic::Failed;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::spawning;
use crate::until::{SOON, until};

use super::cgroups::Cgroups;
use super::init;

/// The first word of the keeper's command line.
pub(super) const ROLE: &str = "bed-keeper";

/// A host as its keeper knows it.
struct Kept {
    cgroups: Cgroups,
    /// Where the host's root was mounted, in its mount namespace.
    _root: TempDir,
    /// `unshare`, whose end is the host's.
    holder: Option<Child>,
    /// The PID of the host's first process outside of it.
    init: i32,
}

/// Makes the hosts, says so, waits for the end of the test, and takes them away.
pub(super) fn main(plan: &str) -> ExitCode {
    let mut hosts = Vec::new();
    let answer = match make(plan, &mut hosts) {
        Ok(()) => {
            let describe = |host: &Kept| json!({ "init": host.init, "cgroups": host.cgroups.directories.iter().collect::<Vec<_>>() });
            json!({ "hosts": hosts.iter().map(describe).collect::<Vec<_>>() })
        }
        Err(failed) => json!({ "failed": failed.message().unwrap_or_default() }),
    };
    println!("{answer}");
    // Nothing is ever written there: this waits for its end.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let mut code = ExitCode::SUCCESS;
    for host in hosts {
        if let Err(failed) = host.end() {
            eprintln!("{}", failed.message().unwrap_or_default());
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn make(plan: &str, hosts: &mut Vec<Kept>) -> Result<(), Failed> {
    let plan: Value = serde_json::from_str(plan)?;
    let names: Vec<&str> = plan["hosts"].as_array().ok_or("no hosts")?.iter().filter_map(Value::as_str).collect();
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut answers = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let cgroups = Cgroups::make(std::process::id(), name)?;
        let root = tempfile::Builder::new().prefix("crr-hosts.").tempdir()?;
        let own = json!({ "name": name, "number": at + 1, "root": root.path(), "shares": plan["shares"] });
        hosts.push(Kept { cgroups, _root: root, holder: None, init: 0 });
        let Some(host) = hosts.last_mut() else { continue };
        let mut holder = start(&own, &host.cgroups.directories)?;
        answers.push(BufReader::new(holder.stdout.take().ok_or("no pipe")?));
        host.holder = Some(holder);
    }
    for (answer, host) in answers.iter_mut().zip(hosts.iter_mut()) {
        let mut said = String::new();
        answer.read_line(&mut said)?;
        match said.trim().parse() {
            Ok(pid) => host.init = pid,
            Err(_) => {
                if let Some(stderr) = host.holder.as_mut().and_then(|holder| holder.stderr.as_mut()) {
                    stderr.read_to_string(&mut said)?;
                }
                return Err(format!("a host did not come up: {said}").into());
            }
        }
    }
    let inits: Vec<i32> = hosts.iter().map(|host| host.init).collect();
    let mut lines = "link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\n".to_owned();
    for (at, pid) in inits.iter().enumerate() {
        let port = format!("p{}", at + 1);
        lines += &format!("link add {port} type veth peer name eth0 netns {pid}\nlink set {port} master br0 up\n");
    }
    batch(Command::new("ip"), &lines)?;
    for (at, pid) in inits.iter().enumerate() {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &pid.to_string(), "ip"]);
        let number = at + 1;
        // Duplicate address detection would take a second, in which the address cannot be used.
        let lines = format!(
            "link set lo up\naddr add 10.77.0.{number}/24 dev eth0\naddr add fd77::{number:x}/64 dev eth0 nodad\nlink set eth0 up\n"
        );
        batch(command, &lines)?;
    }
    Ok(())
}

/// Starts the first process of a host in its namespaces.
fn start(own: &Value, cgroups: &[PathBuf]) -> Result<Child, Failed> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
    command.args(["--net", "--uts", "--ipc", "--cgroup", "--"]);
    command.arg(std::env::current_exe()?).arg(init::ROLE).arg(own.to_string());
    spawning::in_cgroups(&mut command, Cgroups::entries(cgroups));
    spawning::ends_with_its_parent(&mut command);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Runs `ip` with lines of commands.
fn batch(mut command: Command, lines: &str) -> Result<(), Failed> {
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip -batch: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}

impl Kept {
    /// Ends all of its processes and removes what it has outside of its namespaces.
    fn end(mut self) -> Result<(), Failed> {
        if self.init > 0 {
            // The kernel kills all else in the PID namespace with it. It may be gone.
            let _ = kill(Pid::from_raw(self.init), Signal::SIGKILL);
        } else if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
        }
        self.cgroups.remove()?;
        let Some(mut holder) = self.holder else { return Ok(()) };
        until("the end of a host's first process", SOON, || holder.try_wait().ok().flatten()).map(drop)
    }
}
