//! The small situations of tests/programs/situation: which there are, and starting one.

use std::process::Command;

use libtest_mimic::Failed;

use crate::programs;
use crate::victim::{Start, Victim};

/// Situations that take an argument, and the arguments. One that this machine cannot give says so when it is started.
const WITH_ARGUMENT: &[(&str, &[&str])] = &[
    (
        "open_path",
        &[
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty40",
            "/dev/console",
            "/dev/kmsg",
            "/dev/autofs",
            "/dev/fuse",
            "/dev/kvm",
            "/dev/loop-control",
            "/dev/vsock",
            "/dev/cpu_dma_latency",
            "/dev/hwrng",
            "/dev/vga_arbiter",
            "/dev/ptmx",
            "/dev/userfaultfd",
            "/dev/btrfs-control",
            "/dev/vcs",
            "/dev/ttyS0",
            "/dev/loop0",
            "/dev/zram0",
            "/dev/net/tun",
            "/proc/self/maps",
            "/proc/meminfo",
            "/proc/sys/kernel/hostname",
            "/proc/self/ns",
            "/proc/self/fd",
            "/proc/1/status",
            "/proc/self/pagemap",
            "/proc/1",
            "/proc/self/mountinfo",
            "/proc/pressure/cpu",
            "/proc/net/tcp",
            "/sys/devices/system/cpu/online",
            "/sys/fs/cgroup/unified/cgroup.procs",
            "/sys/class/net/lo/address",
        ],
    ),
    ("open_path_rw", &["/dev/loop0", "/dev/kvm", "/dev/fuse"]),
    ("device_mapped", &["/dev/zero", "/dev/loop0"]),
    ("family", &["40,1,0", "40,2,0", "38,5,0", "16,3,0", "44,3,0", "1,3,0", "10,1,6"]),
    ("namespace_descriptor", &["mnt", "net", "uts", "ipc", "user", "pid", "cgroup", "time"]),
    ("netlink", &["0", "4", "9", "12", "15", "16"]),
    ("own_cgroup", &["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"]),
];

/// A situation by its name and, if it takes one, its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    pub(crate) name: String,
    pub(crate) argument: Option<String>,
}

impl std::fmt::Display for Situation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.argument {
            Some(argument) => write!(f, "={argument}"),
            None => Ok(()),
        }
    }
}

impl Situation {
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), argument: None }
    }

    /// Makes the situation; the reason if this machine cannot give it.
    pub(crate) fn start(&self) -> Result<Start, Failed> {
        if self.name == THIRTY_TWO_BITS {
            let flags = &["-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie"];
            return match programs::program_with(THIRTY_TWO_BITS, flags) {
                Ok(program) => Victim::try_start(&program, &[]),
                Err(_) => Ok(Start::Skipped("cc builds no 32-bit program".into())),
            };
        }
        let words: Vec<&str> = std::iter::once(self.name.as_str()).chain(self.argument.as_deref()).collect();
        Victim::try_start(&program()?, &words)
    }
}

const THIRTY_TWO_BITS: &str = "thirtytwo";

fn program() -> Result<std::path::PathBuf, Failed> {
    programs::program_with("situation", &["-pthread", "-lutil", "-lrt"])
}

/// All situations there are; none where the program cannot be built.
pub(crate) fn all() -> Vec<Situation> {
    let Ok(program) = program() else { return Vec::new() };
    let Ok(output) = Command::new(program).arg("--list").output() else { return Vec::new() };
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let plain = names
        .lines()
        .filter(|name| WITH_ARGUMENT.iter().all(|(taking, _)| taking != name))
        .chain([THIRTY_TWO_BITS])
        .map(Situation::named);
    let with_argument = WITH_ARGUMENT.iter().flat_map(|(name, arguments)| {
        arguments.iter().map(|argument| Situation { name: (*name).to_owned(), argument: Some((*argument).to_owned()) })
    });
    let mut all: Vec<Situation> = plain.chain(with_argument).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
