//! What the machine has.

use std::fmt;
use std::path::PathBuf;

use crate::request::Version;

/// Capabilities that a dump or restore depends on, as the bits of /proc/PID/status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// CAP_SYS_ADMIN.
    pub const SYS_ADMIN: u32 = 21;
    /// CAP_SYS_PTRACE.
    pub const SYS_PTRACE: u32 = 19;
    /// CAP_SYS_RESOURCE.
    pub const SYS_RESOURCE: u32 = 24;

    /// Whether the capability with this number is held.
    pub fn has(self, number: u32) -> bool {
        self.0.checked_shr(number).unwrap_or(0) & 1 == 1
    }
}

/// The kernel's release, as far as rules depend on it: `6.18.44-fc` is 6.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRelease {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelRelease {
    /// Reads the two numbers at the head of a release such as `6.18.44-fc`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the machine has: the CRIU that will do the work, the kernel, and what this process may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// CRIU's version, where it is known.
    pub criu: Option<Version>,
    /// The kernel's release, where it could be read.
    pub kernel: Option<KernelRelease>,
    /// The capabilities this process has.
    pub capabilities: Capabilities,
    /// The PID of this process.
    pub pid: i32,
    /// Its real user ID.
    pub user: u32,
    /// Its real group ID.
    pub group: u32,
    /// Whether an `iptables-restore` is there, which CRIU locks connections with unless told otherwise.
    pub iptables: bool,
}

impl Circumstances {
    /// Those of this process on this machine.
    pub fn here(criu: Option<Version>) -> Self {
        let mut status = crate::process::Status::default();
        let text = std::fs::read("/proc/self/status").unwrap_or_default();
        text.split(|byte| *byte == b'\n').for_each(|line| status.take(line));
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            criu,
            kernel: KernelRelease::parse(&release),
            capabilities: Capabilities(status.credentials.effective_capabilities),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            user: status.credentials.uids[0],
            group: status.credentials.gids[0],
            iptables: in_path("iptables-restore"),
        }
    }
}

/// Whether a program of that name is where CRIU, started with crr's fixed PATH, would look for it.
fn in_path(program: &str) -> bool {
    const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    PLACES.iter().any(|directory| PathBuf::from(directory).join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_ordered() {
        let release = |text| KernelRelease::parse(text);
        assert_eq!(release("6.18.44-fc-v657\n"), Some(KernelRelease { major: 6, minor: 18 }));
        assert!(release("6.16") > release("6.9.12"));
        for bad in ["", "six", "6", "6.x"] {
            assert_eq!(release(bad), None, "{bad}");
        }
    }

    #[test]
    fn capabilities_are_bits() {
        let all_but_one = Capabilities(0x1ff_feff_ffff);
        assert!(all_but_one.has(Capabilities::SYS_ADMIN) && !all_but_one.has(Capabilities::SYS_RESOURCE));
        assert!(!Capabilities(u64::MAX).has(64));
    }

    #[test]
    fn this_machine_has_a_kernel() {
        let here = Circumstances::here(None);
        assert!(here.kernel.is_some());
        assert_eq!(here.pid, std::process::id() as i32);
    }
}
