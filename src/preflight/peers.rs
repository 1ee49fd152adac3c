//! Pipes and unix sockets whose other end is outside the tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::process::{Descriptor, Family, FileStatus, Holder, Kind, Socket, Task, Tree, UnixKind, UnixSocket};
use crate::request::DumpSwitch;

use super::examine::{Examination, described, lacks, need};
use super::report::Choice;

/// States of a unix socket, which borrows TCP's.
const ESTABLISHED: u8 = 1;
const LISTENING: u8 = 10;
/// Shut for reading and writing.
const SHUT: u8 = 3;

/// Examines the pipes and unix sockets, and what of them is open outside as well.
pub(super) fn look(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    for (inode, pipe) in pipes(tree) {
        // Whoever has the end that the tree lacks says more than one who has the same.
        let holders = examination.holders.of(inode);
        let other_end = holders.iter().find(|holder| (holder.reads && !pipe.reads) || (holder.writes && !pipe.writes));
        if let Some(holder) = other_end.or_else(|| holders.first()).cloned() {
            look_at_pipe(examination, &pipe, &holder);
        }
    }
    for socket in tree.sockets.values() {
        if let Some(holder) = examination.holders.of(socket.inode).first().cloned() {
            look_at_shared(examination, socket, &holder);
        }
        if socket.family == Family::Unix {
            look_at_unix(examination, socket);
        }
    }
}

/// A pipe of the tree, and which of its ends the tree has.
struct Pipe<'a> {
    task: &'a Task,
    descriptor: &'a Descriptor,
    reads: bool,
    writes: bool,
}

fn pipes(tree: &Tree) -> BTreeMap<u64, Pipe<'_>> {
    let mut pipes: BTreeMap<u64, Pipe<'_>> = BTreeMap::new();
    for task in &tree.tasks {
        for descriptor in task.descriptors.iter().filter(|descriptor| descriptor.kind == Kind::Pipe) {
            let pipe = pipes.entry(descriptor.inode).or_insert(Pipe { task, descriptor, reads: false, writes: false });
            pipe.reads |= descriptor.reads();
            pipe.writes |= descriptor.writes();
        }
    }
    pipes
}

fn look_at_pipe(examination: &mut Examination<'_>, pipe: &Pipe<'_>, holder: &Holder) {
    // A container's standard streams come from whoever restores it.
    if examination.intent.container && (0..3).contains(&pipe.descriptor.fd) {
        return;
    }
    let does = match (pipe.reads, pipe.writes) {
        (true, true) => "has both ends of",
        (true, false) => "reads from",
        _ => "writes to",
    };
    let other = match (holder.reads, holder.writes) {
        (true, true) => "has open as well",
        (true, false) => "reads from",
        _ => "writes to",
    };
    examination.findings.warn(
        "pipe-outside",
        pipe.task.pid(),
        format!(
            "{} {does} the pipe {} (descriptor {}), which process {} ({}) outside the tree {other}",
            described(pipe.task),
            pipe.descriptor.path.display(),
            pipe.descriptor.fd,
            holder.pid,
            holder.comm
        ),
        "the dump passes, but after the restore it is a new pipe that nobody outside has: dump a tree that has both ends, redirect \
         to a file, or hand over a pipe at the restore with --inherit-fd",
    );
}

/// A descriptor that came by fork: both have the very same socket.
fn look_at_shared(examination: &mut Examination<'_>, socket: &Socket, holder: &Holder) {
    let who = examination.name(socket.pid);
    let address =
        socket.local.filter(|address| address.port() != 0).map_or_else(String::new, |address| format!(" at {address}"));
    examination.findings.warn(
        "socket-outside",
        socket.pid,
        format!(
            "descriptor {} of {who} is a socket{address} that process {} ({}) outside the tree has open as well",
            socket.fd, holder.pid, holder.comm
        ),
        "the dump passes, but the restore makes a socket of its own, and cannot where the address is still taken: dump a tree that \
         has both, or let that process close it",
    );
}

