//! Descriptors that CRIU cannot dump.

use std::collections::BTreeSet;

use crate::process::{Descriptor, Extra, Kind, Task, Watch};

use super::devices;
use super::examine::{Examination, described};

/// The kernel objects without a name that CRIU 4.2 can dump.
const SUPPORTED: [&str; 7] = ["eventfd", "eventpoll", "inotify", "fanotify", "signalfd", "timerfd", "pidfd"];
/// The clocks that a timerfd may have for CRIU.
const CLOCKS: [i32; 3] = [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME];
/// The flag of a pidfd that names a thread (PIDFD_THREAD).
const PIDFD_THREAD: u32 = libc::O_EXCL as u32;

pub(super) fn look(examination: &mut Examination<'_>) {
    for task in &examination.tree.tasks {
        for descriptor in &task.descriptors {
            look_at(examination, task, descriptor);
        }
    }
}

fn look_at(examination: &mut Examination<'_>, task: &Task, descriptor: &Descriptor) {
    let fd = descriptor.fd;
    let who = described(task);
    match &descriptor.kind {
        Kind::Anonymous(name) if !SUPPORTED.contains(&name.as_str()) => {
            let (id, cure) = unsupported(name);
            examination.findings.will_not(
                id,
                task.pid(),
                format!("descriptor {fd} of {who} is {}", article(name)),
                cure,
            );
        }
        Kind::Anonymous(name) => look_at_object(examination, task, descriptor, name),
        Kind::CharacterDevice => {
            let device = descriptor.status.map_or(0, |status| status.special_device);
            if devices::is_tun(device) && !has_own_network(examination) {
                examination.findings.will_not(
                    "tun",
                    task.pid(),
                    format!("descriptor {fd} of {who} is {}, and the tree shares the machine's network", descriptor.path.display()),
                    "start the tree in a network namespace of its own (unshare --net): CRIU saves tun devices only there",
                );
            }
            if !devices::is_supported(device) {
                examination.findings.will_not(
                    "device",
                    task.pid(),
                    format!(
                        "descriptor {fd} of {who} is the device {} ({})",
                        descriptor.path.display(),
                        numbers(device)
                    ),
                    devices::cure(device),
                );
            }
        }
        Kind::BlockDevice => {
            let device = descriptor.status.map_or(0, |status| status.special_device);
            examination.findings.will_not(
                "block-device",
                task.pid(),
                format!(
                    "descriptor {fd} of {who} is the block device {} ({})",
                    descriptor.path.display(),
                    numbers(device)
                ),
                "close the device before the dump: CRIU cannot save an open block device",
            );
        }
        Kind::Unknown => examination.findings.will_not(
            "unknown-descriptor",
            task.pid(),
            format!("descriptor {fd} of {who} is {}, of a kind that CRIU cannot save", descriptor.path.display()),
            "close it before the dump",
        ),
        Kind::Pipe if descriptor.flags & libc::O_DIRECT as u32 != 0 => examination.findings.will_not(
            "packet-pipe",
            task.pid(),
            format!("descriptor {fd} of {who} is a pipe in packet mode (O_DIRECT)"),
            "let the program use a pipe without O_DIRECT, or a socket pair: CRIU cannot save such a pipe",
        ),
        Kind::Directory => look_at_process_directory(examination, task, descriptor),
        Kind::Namespace(kind) => look_at_namespace(examination, task, descriptor, kind),
        Kind::Regular | Kind::Symlink | Kind::Fifo | Kind::Pipe | Kind::Socket | Kind::Memfd => {}
    }
}

