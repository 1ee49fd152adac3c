//! The rules on made-up trees. What CRIU really does with each of these is the host tests' business.

use crate::process::{
    Descriptor, EpollTarget, Extra, Family, IoPriority, Kind, Lock, LockKind, Namespaces, Segment, Task, TcpState,
    Thread, Transport, Tree, UnixKind, UnixSocket,
};
use crate::request::{DumpSwitch, Tcp, Version};

use super::circumstances::Capabilities;
use super::examine::examine_tree;
use super::fixture::*;
use super::intent::Intent;
use super::report::{Level, Report, Verdict};
use Level::{NeedsChoice, Note, TurnsOn, Warning, WillNotWork};

/// A root that is out of the ordinary by what `change` does to it.
fn root(change: impl FnOnce(&mut Task)) -> Tree {
    let mut task = task(ROOT, 1);
    change(&mut task);
    tree(vec![task])
}

/// An ordinary root with a child that is not.
fn child(change: impl FnOnce(&mut Task)) -> Tree {
    let mut child = task(CHILD, ROOT);
    change(&mut child);
    tree(vec![task(ROOT, 1), child])
}

fn holding(descriptor: Descriptor) -> Tree {
    root(|task| task.descriptors.push(descriptor))
}

fn object(name: &str, extra: Extra) -> Descriptor {
    Descriptor { extra, ..descriptor(3, Kind::Anonymous(name.into()), "anon_inode") }
}

fn thread(change: impl FnOnce(&mut Thread)) -> Tree {
    root(|task| {
        let mut thread = Thread {
            tid: 90_000_050,
            stat: task.stat.clone(),
            status: task.status.clone(),
            namespaces: task.namespaces,
            io_priority: task.inherited.io_priority,
            own_descriptors: false,
        };
        change(&mut thread);
        task.threads.push(thread);
    })
}

