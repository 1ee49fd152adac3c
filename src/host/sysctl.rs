//! Settings of the kernel that matter. None is ever changed: the command that does it is named.

use std::path::Path;

use serde::Serialize;

use super::capability::Capabilities;

/// CRIU moves pages of a post-copy through a pipe of this size.
const PIPE_BYTES: u64 = 4 << 20;

/// Above this the walk through the table costs a dump of a network namespace more than 2 ms (19 ms at 262144).
const CONNTRACK_BUCKETS: u64 = 1 << 15;

/// A setting of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// Its name, as sysctl(8) spells it.
    pub name: &'static str,
    /// Its value; `None` where this kernel has no such setting.
    pub value: Option<String>,
    /// What should be different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
}

/// What should be different about a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What the present value does.
    pub why: String,
    /// The command that changes it; `None` where none can.
    pub command: Option<String>,
}

/// The settings that matter, as they are.
pub fn sysctls(held: &Capabilities) -> Vec<Sysctl> {
    assess(held, |name| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
    })
}

fn assess(held: &Capabilities, read: impl Fn(&str) -> Option<String>) -> Vec<Sysctl> {
    let sysctl = |name, advise: &dyn Fn(u64) -> Option<Advice>| {
        let value = read(name);
        let advice = value.as_deref().and_then(|value| value.parse().ok()).and_then(advise);
        Sysctl { name, value, advice }
    };
    let set =
        |name: &str, value: u64, why: String| Some(Advice { why, command: Some(format!("sysctl -w {name}={value}")) });
    let pipe = "fs.pipe-max-size";
    let buckets = "net.netfilter.nf_conntrack_buckets";
    vec![
        sysctl(pipe, &|value| match value < PIPE_BYTES && !held.has_sys_resource() {
            true => set(
                pipe,
                PIPE_BYTES,
                format!(
                    "post-copy fails at its first page: it needs a pipe of {PIPE_BYTES} bytes, and CAP_SYS_RESOURCE is missing"
                ),
            ),
            false => None,
        }),
        sysctl(buckets, &|value| match value > CONNTRACK_BUCKETS {
            true => set(
                buckets,
                16384,
                format!(
                    "a dump of a network namespace walks all {value} buckets of the connection table twice, frozen"
                ),
            ),
            false => None,
        }),
        sysctl("kernel.yama.ptrace_scope", &|value| match value >= 3 {
            true => Some(Advice {
                why: "no process may be traced, so none can be dumped; the kernel takes this back only by a reboot"
                    .into(),
                command: None,
            }),
            false => None,
        }),
        sysctl("kernel.ns_last_pid", &|_| None),
        sysctl("kernel.pid_max", &|_| None),
        sysctl("vm.unprivileged_userfaultfd", &|_| None),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(missing: &[&str], name: &str, value: &str) -> Option<Advice> {
        let held = Capabilities::all_but(missing);
        let all = assess(&held, |asked| (asked == name).then(|| value.to_owned()));
        all.into_iter().find(|sysctl| sysctl.name == name).expect(name).advice
    }

    #[test]
    fn small_pipes_matter_only_without_sys_resource() {
        let command =
            |missing: &[&str], value| advice(missing, "fs.pipe-max-size", value).and_then(|advice| advice.command);
        assert_eq!(command(&["CAP_SYS_RESOURCE"], "1048576").as_deref(), Some("sysctl -w fs.pipe-max-size=4194304"));
        assert_eq!(command(&["CAP_SYS_RESOURCE"], "4194304"), None);
        assert_eq!(command(&[], "1048576"), None);
    }

    #[test]
    fn a_forbidden_ptrace_has_no_cure_by_command() {
        assert_eq!(advice(&[], "kernel.yama.ptrace_scope", "3").map(|advice| advice.command), Some(None));
        assert_eq!(advice(&[], "kernel.yama.ptrace_scope", "2"), None);
        assert_eq!(advice(&[], "kernel.yama.ptrace_scope", "garbage"), None);
    }

    #[test]
    fn a_huge_connection_table_is_named() {
        assert!(advice(&[], "net.netfilter.nf_conntrack_buckets", "262144").is_some());
        assert!(advice(&[], "net.netfilter.nf_conntrack_buckets", "16384").is_none());
    }
}
