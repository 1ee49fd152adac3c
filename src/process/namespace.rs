//! The namespaces of a task, each by the inode number that names it.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The namespaces a task lives in; 0 where the kernel has none of that kind or the task is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    /// Mounts.
    pub mnt: u64,
    /// Process IDs.
    pub pid: u64,
    /// The network.
    pub net: u64,
    /// SysV IPC and POSIX message queues.
    pub ipc: u64,
    /// The host name.
    pub uts: u64,
    /// User IDs.
    pub user: u64,
    /// The root of the cgroup tree.
    pub cgroup: u64,
    /// Clock offsets.
    pub time: u64,
    /// The PID namespace that its next child is born in; 0 also where that has no process yet, not even its first.
    pub pid_for_children: u64,
    /// The time namespace that its next child is born in.
    pub time_for_children: u64,
}

impl Namespaces {
    /// Reads the links below `directory`, a `/proc/PID/ns`.
    pub fn read(directory: &Path) -> Self {
        let inode = |name: &str| {
            let Ok(link) = fs::read_link(directory.join(name)) else { return 0 };
            parse_link(&link.to_string_lossy()).map_or(0, |(_, inode)| inode)
        };
        Self {
            mnt: inode("mnt"),
            pid: inode("pid"),
            net: inode("net"),
            ipc: inode("ipc"),
            uts: inode("uts"),
            user: inode("user"),
            cgroup: inode("cgroup"),
            time: inode("time"),
            pid_for_children: inode("pid_for_children"),
            time_for_children: inode("time_for_children"),
        }
    }

    /// The kinds in which the two differ, by the names of /proc/PID/ns. A kind unknown of either is passed over.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        self.each()
            .into_iter()
            .zip(other.each())
            .filter(|((_, ours), (_, theirs))| *ours != 0 && *theirs != 0 && ours != theirs)
            .map(|((name, _), _)| name)
            .collect()
    }

    /// Each kind that a task lives in, with its inode.
    pub fn each(&self) -> [(&'static str, u64); 8] {
        [
            ("mnt", self.mnt),
            ("pid", self.pid),
            ("net", self.net),
            ("ipc", self.ipc),
            ("uts", self.uts),
            ("user", self.user),
            ("cgroup", self.cgroup),
            ("time", self.time),
        ]
    }
}

/// The kind and inode in a link such as `net:[4026531833]`.
pub(super) fn parse_link(link: &str) -> Option<(&str, u64)> {
    let (kind, rest) = link.split_once(":[")?;
    Some((kind, rest.strip_suffix(']')?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_taken_apart() {
        assert_eq!(parse_link("net:[4026531833]"), Some(("net", 4_026_531_833)));
        for bad in ["", "net", "net:[", "net:[x]", "net:[1", "/proc/1/ns/net", "net:[99999999999999999999]"] {
            assert_eq!(parse_link(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_unknown_namespace_is_no_difference() {
        let one = Namespaces { mnt: 1, net: 2, ..Namespaces::default() };
        let other = Namespaces { mnt: 1, net: 3, user: 4, ..Namespaces::default() };
        assert_eq!(one.differences(&other), ["net"]);
    }

    #[test]
    fn a_process_has_the_namespaces_of_itself() {
        let own = Namespaces::read(Path::new("/proc/self/ns"));
        assert_ne!(own.mnt, 0);
        assert_eq!(own.differences(&Namespaces::read(Path::new("/proc/self/ns"))), Vec::<&str>::new());
    }
}
