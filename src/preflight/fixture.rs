//! Trees made up for the tests of the rules.
//!
//! PIDs are far above what a kernel gives, so that a rule that looks at the machine finds nobody there.

use std::path::PathBuf;

use crate::process::{
    Credentials, Descriptor, Extra, Family, FileStatus, Kind, Mapping, Memory, Mount, Namespaces, Place, Socket, Stat,
    Status, Task, Transport, Tree, UnixSocket, own_inherited,
};

use super::circumstances::{Capabilities, Circumstances, KernelRelease};
use super::examine::examine_tree;
use super::intent::Intent;
use super::report::{Level, Report};

/// The PID of the root of every made-up tree.
pub(super) const ROOT: i32 = 90_000_001;
/// The PID of a child.
pub(super) const CHILD: i32 = 90_000_002;
const ALL_CAPABILITIES: u64 = 0x1ff_ffff_ffff;

pub(super) fn namespaces() -> Namespaces {
    Namespaces {
        mnt: 1,
        pid: 2,
        net: 3,
        ipc: 4,
        uts: 5,
        user: 6,
        cgroup: 7,
        time: 8,
        pid_for_children: 2,
        time_for_children: 8,
    }
}

/// A task without anything out of the ordinary.
pub(super) fn task(pid: i32, ppid: i32) -> Task {
    let stat = Stat {
        pid,
        ppid,
        pgid: ROOT,
        sid: ROOT,
        comm: "made-up".into(),
        state: 'S',
        threads: 1,
        exit_signal: libc::SIGCHLD,
        ..Stat::default()
    };
    let status = Status {
        has_memory: true,
        credentials: Credentials::default(),
        namespace_pids: vec![pid],
        namespace_sids: vec![ROOT],
        ..Status::default()
    };
    Task {
        stat,
        status,
        threads: Vec::new(),
        namespaces: namespaces(),
        shares_memory_with: None,
        shares_directory_with: None,
        inherited: own_inherited().expect("of this very process"),
        descriptors: Vec::new(),
        unreadable: false,
        memory: Memory { mappings: 20, has_vdso: true, ..Memory::default() },
        program: None,
        directory: None,
        root: Some(Place { path: PathBuf::from("/"), deleted: false, status: None }),
        cgroups: Vec::new(),
    }
}

pub(super) fn descriptor(fd: i32, kind: Kind, path: &str) -> Descriptor {
    Descriptor {
        fd,
        kind,
        path: PathBuf::from(path),
        deleted: false,
        flags: libc::O_RDWR as u32,
        mount: 27,
        inode: 0,
        status: None,
        locks: Vec::new(),
        extra: Extra::None,
    }
}

/// A descriptor of the character device `major`:`minor`.
pub(super) fn device(fd: i32, major: u64, minor: u64, path: &str) -> Descriptor {
    let special_device = nix::sys::stat::makedev(major, minor);
    let status = FileStatus { special_device, mode: libc::S_IFCHR, links: 1, ..FileStatus::default() };
    let mount = if major == 136 { 29 } else { 27 };
    Descriptor { status: Some(status), mount, ..descriptor(fd, Kind::CharacterDevice, path) }
}

/// A regular file whose names are all gone.
pub(super) fn deleted(fd: i32, inode: u64, allocated_bytes: u64) -> Descriptor {
    let status = FileStatus { inode, device: 5, mode: libc::S_IFREG, allocated_bytes, ..FileStatus::default() };
    Descriptor { status: Some(status), deleted: true, ..descriptor(fd, Kind::Regular, "/nowhere/file") }
}

pub(super) fn mapping(line: &str) -> Mapping {
    Mapping::parse(line.as_bytes()).expect("a line of maps")
}

pub(super) fn socket(inode: u64, family: Family, transport: Transport) -> Socket {
    Socket {
        inode,
        pid: ROOT,
        fd: 4,
        family,
        transport,
        local: None,
        peer: None,
        readable: false,
        network: None,
        unix: (family == Family::Unix).then(UnixSocket::default),
    }
}

/// A tree whose root is `root`, with the root mount of its namespace.
pub(super) fn tree(tasks: Vec<Task>) -> Tree {
    let mut tree = Tree::of(tasks, namespaces());
    let lines: [&[u8]; 2] = [b"27 1 254:0 / / rw - ext4 /dev/vda rw", b"29 27 0:26 / /dev/pts rw - devpts devpts rw"];
    let mounts = lines.iter().map(|line| Mount::parse(line).expect("a line of mountinfo"));
    tree.mounts.insert(1, mounts.collect());
    tree
}

pub(super) fn with_sockets(sockets: Vec<Socket>) -> Tree {
    let mut made = tree(vec![task(ROOT, 1)]);
    made.sockets = sockets.into_iter().map(|socket| (socket.inode, socket)).collect();
    made
}

/// A machine that has everything.
pub(super) fn circumstances() -> Circumstances {
    Circumstances {
        criu: Some("4.2".parse().expect("a version")),
        kernel: Some(KernelRelease { major: 6, minor: 18 }),
        capabilities: Capabilities(ALL_CAPABILITIES),
        pid: 90_000_900,
        user: 0,
        group: 0,
        iptables: true,
    }
}

pub(super) fn examined(tree: &Tree) -> Report {
    examine_tree(tree, &Intent::default(), &circumstances())
}

/// The findings of a report, each as its level and name.
pub(super) fn short(report: &Report) -> Vec<(Level, &'static str)> {
    report.findings.iter().map(|finding| (finding.level, finding.id)).collect()
}
