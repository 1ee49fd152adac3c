//! Pipes and unix sockets whose other end is outside the tree.

use std::collections::{BTreeMap, BTreeSet};

use crate::process::{Descriptor, Holder, Holders, Kind, Socket, Task, UnixKind, UnixSocket};
use crate::request::DumpSwitch;

use super::examine::{Examination, described, lacks, need};
use super::report::Choice;

/// States of a unix socket, which borrows TCP's.
const ESTABLISHED: u8 = 1;
const LISTENING: u8 = 10;
/// Shut for reading and writing.
const SHUT: u8 = 3;

/// Examines the unix sockets and pipes together: one search finds who has the other ends.
pub(super) fn look(examination: &mut Examination<'_>, unix: &[&Socket]) {
    let tree = examination.tree;
    let pipes = pipes_with_one_end(examination);
    let mut wanted: BTreeSet<u64> = pipes.keys().copied().collect();
    wanted.extend(unix.iter().filter_map(|socket| {
        let peer = socket.unix.as_ref()?.peer;
        (peer != 0 && !tree.sockets.contains_key(&peer)).then_some(peer)
    }));
    let holders = if wanted.is_empty() {
        Holders::default()
    } else {
        Holders::search(|pid| tree.has(pid), |inode| wanted.contains(&inode))
    };
    for (inode, (task, descriptor)) in &pipes {
        look_at_pipe(examination, task, descriptor, holders.of(*inode));
    }
    for socket in unix {
        look_at_unix(examination, socket, &holders);
    }
}

/// Pipes that the tree can only read or only write.
fn pipes_with_one_end<'a>(examination: &Examination<'a>) -> BTreeMap<u64, (&'a Task, &'a Descriptor)> {
    let mut ends: BTreeMap<u64, (bool, bool, &Task, &Descriptor)> = BTreeMap::new();
    for task in &examination.tree.tasks {
        for descriptor in task.descriptors.iter().filter(|descriptor| descriptor.kind == Kind::Pipe) {
            let end = ends.entry(descriptor.inode).or_insert((false, false, task, descriptor));
            end.0 |= descriptor.reads();
            end.1 |= descriptor.writes();
        }
    }
    ends.into_iter()
        .filter(|(_, (reads, writes, ..))| !(*reads && *writes))
        .map(|(inode, (_, _, task, descriptor))| (inode, (task, descriptor)))
        .collect()
}

fn look_at_pipe(examination: &mut Examination<'_>, task: &Task, descriptor: &Descriptor, holders: &[Holder]) {
    let reads = descriptor.reads();
    let Some(holder) = holders.iter().find(|holder| if reads { holder.writes } else { holder.reads }) else { return };
    let (does, other) = if reads { ("reads from", "written") } else { ("writes to", "read") };
    examination.findings.warn(
        "pipe-outside",
        task.pid(),
        format!(
            "descriptor {} of {} {does} the pipe {}, which is {other} by process {} ({}) outside the tree",
            descriptor.fd,
            described(task),
            descriptor.path.display(),
            holder.pid,
            holder.comm
        ),
        "the dump passes, but after the restore it is a new pipe that nobody else has: dump a tree that has both, redirect to a \
         file, or hand over a pipe at the restore with --inherit-fd",
    );
}

fn look_at_unix(examination: &mut Examination<'_>, socket: &Socket, holders: &Holders) {
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
        look_at_outside(examination, socket, unix, kind, &place, holders.of(unix.peer));
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

fn look_at_outside(
    examination: &mut Examination<'_>,
    socket: &Socket,
    unix: &UnixSocket,
    kind: UnixKind,
    place: &str,
    holders: &[Holder],
) {
    let external = format!("unix[{}]", socket.inode);
    if examination.intent.has_external(&external) {
        return;
    }
    let whom = match holders.first() {
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