fn look_at_unix(examination: &mut Examination<'_>, socket: &Socket) {
    let tree = examination.tree;
    let who = examination.name(socket.pid);
    let place = format!("descriptor {} of {who}", socket.fd);
    let crate::process::Transport::Unix(kind) = socket.transport else { return };
    let Some(unix) = &socket.unix else {
        examination.findings.will_not(
            "unix-socket-elsewhere",
            socket.pid,
            format!("{place} is a unix socket of a network namespace that the task is not in"),
            "close it before the dump",
        );
        return;
    };
    if let UnixKind::Other(number) = kind {
        let what = format!("{place} is a unix socket of type {number}, which CRIU does not know");
        examination.findings.will_not("unix-socket-type", socket.pid, what, "close it before the dump");
        return;
    }
    if unix.state == LISTENING && unix.waiting.contains(&0) {
        examination.findings.will_not(
            "unix-waiting-closed",
            socket.pid,
            format!("{place} listens{}, and a client that nobody accepted has gone again", at(unix)),
            "let the program accept what waits",
        );
    }
    if unix.peer == 0 {
        look_at_unconnected(examination, socket, unix, kind, &place);
    } else if let Some(peer) = tree.sockets.get(&unix.peer).and_then(|peer| peer.unix.as_ref()) {
        check_reachable(examination, socket, unix, peer, &place);
    } else {
        look_at_outside(examination, socket, unix, kind, &place);
    }
}

/// A connection that was never accepted, or one whose other end is closed.
fn look_at_unconnected(
    examination: &mut Examination<'_>,
    socket: &Socket,
    unix: &UnixSocket,
    kind: UnixKind,
    place: &str,
) {
    if unix.state != ESTABLISHED || kind == UnixKind::Datagram || unix.shutdown == SHUT {
        return;
    }
    let waits_here = examination
        .tree
        .sockets
        .values()
        .filter_map(|other| other.unix.as_ref())
        .any(|other| other.waiting.contains(&socket.inode));
    if !waits_here {
        examination.findings.will_not(
            "unix-waiting-outside",
            socket.pid,
            format!("{place} is a connection that a server outside the tree has not accepted yet"),
            "wait until the server has accepted it, or close it",
        );
    } else if unix.send_queue != 0 {
        examination.findings.will_not(
            "unix-waiting-data",
            socket.pid,
            format!("{place} is a connection that nobody has accepted yet, with data sent already"),
            "let the server accept it",
        );
    }
}

fn check_reachable(
    examination: &mut Examination<'_>,
    socket: &Socket,
    unix: &UnixSocket,
    peer: &UnixSocket,
    place: &str,
) {
    if peer.peer != socket.inode && peer.name.is_none() {
        examination.findings.will_not(
            "unix-unreachable-peer",
            socket.pid,
            format!("{place} sends to the socket {} of the tree, which has no name and does not send back", unix.peer),
            "give the receiving socket a name (bind) or connect it back",
        );
    }
}

fn look_at_outside(examination: &mut Examination<'_>, socket: &Socket, unix: &UnixSocket, kind: UnixKind, place: &str) {
    let external = format!("unix[{}]", socket.inode);
    if examination.intent.has_external(&external) {
        return;
    }
    let whom = match examination.holders.of(unix.peer).first() {
        Some(holder) => format!("process {} ({})", holder.pid, holder.comm),
        None => "a process".into(),
    };
    let Some(peer) = examination.tree.unix_peers.get(&unix.peer) else {
        examination.findings.will_not(
            "unix-peer-elsewhere",
            socket.pid,
            format!("{place} is connected to {whom} in another network namespace"),
            "close it before the dump, or dump a tree that has both",
        );
        return;
    };
    if let Some(path) = peer.path().filter(|path| path.is_absolute()) {
        look_at_path(examination, socket, place, &path, &whom);
    }
    let known = peer.name.as_deref().map(known_service);
    let name = peer.name.as_deref().map(display_name);
    match (kind, name) {
        (UnixKind::Datagram, Some(name)) => {
            if lacks(examination.intent, DumpSwitch::ExtUnixSk) {
                need(&mut examination.needs.ext_unix_sk, socket.pid, || {
                    format!("{place} sends datagrams to {name} of {whom} outside the tree")
                });
            }
        }
        (UnixKind::Datagram, None) => examination.findings.will_not(
            "unix-peer",
            socket.pid,
            format!("{place} is one end of a pair of datagram sockets, whose other end {whom} outside the tree has"),
            "dump a tree that has both, or close it",
        ),
        (_, Some(name)) => {
            let (id, program) = known.unwrap_or(("unix-peer", ""));
            let arguments = vec!["--external".into(), external, "--ext-unix-sk".into()];
            examination.findings.choose(
                id,
                socket.pid,
                format!("{place} is connected to {name}{program} of {whom} outside the tree"),
                "close the connection before the dump, dump a tree that has both ends, or let the restore connect anew",
                vec![Choice {
                    arguments,
                    consequence: format!(
                        "at the restore the socket is connected anew to {name}; the server sees a new client and nothing of what \
                         was said before, and not every program can bear that"
                    ),
                }],
            );
        }
        (_, None) if unix.name.is_some() => examination.findings.will_not(
            "unix-client",
            socket.pid,
            format!("{place} is the server's end of a connection{}, whose client is {whom} outside the tree", at(unix)),
            "wait until the client has gone, close the connection, or dump a tree that has both ends",
        ),
        (_, None) => examination.findings.will_not(
            "unix-peer",
            socket.pid,
            format!(
                "{place} is one end of a pair of sockets without a name, whose other end {whom} outside the tree has"
            ),
            "dump a tree that has both ends (a common ancestor), or start the program without that socket: \
             crr run starts it with no inherited descriptors",
        ),
    }
}