#[track_caller]
fn assert_found(tree: &Tree, expected: &[(Level, &'static str)]) -> Report {
    let report = examined(tree);
    assert_eq!(short(&report), expected, "{:#?}", report.findings);
    report
}

#[test]
fn an_ordinary_tree_works_without_any_option() {
    let report = assert_found(&tree(vec![task(ROOT, 1), task(CHILD, ROOT)]), &[]);
    assert_eq!(report.verdict, Verdict::Works);
    assert!(report.needs.is_empty());
    assert_eq!(report.tree.tasks.len(), 2);
}

#[test]
fn tasks_that_cannot_be_stopped_or_saved_are_refused() {
    assert_found(&root(|task| task.stat.flags = 0x0020_0000), &[(WillNotWork, "kernel-thread")]);
    assert_found(&root(|task| task.stat.state = 'Z'), &[(WillNotWork, "root-is-dead")]);
    assert_found(&child(|task| task.stat.state = 'Z'), &[]);
    assert_found(&child(|task| task.status.tracer = 90_000_077), &[(WillNotWork, "traced")]);
    assert_found(&child(|task| task.unreadable = true), &[(WillNotWork, "not-permitted")]);
    assert_found(&child(|task| task.status.shared_pending = 1 << 4), &[(WillNotWork, "pending-sigtrap")]);
    assert_found(&child(|task| task.shares_memory_with = Some(ROOT)), &[(WillNotWork, "shared-memory-space")]);
    assert_found(&child(|task| task.memory.runs_at_zero = true), &[(WillNotWork, "code-at-zero")]);
    assert_found(&child(|task| task.shares_directory_with = Some(ROOT)), &[(WillNotWork, "shared-directory")]);
    assert_found(&thread(|thread| thread.status.tracer = 90_000_077), &[(WillNotWork, "traced")]);
    assert_found(&child(|task| task.stat.state = 'T'), &[(Note, "stopped")]);
}

#[test]
fn crr_in_the_tree_is_refused() {
    let mut here = circumstances();
    here.pid = CHILD;
    let report = examine_tree(&tree(vec![task(ROOT, 1), task(CHILD, ROOT)]), &Intent::default(), &here);
    assert_eq!(short(&report), [(WillNotWork, "crr-inside")]);
}

#[test]
fn what_a_restore_would_lose_is_a_warning_and_the_dump_works() {
    let table = [
        (thread(|thread| thread.namespaces.net = 99), "thread-namespace"),
        (thread(|thread| thread.stat.policy = 6), "sched-deadline"),
        (child(|task| task.stat.policy = 6), "sched-deadline"),
        (child(|task| task.namespaces.pid_for_children = 99), "pid-namespace-for-children"),
        // It has no process yet.
        (child(|task| task.namespaces.pid_for_children = 0), "pid-namespace-for-children"),
        (child(|task| task.stat.exit_signal = libc::SIGUSR2), "exit-signal"),
        (child(|task| task.stat.exit_signal = 0), "exit-signal"),
        (child(|task| task.inherited.personality = Some(0x0804_0000)), "personality"),
        (root(|task| task.inherited.timer_slack_ns = Some(123_456)), "timer-slack"),
        (root(|task| task.inherited.io_priority = IoPriority::of(3 << 13, 0)), "io-priority"),
        (thread(|thread| thread.io_priority = IoPriority::of((1 << 13) | 3, 0)), "io-priority"),
        (thread(|thread| thread.own_descriptors = true), "thread-descriptors"),
        (child(|task| task.namespaces.net = 99), "nested-namespace"),
        (root(|task| task.namespaces.user = 99), "user-namespace"),
        (root(|task| task.memory.has_vdso = false), "no-vdso"),
        (
            root(|task| task.memory.notable.push(mapping("1000-2000 r-xs 0 00:01 9 /memfd:CRIUMFD (deleted)"))),
            "parasite",
        ),
    ];
    // Whom a root tells is not in the images.
    assert_found(&root(|task| task.stat.exit_signal = libc::SIGUSR2), &[]);
    for (tree, id) in table {
        assert_eq!(assert_found(&tree, &[(Warning, id)]).verdict, Verdict::Works);
    }
}

#[test]
fn another_user_is_refused_only_without_the_capability() {
    let tree = child(|task| task.status.credentials.uids = [0, 1000, 0, 1000]);
    assert_found(&tree, &[]);
    let mut here = circumstances();
    here.capabilities = Capabilities(here.capabilities.0 & !(1 << Capabilities::SYS_RESOURCE));
    let report = examine_tree(&tree, &Intent::default(), &here);
    assert_eq!(short(&report), [(WillNotWork, "other-user")]);
    assert!(report.findings[0].what.contains("0/1000/0"), "{}", report.findings[0].what);
    // The filesystem ID alone does not count for the kernel.
    let tree = child(|task| task.status.credentials.uids = [0, 0, 0, 1000]);
    assert_eq!(short(&examine_tree(&tree, &Intent::default(), &here)), []);
}

#[test]
fn namespaces_that_criu_cannot_nest_are_refused() {
    for change in [
        |namespaces: &mut Namespaces| namespaces.uts = 99,
        |namespaces: &mut Namespaces| namespaces.ipc = 99,
        |namespaces: &mut Namespaces| namespaces.user = 99,
        |namespaces: &mut Namespaces| namespaces.cgroup = 99,
    ] {
        assert_found(&child(|task| change(&mut task.namespaces)), &[(WillNotWork, "nested-namespace")]);
    }
    let time = child(|task| task.namespaces.time_for_children = 99);
    assert_found(&time, &[(WillNotWork, "time-namespace-for-children")]);
}

#[test]
fn the_first_process_of_a_pid_namespace_can_be_the_root_and_no_other() {
    let inside = |pid: i32| {
        root(move |task| {
            task.namespaces.pid = 99;
            task.namespaces.pid_for_children = 99;
            task.status.namespace_pids = vec![ROOT, pid];
            task.status.namespace_sids = vec![ROOT, pid];
        })
    };
    assert_found(&inside(1), &[]);
    assert_found(&inside(7), &[(WillNotWork, "not-init")]);
}

#[test]
fn a_job_of_a_shell_turns_shell_job_on() {
    let tree = root(|task| {
        task.stat.sid = 90_000_070;
        task.status.namespace_sids = vec![90_000_070];
    });
    let report = assert_found(&tree, &[(TurnsOn, "shell-job")]);
    assert_eq!((report.verdict, report.needs.arguments()), (Verdict::Works, vec!["--shell-job".to_owned()]));
    assert!(report.tree.shell_job);
    let given = Intent { switches: [DumpSwitch::ShellJob].into(), ..Intent::default() };
    assert_eq!(short(&examine_tree(&tree, &given, &circumstances())), []);
    let by_hand = Intent { automatic: false, ..Intent::default() };
    let report = examine_tree(&tree, &by_hand, &circumstances());
    assert_eq!((report.verdict, report.needs.is_empty()), (Verdict::NeedsChoice, true));
    assert_eq!(report.findings[0].choices[0].arguments, ["--shell-job"]);
}

#[test]
fn a_child_in_the_session_of_somebody_who_is_gone_works() {
    let tree = child(|task| {
        task.stat.sid = 90_000_070;
        task.stat.pgid = 90_000_070;
        task.status.namespace_sids = vec![90_000_070];
    });
    assert_found(&tree, &[]);
    // PID 1 lives on every machine.
    let tree = child(|task| {
        task.stat.sid = 1;
        task.stat.pgid = 1;
        task.status.namespace_sids = vec![1];
    });
    assert_found(&tree, &[(Warning, "session-of-another")]);
}

#[test]
fn a_terminal_of_somebody_else_turns_shell_job_on_and_two_are_refused() {
    let slave = |fd, index| device(fd, 136, index, "/dev/pts/9");
    assert_found(&holding(slave(3, 9)), &[(TurnsOn, "shell-job")]);
    let both = root(|task| task.descriptors = vec![slave(3, 9), slave(4, 8)]);
    assert_found(&both, &[(WillNotWork, "two-terminals"), (TurnsOn, "shell-job")]);
    let master = Descriptor { extra: Extra::PtyMaster(9), ..device(4, 5, 2, "/dev/ptmx") };
    let pair = root(|task| task.descriptors = vec![slave(3, 9), master]);
    assert_eq!(examined(&pair).needs.shell_job, None);
}

#[test]
fn kernel_objects_are_told_apart() {
    for name in ["eventfd", "signalfd", "timerfd", "inotify", "fanotify", "eventpoll", "pidfd"] {
        assert_found(&holding(object(name, Extra::None)), &[]);
    }
    let refused = [
        ("io_uring", "io-uring"),
        ("perf_event", "perf-event"),
        ("userfaultfd", "userfaultfd"),
        ("bpf-map", "bpf"),
        ("seccomp notify", "seccomp-notify"),
        ("kvm-vm", "kvm"),
        ("[never heard of]", "kernel-object"),
    ];
    for (name, id) in refused {
        assert_found(&holding(object(name, Extra::None)), &[(WillNotWork, id)]);
    }
    assert_found(&holding(object("timerfd", Extra::Timer(1))), &[]);
    assert_found(&holding(object("timerfd", Extra::Timer(9))), &[(WillNotWork, "alarm-timer")]);
    assert_found(&holding(object("pidfd", Extra::Pidfd(ROOT))), &[]);
    assert_found(&holding(object("pidfd", Extra::Pidfd(-1))), &[]);
    assert_found(&holding(object("pidfd", Extra::Pidfd(90_000_070))), &[(WillNotWork, "pidfd")]);
}

#[test]
fn an_epoll_target_that_is_closed_is_refused() {
    let epoll = object("eventpoll", Extra::Epoll(vec![EpollTarget { fd: 5, inode: 42 }]));
    let pipe = Descriptor { inode: 42, ..descriptor(5, Kind::Pipe, "pipe:[42]") };
    let open = root(|task| task.descriptors = vec![epoll.clone(), pipe]);
    assert_found(&open, &[]);
    let other = Descriptor { fd: 6, ..object("eventfd", Extra::None) };
    let closed = root(|task| task.descriptors = vec![epoll.clone(), other.clone()]);
    assert_found(&closed, &[(WillNotWork, "epoll-target")]);
    // What is watched is an object without a name, and one is open.
    let of_object = Descriptor { inode: 42, ..epoll };
    let open = root(|task| task.descriptors = vec![of_object.clone(), other]);
    assert_found(&open, &[]);
    assert_found(&holding(of_object), &[(WillNotWork, "epoll-target")]);
}

#[test]
fn devices_pipes_and_namespaces_are_told_apart() {
    assert_found(&holding(device(3, 226, 0, "/dev/dri/card0")), &[(WillNotWork, "device")]);
    assert_found(&holding(device(3, 10, 200, "/dev/net/tun")), &[(WillNotWork, "tun")]);
    assert_found(&holding(descriptor(3, Kind::BlockDevice, "/dev/loop0")), &[(WillNotWork, "block-device")]);
    let packets = Descriptor { flags: (libc::O_DIRECT | libc::O_RDWR) as u32, ..descriptor(3, Kind::Pipe, "pipe:[7]") };
    assert_found(&holding(packets), &[(WillNotWork, "packet-pipe")]);
    let own = Descriptor { inode: 3, ..descriptor(3, Kind::Namespace("net".into()), "net:[3]") };
    assert_found(&holding(own), &[]);
    let foreign = Descriptor { inode: 99, ..descriptor(3, Kind::Namespace("net".into()), "net:[99]") };
    assert_found(&holding(foreign), &[(WillNotWork, "namespace-descriptor")]);
}

#[test]
fn locks_turn_file_locks_on() {
    for kind in [LockKind::Posix, LockKind::Flock, LockKind::OpenFile, LockKind::Lease] {
        let lock = Lock { kind, exclusive: true, owner: ROOT };
        let file = Descriptor { locks: vec![lock], ..descriptor(3, Kind::Regular, "/nowhere/locked") };
        assert_found(&holding(file), &[(TurnsOn, "file-locks")]);
    }
}

#[test]
fn the_ghost_limit_follows_the_largest_deleted_file() {
    const MIB: u64 = 1 << 20;
    assert_found(&holding(deleted(3, 1, MIB)), &[(Note, "deleted-file")]);
    let two = root(|task| task.descriptors = vec![deleted(3, 1, MIB + 4096), deleted(4, 2, 3 * MIB)]);
    let report = assert_found(&two, &[(TurnsOn, "ghost-limit")]);
    assert_eq!(report.needs.arguments(), ["--ghost-limit", "3145728"]);
    let large = holding(deleted(3, 1, 65 * MIB));
    let report = assert_found(&large, &[(NeedsChoice, "deleted-file-large")]);
    assert_eq!(report.findings[0].choices[0].arguments, ["--ghost-limit", "68157440"]);
    let given = Intent { ghost_limit: Some(68_157_440), ..Intent::default() };
    assert_eq!(examine_tree(&large, &given, &circumstances()).verdict, Verdict::Works);
    assert_found(&holding(deleted(3, 1, 5 << 30)), &[(WillNotWork, "deleted-file-too-large")]);
    // One file with two descriptors goes into the images once.
    let twice = root(|task| task.descriptors = vec![deleted(3, 1, MIB), deleted(4, 1, MIB)]);
    assert_eq!(
        examined(&twice).estimated_image_bytes - examined(&holding(deleted(3, 1, MIB))).estimated_image_bytes,
        0
    );
}

#[test]
fn a_file_of_another_mount_namespace_is_refused_unless_it_is_external() {
    let file = Descriptor { mount: 99, ..deleted(3, 0x42, 0) };
    assert_found(&holding(file.clone()), &[(WillNotWork, "other-mount-namespace")]);
    let given = Intent { external: vec!["file[63:42]".into()], ..Intent::default() };
    assert_eq!(short(&examine_tree(&holding(file), &given, &circumstances())), []);
}

#[test]
fn mappings_that_criu_cannot_save_are_refused() {
    let table = [
        ("1000-2000 --xp 0 00:00 0 [uprobes]", "uprobes"),
        ("1000-2000 rw-s 0 00:01 9 /SYSV00000000 (deleted)", "sysv-shm"),
        ("1000-2000 rw-s 0 00:0e 9 anon_inode:[io_uring]", "io-uring"),
        ("1000-2000 rw-s 0 00:0e 9 anon_inode:[perf_event]", "kernel-object-mapping"),
        ("1000-2000 rw-s 0 00:08 9 socket:[9]", "socket-mapping"),
    ];
    for (line, id) in table {
        assert_found(&root(|task| task.memory.notable.push(mapping(line))), &[(WillNotWork, id)]);
    }
    let own_ipc = root(|task| {
        task.namespaces.ipc = 99;
        task.memory.notable.push(mapping("1000-2000 rw-s 0 00:01 9 /SYSV00000000 (deleted)"));
    });
    assert_found(&own_ipc, &[]);
    let probes = Intent { allow_uprobes: true, ..Intent::default() };
    let probed = root(|task| task.memory.notable.push(mapping("1000-2000 --xp 0 00:00 0 [uprobes]")));
    assert_eq!(short(&examine_tree(&probed, &probes, &circumstances())), []);
}

fn connection() -> Tree {
    let mut socket = socket(7, Family::Inet, Transport::Tcp { state: TcpState::Established, waiting: 0 });
    socket.local = Some("10.0.0.1:80".parse().expect("an address"));
    socket.peer = Some("10.0.0.2:5000".parse().expect("an address"));
    with_sockets(vec![socket])
}

#[test]
fn a_tcp_connection_needs_a_choice_and_is_listed() {
    let report = assert_found(&connection(), &[(NeedsChoice, "tcp-connection")]);
    assert_eq!(report.verdict, Verdict::NeedsChoice);
    assert_eq!(
        (report.connections[0].local.as_str(), report.connections[0].peer.as_str()),
        ("10.0.0.1:80", "10.0.0.2:5000")
    );
    let words: Vec<_> = report.findings[0].choices.iter().flat_map(|choice| &choice.arguments).collect();
    assert_eq!(words, ["--tcp-established", "--tcp-close"]);
    for tcp in [Tcp::Established, Tcp::Close] {
        let chosen = Intent { tcp, ..Intent::default() };
        assert_eq!(short(&examine_tree(&connection(), &chosen, &circumstances())), []);
    }
}

#[test]
fn without_iptables_kept_connections_are_locked_by_nftables() {
    let mut here = circumstances();
    here.iptables = false;
    let kept = Intent { tcp: Tcp::Established, ..Intent::default() };
    let report = examine_tree(&connection(), &kept, &here);
    assert_eq!(report.needs.arguments(), ["--network-lock", "nftables"]);
    let dropped = Intent { tcp: Tcp::Close, ..Intent::default() };
    assert!(examine_tree(&connection(), &dropped, &here).needs.is_empty());
}

#[test]
fn a_connection_closed_at_both_ends_turns_tcp_close_on() {
    let mut closed = socket(7, Family::Inet, Transport::Tcp { state: TcpState::Closed, waiting: 0 });
    assert_found(&with_sockets(vec![closed.clone()]), &[]);
    closed.peer = Some("10.0.0.2:5000".parse().expect("an address"));
    let report = assert_found(&with_sockets(vec![closed]), &[(TurnsOn, "tcp-close")]);
    assert_eq!(report.needs.arguments(), ["--tcp-close"]);
}

#[test]
fn sockets_that_criu_does_not_know_are_refused() {
    let table = [
        (socket(7, Family::Other(40), Transport::Other(0)), WillNotWork, "socket-family"),
        (socket(7, Family::Inet, Transport::Other(262)), WillNotWork, "mptcp"),
        (socket(7, Family::Inet, Transport::Other(132)), WillNotWork, "ip-protocol"),
        (socket(7, Family::Inet, Transport::Udp { corked: true }), WillNotWork, "udp-corked"),
        (
            socket(7, Family::Inet, Transport::Tcp { state: TcpState::Listening, waiting: 2 }),
            NeedsChoice,
            "tcp-in-flight",
        ),
    ];
    for (socket, level, id) in table {
        assert_found(&with_sockets(vec![socket]), &[(level, id)]);
    }
    let mut unread = socket(7, Family::Netlink, Transport::Netlink);
    unread.readable = true;
    assert_found(&with_sockets(vec![unread]), &[(WillNotWork, "netlink-data")]);
    let mut unread = socket(7, Family::Inet6, Transport::Udp { corked: false });
    unread.readable = true;
    assert_found(&with_sockets(vec![unread]), &[(Warning, "udp-data")]);
    for transport in [Transport::Raw, Transport::Ping, Transport::Udp { corked: false }] {
        assert_found(&with_sockets(vec![socket(7, Family::Inet, transport)]), &[]);
    }
}

#[test]
fn an_old_criu_on_a_new_kernel_cannot_have_ip_sockets() {
    let mut here = circumstances();
    here.criu = Some(Version::new(4, 1));
    let tree = with_sockets(vec![socket(7, Family::Inet, Transport::Raw)]);
    let report = examine_tree(&tree, &Intent::default(), &here);
    assert_eq!(short(&report), [(WillNotWork, "criu-too-old-for-sockets")]);
}

/// A connected unix socket with this peer outside.
fn unix(kind: UnixKind, own: Option<&[u8]>, peer: Option<&[u8]>) -> Tree {
    let mut ours = socket(7, Family::Unix, Transport::Unix(kind));
    ours.unix = Some(UnixSocket { state: 1, peer: 8, name: own.map(<[u8]>::to_vec), ..UnixSocket::default() });
    let mut tree = with_sockets(vec![ours]);
    let theirs = UnixSocket { state: 1, peer: 7, name: peer.map(<[u8]>::to_vec), ..UnixSocket::default() };
    tree.unix_peers.insert(8, theirs);
    tree
}

#[test]
fn unix_peers_outside_are_told_apart() {
    let datagram = unix(UnixKind::Datagram, None, Some(b"\0log"));
    assert_eq!(assert_found(&datagram, &[(TurnsOn, "ext-unix-sk")]).needs.arguments(), ["--ext-unix-sk"]);
    let stream = unix(UnixKind::Stream, None, Some(b"\0server"));
    let report = assert_found(&stream, &[(NeedsChoice, "unix-peer")]);
    assert_eq!(report.findings[0].choices[0].arguments, ["--external", "unix[7]", "--ext-unix-sk"]);
    let given = Intent { external: vec!["unix[7]".into()], ..Intent::default() };
    assert_eq!(short(&examine_tree(&stream, &given, &circumstances())), []);
    assert_found(&unix(UnixKind::Stream, None, Some(b"\0/tmp/.X11-unix/X0")), &[(NeedsChoice, "x11")]);
    assert_found(&unix(UnixKind::Stream, None, None), &[(WillNotWork, "unix-peer")]);
    assert_found(&unix(UnixKind::Datagram, None, None), &[(WillNotWork, "unix-peer")]);
    assert_found(&unix(UnixKind::SequencedPacket, Some(b"/srv/s"), None), &[(WillNotWork, "unix-client")]);
}

#[test]
fn a_datagram_server_whose_file_is_gone_is_a_warning_too() {
    let tree = unix(UnixKind::Datagram, None, Some(b"/nowhere/at/all/log"));
    assert_found(&tree, &[(TurnsOn, "ext-unix-sk"), (Warning, "unix-peer-name-gone")]);
}

#[test]
fn shared_memory_counts_once_in_the_estimate() {
    let sharing = |pid, ppid| {
        let mut task = task(pid, ppid);
        task.status.anonymous_bytes = 1 << 20;
        task.status.shmem_bytes = 8 << 20;
        task.memory.segments = vec![Segment { inode: 5, bytes: 8 << 20 }];
        task
    };
    let plain = examined(&tree(vec![task(ROOT, 1), task(CHILD, ROOT)])).estimated_image_bytes;
    let both = examined(&tree(vec![sharing(ROOT, 0), sharing(CHILD, ROOT)])).estimated_image_bytes;
    assert_eq!(both - plain, (2 << 20) + (8 << 20));
}

#[test]
fn a_tree_too_large_for_the_directory_is_refused() {
    let tree = root(|task| task.status.anonymous_bytes = u64::MAX / 2);
    let directory = tempfile::tempdir().expect("a directory");
    let there = Intent { directory: Some(directory.path().join("images")), ..Intent::default() };
    let report = examine_tree(&tree, &there, &circumstances());
    assert_eq!(short(&report), [(WillNotWork, "no-space")]);
    assert!(report.available_bytes.is_some());
}
