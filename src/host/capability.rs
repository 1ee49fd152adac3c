//! Capabilities: those that CRIU uses, and which of them this process holds.

use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

use crate::error::{Error, Result};

/// A capability that CRIU uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name, such as `CAP_SYS_ADMIN`.
    pub name: &'static str,
    /// What does not work without it.
    pub without: &'static str,
    /// Whether no dump or restore as root works without it. The others are needed by some trees only.
    pub always: bool,
    bit: CapabilitySet,
}

const fn needed(bit: CapabilitySet, name: &'static str, without: &'static str) -> Capability {
    Capability { name, without, always: true, bit }
}

const fn helpful(bit: CapabilitySet, name: &'static str, without: &'static str) -> Capability {
    Capability { name, without, always: false, bit }
}

/// The capabilities that CRIU uses.
pub const WANTED: &[Capability] = &[
    needed(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", "namespaces, mounts and PIDs cannot be restored"),
    needed(CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE", "processes of others cannot be stopped and read"),
    needed(CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "files of others cannot be opened"),
    needed(CapabilitySet::SETUID, "CAP_SETUID", "user IDs cannot be restored"),
    needed(CapabilitySet::SETGID, "CAP_SETGID", "group IDs cannot be restored"),
    needed(CapabilitySet::SETPCAP, "CAP_SETPCAP", "capabilities of processes cannot be restored"),
    needed(CapabilitySet::KILL, "CAP_KILL", "processes of others cannot be killed after the dump"),
    helpful(CapabilitySet::CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE", "included in CAP_SYS_ADMIN"),
    helpful(
        CapabilitySet::NET_ADMIN,
        "CAP_NET_ADMIN",
        "TCP connections cannot be kept, and network namespaces not restored",
    ),
    helpful(
        CapabilitySet::SYS_RESOURCE,
        "CAP_SYS_RESOURCE",
        "hard limits that were lowered and OOM scores below this process's cannot be restored, nor processes of other users \
         with limits above its own; post-copy needs fs.pipe-max-size of 4 MiB",
    ),
    helpful(
        CapabilitySet::SYS_CHROOT,
        "CAP_SYS_CHROOT",
        "processes with a root directory of their own cannot be restored",
    ),
    helpful(CapabilitySet::CHOWN, "CAP_CHOWN", "deleted files of others cannot be restored"),
    helpful(CapabilitySet::FOWNER, "CAP_FOWNER", "modes of deleted files of others cannot be restored"),
    helpful(CapabilitySet::FSETID, "CAP_FSETID", "set-user-ID bits of deleted files are lost"),
    helpful(CapabilitySet::MKNOD, "CAP_MKNOD", "device nodes of containers cannot be restored"),
    helpful(CapabilitySet::NET_RAW, "CAP_NET_RAW", "raw and packet sockets cannot be restored"),
    helpful(CapabilitySet::SYS_NICE, "CAP_SYS_NICE", "real-time priorities cannot be restored"),
    helpful(CapabilitySet::IPC_LOCK, "CAP_IPC_LOCK", "locked memory above the limit cannot be restored"),
    helpful(CapabilitySet::IPC_OWNER, "CAP_IPC_OWNER", "System V IPC objects of others cannot be read"),
    helpful(CapabilitySet::AUDIT_CONTROL, "CAP_AUDIT_CONTROL", "login user IDs that are set cannot be restored"),
];

/// The capabilities this process can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

impl Capabilities {
    /// Those in the effective set of the calling thread.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel does not tell.
    pub fn held() -> Result<Self> {
        let sets = capabilities(None).map_err(|errno| Error::system("read the capabilities of this process", errno))?;
        Ok(Self(sets.effective))
    }

    /// Whether it is held.
    pub fn has(&self, capability: &Capability) -> bool {
        self.0.contains(capability.bit)
    }

    /// Whether `CAP_SYS_RESOURCE` is held.
    pub fn has_sys_resource(&self) -> bool {
        self.0.contains(CapabilitySet::SYS_RESOURCE)
    }

    /// Whether `CAP_NET_ADMIN` is held.
    pub fn has_net_admin(&self) -> bool {
        self.0.contains(CapabilitySet::NET_ADMIN)
    }

    /// Those of [`WANTED`] that are missing.
    pub fn missing(&self) -> impl Iterator<Item = &'static Capability> {
        WANTED.iter().filter(|capability| !self.has(capability))
    }

    /// Capabilities for a test: all that are wanted but those named.
    #[cfg(test)]
    pub(crate) fn all_but(missing: &[&str]) -> Self {
        let held = WANTED.iter().filter(|capability| !missing.contains(&capability.name));
        Self(held.fold(CapabilitySet::empty(), |set, capability| set | capability.bit))
    }
}

/// As `{"held": [names], "missing": [names]}`.
impl Serialize for Capabilities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let (held, missing): (Vec<_>, Vec<_>) = WANTED.iter().partition(|capability| self.has(capability));
        let names = |list: Vec<&Capability>| list.iter().map(|capability| capability.name).collect::<Vec<_>>();
        let mut out = serializer.serialize_struct("Capabilities", 2)?;
        out.serialize_field("held", &names(held))?;
        out.serialize_field("missing", &names(missing))?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named() {
        let held = Capabilities::all_but(&["CAP_SYS_RESOURCE"]);
        assert!(!held.has_sys_resource());
        assert_eq!(held.missing().map(|capability| capability.name).collect::<Vec<_>>(), ["CAP_SYS_RESOURCE"]);
        let json = serde_json::to_value(held).expect("JSON");
        assert_eq!(json["missing"], serde_json::json!(["CAP_SYS_RESOURCE"]));
        assert!(json["held"].as_array().is_some_and(|held| held.len() == WANTED.len() - 1));
    }
}