/// The restore connects by name: a name that is gone leads nowhere.
fn look_at_path(examination: &mut Examination<'_>, socket: &Socket, place: &str, path: &Path, whom: &str) {
    let task = examination.tree.task(socket.pid);
    let own = task.is_none_or(|task| task.namespaces.mnt == examination.tree.own_namespaces.mnt);
    let view = if own { PathBuf::from("/") } else { PathBuf::from(format!("/proc/{}/root", socket.pid)) };
    let seen = FileStatus::read(&view.join(path.strip_prefix("/").unwrap_or(path)));
    if !seen.is_ok_and(|status| status.file_type() == libc::S_IFSOCK) {
        examination.findings.warn(
            "unix-peer-name-gone",
            socket.pid,
            format!("{place} is connected to {} of {whom} outside the tree, and that file is gone", path.display()),
            "the dump passes, but the restore cannot connect again: restart the server or link the name again first",
        );
    }
}

fn at(unix: &UnixSocket) -> String {
    unix.name.as_deref().map_or_else(String::new, |name| format!(" at {}", display_name(name)))
}

/// The path, or an abstract name with `@` for its NUL, as `ss` shows it.
fn display_name(name: &[u8]) -> String {
    match name.split_first() {
        Some((0, rest)) => format!("@{}", String::from_utf8_lossy(rest)),
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}

/// The finding's name and a word about the server behind certain well-known sockets.
fn known_service(name: &[u8]) -> (&'static str, &'static str) {
    let name = String::from_utf8_lossy(name);
    let name = name.trim_start_matches('\0');
    let last = name.rsplit('/').next().unwrap_or_default();
    if name.contains(".X11-unix/X") {
        ("x11", " (the X server)")
    } else if last.starts_with("wayland-") {
        ("wayland", " (the Wayland compositor)")
    } else if name.contains("dbus") || last == "bus" {
        ("dbus", " (D-Bus)")
    } else if name.starts_with("/run/systemd/journal/stdout") {
        ("journal", " (the system journal: the program's output)")
    } else if last == "native" && name.contains("pulse") || last.starts_with("pipewire-") {
        ("sound", " (the sound server)")
    } else {
        ("unix-peer", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_servers_are_told_by_the_names_of_their_sockets() {
        let table: [(&[u8], &str); 9] = [
            (b"/tmp/.X11-unix/X0", "x11"),
            (b"\0/tmp/.X11-unix/X0", "x11"),
            (b"/run/user/1000/wayland-0", "wayland"),
            (b"/run/dbus/system_bus_socket", "dbus"),
            (b"/run/user/1000/bus", "dbus"),
            (b"\0/tmp/dbus-abc", "dbus"),
            (b"/run/systemd/journal/stdout", "journal"),
            (b"/run/user/1000/pulse/native", "sound"),
            (b"/srv/app.sock", "unix-peer"),
        ];
        for (name, id) in table {
            assert_eq!(known_service(name).0, id, "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn an_abstract_name_is_shown_with_an_at_sign() {
        assert_eq!(display_name(b"\0name"), "@name");
        assert_eq!(display_name(b"/a/b"), "/a/b");
        assert_eq!(display_name(b""), "");
    }
}
