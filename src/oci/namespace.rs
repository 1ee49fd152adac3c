//! Namespaces of a container.

use std::path::PathBuf;

/// A namespace that a container does not share with its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Which.
    pub kind: NamespaceKind,
    /// The file that it was joined by; absent if it was made for the container.
    pub path: Option<PathBuf>,
}

/// The kinds of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum NamespaceKind {
    Cgroup,
    Ipc,
    Mount,
    Network,
    Pid,
    Time,
    User,
    Uts,
}

impl NamespaceKind {
    /// All, in the order of their names in state.json.
    pub const ALL: [Self; 8] =
        [Self::Cgroup, Self::Ipc, Self::Network, Self::Mount, Self::Pid, Self::Time, Self::User, Self::Uts];

    /// The name in config.json.
    pub fn in_config(self) -> &'static str {
        self.names().0
    }

    /// The name in runc's state.json.
    pub fn in_state(self) -> &'static str {
        self.names().1
    }

    /// The file below `/proc/PID/ns`.
    pub fn in_proc(self) -> &'static str {
        self.names().2
    }

    pub(super) fn from_config(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.in_config() == name)
    }

    pub(super) fn from_state(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.in_state() == name)
    }

    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Cgroup => ("cgroup", "NEWCGROUP", "cgroup"),
            Self::Ipc => ("ipc", "NEWIPC", "ipc"),
            Self::Mount => ("mount", "NEWNS", "mnt"),
            Self::Network => ("network", "NEWNET", "net"),
            Self::Pid => ("pid", "NEWPID", "pid"),
            Self::Time => ("time", "NEWTIME", "time"),
            Self::User => ("user", "NEWUSER", "user"),
            Self::Uts => ("uts", "NEWUTS", "uts"),
        }
    }
}
