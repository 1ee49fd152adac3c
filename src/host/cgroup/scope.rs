//! A cgroup made by systemd, which owns the tree of cgroups where it runs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Membership;
use crate::swrk::PATH;

/// systemd makes a scope within milliseconds; this is for one that is busy.
const DEADLINE: Duration = Duration::from_secs(5);

/// A transient scope of systemd's, which ends with the last process in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The unit's name, such as `crr-1234.scope`.
    pub unit: String,
}

impl Scope {
    /// Whether systemd runs this machine.
    pub fn is_possible() -> bool {
        Path::new("/run/systemd/system").is_dir()
    }

    /// Has systemd make the scope `NAME.scope` with the process `pid` in it, and waits until the process is there.
    pub(super) fn start(name: &str, pid: i32) -> Result<Self, String> {
        let unit = format!("{name}.scope");
        let before = Membership::of(pid).map_err(|error| error.to_string())?;
        let mut command = Command::new("busctl");
        command.args(arguments(&unit, pid)).env_clear().env("PATH", PATH).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("cannot run busctl: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("systemd makes no scope {unit}: {}", crate::escape::escape(said.trim())));
        }
        // The answer is that the job was queued.
        let deadline = Instant::now() + DEADLINE;
        while Membership::of(pid).map_err(|error| error.to_string())? == before {
            if Instant::now() >= deadline {
                return Err(format!("systemd did not move PID {pid} into {unit} within {} s", DEADLINE.as_secs()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { unit })
    }
}

/// `StartTransientUnit(name, mode, properties, auxiliary units)`; the scope is forgotten even if it failed.
fn arguments(unit: &str, pid: i32) -> Vec<String> {
    let method = [
        "--system",
        "--quiet",
        "call",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
    ];
    let pid = pid.to_string();
    let properties = ["3", "PIDs", "au", "1", &pid, "CollectMode", "s", "inactive-or-failed"];
    let description = ["Description", "s", "process tree restored by crr", "0"];
    let words = method.iter().copied().chain([unit, "fail"]).chain(properties).chain(description);
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_names_unit_and_pid_and_counts_its_properties() {
        let words = arguments("crr-7.scope", 4711);
        let at = words.iter().position(|word| word == "crr-7.scope").expect("the unit");
        assert_eq!(words[at + 1..at + 7], ["fail", "3", "PIDs", "au", "1", "4711"]);
        assert_eq!(words.last().map(String::as_str), Some("0"), "no auxiliary units");
    }
}
