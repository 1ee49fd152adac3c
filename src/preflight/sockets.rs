//! Sockets: families that CRIU does not know, and TCP connections, which need the user's word.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::process::{Family, Socket, TcpState, Transport};
use crate::request::{DumpSwitch, Tcp, Version};

use super::circumstances::KernelRelease;
use super::examine::{Examination, need};
use super::peers;
use super::report::{Choice, Connection};

/// The protocol number of Multipath TCP.
const IPPROTO_MPTCP: i32 = 262;

pub(super) fn look(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let sockets: Vec<&Socket> = tree.sockets.values().collect();
    let mut closed = Vec::new();
    for socket in &sockets {
        match socket.family {
            Family::Inet | Family::Inet6 => look_at_inet(examination, socket, &mut closed),
            Family::Netlink if socket.readable => examination.findings.will_not(
                "netlink-data",
                socket.pid,
                format!("{} is a netlink socket with messages that have not been read", place(examination, socket)),
                "let the program read them: CRIU dumps an empty netlink socket only",
            ),
            Family::Other(_) => examination.findings.will_not(
                "socket-family",
                socket.pid,
                format!("{} is a {} socket", place(examination, socket), socket.family.name()),
                "close it before the dump: CRIU knows IP, unix, netlink and packet sockets only",
            ),
            Family::Unix | Family::Netlink | Family::Packet => {}
        }
    }
    look_at_connections(examination, &closed);
    look_at_lock(examination);
    peers::look(examination);
}

fn place(examination: &Examination<'_>, socket: &Socket) -> String {
    format!("descriptor {} of {}", socket.fd, examination.name(socket.pid))
}

fn look_at_inet<'a>(examination: &mut Examination<'_>, socket: &'a Socket, closed: &mut Vec<&'a Socket>) {
    let place = place(examination, socket);
    if let (Some(criu), Some(kernel)) = (examination.circumstances.criu, examination.circumstances.kernel) {
        if criu < Version::new(4, 2) && kernel >= (KernelRelease { major: 6, minor: 16 }) {
            examination.findings.will_not(
                "criu-too-old-for-sockets",
                socket.pid,
                format!("{place} is an IP socket, which CRIU {criu} cannot dump on Linux {kernel}"),
                "install CRIU 4.2 or newer (tools/setup-criu)",
            );
            return;
        }
    }
    match socket.transport {
        Transport::Other(IPPROTO_MPTCP) => examination.findings.will_not(
            "mptcp",
            socket.pid,
            format!("{place} is a Multipath TCP socket"),
            "turn Multipath TCP off (Go programs: GODEBUG=multipathtcp=0): CRIU cannot save it",
        ),
        Transport::Other(protocol) => examination.findings.will_not(
            "ip-protocol",
            socket.pid,
            format!("{place} is an IP socket of protocol {protocol}, which CRIU does not know"),
            "close it before the dump: CRIU knows TCP, UDP, UDP-Lite, ICMP and raw sockets",
        ),
        Transport::Udp { corked: true } => examination.findings.will_not(
            "udp-corked",
            socket.pid,
            format!("{place} is a UDP socket that holds data back (UDP_CORK)"),
            "let the program uncork it",
        ),
        Transport::Udp { .. } if socket.readable => examination.findings.warn(
            "udp-data",
            socket.pid,
            format!("{place} is a UDP socket{} with datagrams that have not been read", address_words(socket.local)),
            "the dump passes, but these datagrams are lost without a word, as UDP may lose any",
        ),
        Transport::Tcp { state, waiting } => look_at_tcp(examination, socket, state, waiting, closed),
        _ => {}
    }
}

fn address_words(address: Option<SocketAddr>) -> String {
    address.map_or_else(String::new, |address| format!(" at {address}"))
}

fn look_at_tcp<'a>(
    examination: &mut Examination<'_>,
    socket: &'a Socket,
    state: TcpState,
    waiting: u32,
    closed: &mut Vec<&'a Socket>,
) {
    let place = place(examination, socket);
    match state {
        TcpState::Listening if waiting > 0 && !examination.intent.has(DumpSwitch::SkipInFlight) => {
            examination.findings.choose(
                "tcp-in-flight",
                socket.pid,
                format!(
                    "{place} listens{}, and {waiting} connections wait to be accepted",
                    address_words(socket.local)
                ),
                "let the program accept them, or drop them with --skip-in-flight",
                vec![Choice {
                    arguments: vec!["--skip-in-flight".into()],
                    consequence: "these clients find their connections reset".into(),
                }],
            );
        }
        TcpState::Listening => {}
        TcpState::Closed if socket.peer.is_some() => closed.push(socket),
        TcpState::Closed => {}
        TcpState::SynReceived | TcpState::TimeWait | TcpState::Other(_) => examination.findings.will_not(
            "tcp-state",
            socket.pid,
            format!("{place} is a TCP socket in the state {}, which CRIU cannot dump", state.name()),
            "wait a moment and try again",
        ),
        _ => {
            let text = |address: Option<SocketAddr>| address.map_or_else(|| "?".into(), |address| address.to_string());
            examination.connections.push(Connection {
                pid: socket.pid,
                fd: socket.fd,
                protocol: if socket.family == Family::Inet6 { "tcp6" } else { "tcp" },
                state: state.name(),
                local: text(socket.local),
                peer: text(socket.peer),
                within_tree: false,
            });
        }
    }
}

fn look_at_connections(examination: &mut Examination<'_>, closed: &[&Socket]) {
    let ours: BTreeSet<String> = examination.connections.iter().map(|connection| connection.local.clone()).collect();
    for connection in &mut examination.connections {
        connection.within_tree = ours.contains(&connection.peer);
    }
    if examination.intent.tcp != Tcp::Refuse {
        return;
    }
    for connection in examination.connections.clone() {
        let within = if connection.within_tree { ", which is of the tree too" } else { "" };
        examination.findings.choose(
            "tcp-connection",
            connection.pid,
            format!(
                "descriptor {} of {} is a TCP connection ({}) from {} to {}{within}",
                connection.fd,
                examination.name(connection.pid),
                connection.state,
                connection.local,
                connection.peer
            ),
            "choose what becomes of the connections: --tcp-established keeps them, --tcp-close drops them",
            vec![
                Choice {
                    arguments: vec!["--tcp-established".into()],
                    consequence:
                        "the connections are kept, and their packets are dropped until the restore, which has to come \
                                  before the other end gives up and on a host with the same addresses"
                            .into(),
                },
                Choice {
                    arguments: vec!["--tcp-close".into()],
                    consequence: "the restored program finds its connections closed, and has to connect again".into(),
                },
            ],
        );
    }
    if examination.connections.is_empty() {
        for socket in closed {
            let place = place(examination, socket);
            need(&mut examination.needs.tcp_close, socket.pid, || {
                format!(
                    "{place} is a TCP connection that both ends have closed, and which could not be restored otherwise"
                )
            });
        }
    }
}

/// A tree in a network namespace of its own, or one whose connections are kept, has its network locked: with iptables
/// unless told otherwise.
fn look_at_lock(examination: &mut Examination<'_>) {
    let (own, root) = (examination.tree.own_namespaces.net, examination.tree.root().namespaces.net);
    let own_network = own != 0 && root != 0 && own != root;
    let keeps = examination.intent.tcp == Tcp::Established && !examination.connections.is_empty();
    if !examination.circumstances.iptables && (own_network || keeps) {
        let root = examination.tree.root().pid();
        need(&mut examination.needs.network_lock_nftables, root, || {
            "connections have to be locked, and there is no iptables-restore, which CRIU would use by itself".into()
        });
    }
}
