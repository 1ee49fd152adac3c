//! What a test needs of the machine, and why a machine does not have it.
//!
//! `CRR_TEST_REQUIRE` names the needs whose absence is a failure, separated by commas. `all` stands for all of
//! them: the project's CI machines have everything.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::container::{Runtime, no_busybox, no_cgroup2};
use crate::latency::{LATENCY, turn_ns};
use crate::world;

/// One thing a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// User 0 with CAP_SYS_ADMIN.
    Root,
    /// A CRIU that answers `--version`.
    Criu,
    /// A C compiler named `cc`.
    Cc,
    /// A mount and a network namespace of the tests' own.
    Netns,
    /// /dev/ptmx and a devpts.
    Pty,
    /// `python3`.
    Python3,
    /// `redis-server`.
    RedisServer,
    /// `iptables-restore`.
    Iptables,
    /// `nft`.
    Nft,
    /// A hierarchy of cgroups in which one can be made.
    Cgroups,
    /// The kernel's own threads, which are not seen from within a PID namespace.
    KernelThreads,
    /// A busybox that needs no libraries.
    Busybox,
    /// The unified hierarchy of cgroups.
    Cgroup2,
    /// `podman`.
    Podman,
    /// A kernel whose scheduler can be told how long a task's turns are.
    Turns,
    /// A kernel that can be told how long processors may take to wake up.
    Latency,
    /// A container runtime: see tools/setup-runtimes.
    Runtime(Runtime),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Criu => "criu",
            Self::Cc => "cc",
            Self::Netns => "netns",
            Self::Pty => "pty",
            Self::Python3 => "python3",
            Self::RedisServer => "redis-server",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
            Self::Cgroups => "cgroups",
            Self::KernelThreads => "kernel-threads",
            Self::Busybox => "busybox",
            Self::Cgroup2 => "cgroup2",
            Self::Podman => "podman",
            Self::Turns => "turns",
            Self::Latency => "latency",
            Self::Runtime(runtime) => runtime.name(),
        })
    }
}

impl Need {
    /// Why the need is not met here; `None` when it is.
    pub(crate) fn unmet(self) -> Option<String> {
        match self {
            Self::Root => {
                (!nix::unistd::Uid::effective().is_root() || !has_capability(21)).then(|| "it needs root".into())
            }
            Self::Criu => criu().is_none().then(|| "it needs CRIU, and none was found".into()),
            Self::Cc => no_program("cc"),
            Self::Netns => world::why_not(),
            Self::Pty => (!Path::new("/dev/ptmx").exists()).then(|| "it needs /dev/ptmx".into()),
            Self::Python3 => no_program("python3"),
            Self::RedisServer => no_program("redis-server"),
            Self::Iptables => no_program("iptables-restore"),
            Self::Nft => no_program("nft"),
            Self::Cgroups => no_cgroups(),
            Self::KernelThreads => {
                kernel_thread().is_none().then(|| "no kernel thread is to be seen: this is a PID namespace".into())
            }
            Self::Busybox => no_busybox(),
            Self::Cgroup2 => no_cgroup2(),
            Self::Podman => no_program("podman"),
            Self::Turns => no_turns(),
            Self::Latency => {
                (!Path::new(LATENCY).exists()).then(|| format!("it needs `{LATENCY}`, which is not there"))
            }
            Self::Runtime(runtime) => runtime.unmet(),
        }
    }

    /// Whether `CRR_TEST_REQUIRE` turns the absence into a failure.
    pub(crate) fn is_required(self) -> bool {
        let Ok(required) = std::env::var("CRR_TEST_REQUIRE") else { return false };
        let here = self.to_string();
        required.split(',').map(str::trim).any(|name| name == here || name == "all")
    }
}

/// A thread of the kernel.
pub(crate) fn kernel_thread() -> Option<i32> {
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid: &i32| {
        // Field 7 of what follows the name: flags, of which PF_KTHREAD.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u64>().ok());
        flags.is_some_and(|flags| flags & 0x0020_0000 != 0)
    })
}

/// The CRIU that the tests run directly: `$CRR_CRIU`, else the private prefix's, else PATH's.
pub(crate) fn criu() -> Option<PathBuf> {
    let given = std::env::var_os("CRR_CRIU").map(PathBuf::from);
    given
        .into_iter()
        .chain([PathBuf::from("/opt/crr/criu/bin/criu"), PathBuf::from("criu")])
        .find(|path| runs(Command::new(path).arg("--version")))
}

/// Whether a command ends well; what it says is thrown away.
pub(crate) fn runs(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn no_cgroups() -> Option<String> {
    // Once: two tests would make and remove the same one.
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    WHY.get_or_init(try_cgroups).clone()
}

fn try_cgroups() -> Option<String> {
    let layout = ::crr::host::cgroup::Layout::read().unwrap_or_default();
    let (probe, refused) = ::crr::host::cgroup::OwnCgroup::create(&layout, &format!("probe-{}", std::process::id()));
    let reason = probe.is_empty().then(|| format!("it needs cgroups that can be written: {}", refused.join("; ")));
    probe.remove_if_empty();
    reason
}

fn no_turns() -> Option<String> {
    let since = ::crr::host::KernelRelease::running().is_ok_and(|kernel| kernel.at_least(6, 12));
    let is_told = turn_ns(nix::unistd::getpid().as_raw()).is_some();
    (!since || !is_told).then(|| "it needs Linux 6.12, and /proc/PID/sched".into())
}

fn no_program(name: &str) -> Option<String> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).is_file()));
    (!found).then(|| format!("it needs `{name}`, which is not installed"))
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(effective.trim(), 16).is_ok_and(|mask| mask & (1 << number) != 0)
}