fn numbers(device: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

/// A name for the object, the finding's name, and what to do.
fn unsupported(name: &str) -> (&'static str, &'static str) {
    match name {
        "io_uring" => (
            "io-uring",
            "turn io_uring off in the program (Node.js: UV_USE_IO_URING=0; nginx, MariaDB and others have a setting): CRIU cannot save it",
        ),
        "perf_event" => ("perf-event", "end the measurement (perf, a profiler) before the dump"),
        "userfaultfd" => ("userfaultfd", "the program handles page faults itself, which CRIU cannot save"),
        "bpf-map" | "bpf-prog" | "bpf_link" | "bpf-link" | "btf" => {
            ("bpf", "the program has BPF objects open, which this CRIU cannot save: unload them before the dump")
        }
        "seccomp notify" => ("seccomp-notify", "the program supervises another one's system calls: end that first"),
        "kvm-vm" | "kvm-vcpu" => ("kvm", "a virtual machine cannot be saved by CRIU: use the monitor's own snapshots"),
        _ => ("kernel-object", "close it before the dump: CRIU can save no object of that kind"),
    }
}

fn article(name: &str) -> String {
    match name {
        "io_uring" => "an io_uring instance".into(),
        "perf_event" => "a performance counter (perf_event)".into(),
        "userfaultfd" => "a userfaultfd".into(),
        other => format!("a kernel object of the kind `{other}`"),
    }
}

fn look_at_object(examination: &mut Examination<'_>, task: &Task, descriptor: &Descriptor, name: &str) {
    let fd = descriptor.fd;
    match (&descriptor.extra, name) {
        (Extra::Pidfd(_), _) if descriptor.flags & PIDFD_THREAD != 0 => examination.findings.will_not(
            "pidfd",
            task.pid(),
            format!("descriptor {fd} of {} is a pidfd of a single thread", described(task)),
            "close it before the dump: CRIU can save pidfds of whole processes only",
        ),
        (Extra::Pidfd(pid), _) if *pid > 0 && !examination.tree.has(*pid) => examination.findings.will_not(
            "pidfd",
            task.pid(),
            format!(
                "descriptor {fd} of {} is a pidfd of {}, outside the tree",
                described(task),
                super::sessions::outsider(*pid)
            ),
            "close it before the dump, or dump a tree that has that process too",
        ),
        (Extra::Timer(clock), _) if !CLOCKS.contains(clock) => examination.findings.will_not(
            "alarm-timer",
            task.pid(),
            format!(
                "descriptor {fd} of {} is a timer of clock {clock}, which can wake the machine from sleep",
                described(task)
            ),
            "let the program use CLOCK_REALTIME, CLOCK_MONOTONIC or CLOCK_BOOTTIME: CRIU knows no other for timerfd",
        ),
        (Extra::Inotify(watches), _) => look_at_watches(examination, task, descriptor, watches),
        (Extra::Epoll(targets), _) => {
            let others = || task.descriptors.iter().filter(|other| other.fd != fd);
            let open: BTreeSet<u64> =
                others().map(|other| other.status.map_or(other.inode, |status| status.inode)).collect();
            // Objects without a name share one inode, so that each of them counts as open while any is.
            let object = others().any(|other| matches!(other.kind, Kind::Anonymous(_)));
            let is_open = |inode| open.contains(&inode) || (object && inode == descriptor.inode);
            let lost = targets.iter().find(|target| !is_open(target.inode));
            if let Some(target) = lost {
                examination.findings.will_not(
                    "epoll-target",
                    task.pid(),
                    format!(
                        "descriptor {fd} of {} is an epoll instance that still watches what was its descriptor {}, which is closed there",
                        described(task),
                        target.fd
                    ),
                    "the program has to take the file out of the epoll instance (EPOLL_CTL_DEL) before it closes or gives it away",
                );
            }
        }
        _ => {}
    }
}

/// A watch on a file that has no handle: CRIU finds it by nothing else.
fn look_at_watches(examination: &mut Examination<'_>, task: &Task, descriptor: &Descriptor, watches: &[Watch]) {
    let mounts = examination.tree.mounts.get(&task.namespaces.mnt);
    let on_proc = |watch: &&Watch| {
        mounts
            .is_some_and(|mounts| mounts.iter().any(|mount| mount.device == watch.device && mount.filesystem == "proc"))
    };
    if watches.iter().any(|watch| on_proc(&watch)) {
        examination.findings.will_not(
            "watch-on-proc",
            task.pid(),
            format!("descriptor {} of {} watches a file of /proc (inotify)", descriptor.fd, described(task)),
            "let the program take the watch away: CRIU cannot find that file again",
        );
    }
    // On a disk CRIU looks the inode up; on a tmpfs it needs a path, and finds none.
    let is_watched = |file: &Descriptor| {
        let status = file.status.filter(|_| file.deleted);
        let is_it = status.is_some_and(|status| {
            watches.iter().any(|watch| watch.inode == status.inode && watch.device == status.device)
        });
        is_it && filesystem(examination, file) == Some("tmpfs")
    };
    let mut files = examination.tree.tasks.iter().flat_map(|task| &task.descriptors);
    if files.any(is_watched) {
        examination.findings.will_not(
            "watch-on-deleted",
            task.pid(),
            format!("descriptor {} of {} watches a deleted file of a tmpfs (inotify)", descriptor.fd, described(task)),
            "let the program take the watch away: CRIU cannot find that file again",
        );
    }
}

/// `/proc/N` itself, held open: CRIU 4.2 records a path that it cannot open again.
fn look_at_process_directory(examination: &mut Examination<'_>, task: &Task, descriptor: &Descriptor) {
    let of_process = descriptor.path.strip_prefix("/proc").ok().and_then(|rest| rest.to_str()?.parse::<u32>().ok());
    let live = of_process.is_some() && !descriptor.deleted;
    if live && filesystem(examination, descriptor) == Some("proc") {
        examination.findings.warn(
            "process-directory",
            task.pid(),
            format!(
                "descriptor {} of {} is the directory {}",
                descriptor.fd,
                described(task),
                descriptor.path.display()
            ),
            "the dump passes, but CRIU cannot open that directory at the restore: let the program close it",
        );
    }
}

fn filesystem<'a>(examination: &Examination<'a>, descriptor: &Descriptor) -> Option<&'a str> {
    let mut mounts = examination.tree.mounts.values().flatten();
    mounts.find(|mount| mount.id == descriptor.mount).map(|mount| mount.filesystem.as_str())
}

fn has_own_network(examination: &Examination<'_>) -> bool {
    let (own, root) = (examination.tree.own_namespaces.net, examination.tree.root().namespaces.net);
    own != 0 && root != 0 && own != root
}

fn look_at_namespace(examination: &mut Examination<'_>, task: &Task, descriptor: &Descriptor, kind: &str) {
    let tree = examination.tree;
    let known =
        |namespaces: &crate::process::Namespaces| namespaces.each().iter().any(|(_, inode)| *inode == descriptor.inode);
    if known(&tree.own_namespaces) || tree.tasks.iter().any(|task| known(&task.namespaces)) {
        return;
    }
    examination.findings.will_not(
        "namespace-descriptor",
        task.pid(),
        format!(
            "descriptor {} of {} is a {kind} namespace that no task of the tree is in",
            descriptor.fd,
            described(task)
        ),
        "close it before the dump",
    );
}
