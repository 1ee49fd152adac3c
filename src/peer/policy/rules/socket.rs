//! Sockets: who may be talked to, and as whom.

use std::net::IpAddr;

use super::super::scene::{Findings, Record, Scene};
use super::super::values::{Network, Range, address};
use super::super::violation::Line;
use super::credentials::{group_id, needs, user_id};
use crate::images::Kind;
use crate::images::message::Message;

/// Protocols that everybody may use: TCP, UDP, UDP-Lite; with datagrams also the pings of ICMP and ICMPv6.
const PROTOCOLS: [u64; 5] = [6, 17, 136, 1, 58];
const SOCK_RAW: u64 = libc::SOCK_RAW as u64;
/// Netlink families that answer everybody: routes, socket diagnostics, events of devices.
const NETLINK: [u64; 3] = [0, 4, 15];
/// A priority above takes a capability.
const PRIORITY: u64 = 6;

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for record in scene.of(Kind::Files) {
        if let Some(socket) = record.message.message("isk") {
            inet(scene, record, socket, findings);
        }
        if let Some(socket) = record.message.message("usk") {
            unix(scene, record, socket, findings);
        }
        if let Some(socket) = record.message.message("nlsk") {
            let protocol = socket.number("protocol").unwrap_or(0);
            if !NETLINK.contains(&protocol) {
                needs(scene, record, "net_admin", &format!("a netlink socket of the family {protocol}"), findings);
            }
        }
        for options in record.message.every("sk_opts_entry") {
            let number = |field| options.number(field).unwrap_or(0);
            if number("so_mark") != 0 || number("so_priority") > PRIORITY {
                needs(scene, record, "net_admin", "a socket marks what it sends", findings);
            }
            if options.bytes("so_bound_dev").is_some_and(|device| !device.is_empty()) {
                needs(scene, record, "net_raw", "a socket is bound to a device", findings);
            }
        }
    }
}

fn inet(scene: &Scene<'_>, record: &Record, socket: &Message, findings: &mut Findings<'_>) {
    let number = |field| socket.number(field).unwrap_or(0);
    let (protocol, family) = (number("proto"), number("family"));
    if number("type") == SOCK_RAW || !socket.every("ip_opts_raw_entry").is_empty() {
        needs(scene, record, "net_raw", "a raw socket", findings);
    } else if !PROTOCOLS.contains(&protocol) {
        findings.refuse_in(record, Line::Unrestricted, format!("a socket of the protocol {protocol}"));
    }
    let end = |words: &str, findings: &mut Findings<'_>| {
        let words: Vec<u64> = socket.numbers(words).collect();
        let known = address(family, &words);
        if known.is_none() && !words.is_empty() {
            findings.refuse_in(
                record,
                Line::Unrestricted,
                format!("a socket of the family {family} has no such address"),
            );
        }
        known
    };
    let (local, remote) = (end("src_addr", findings), end("dst_addr", findings));
    let (local_port, remote_port) = (number("src_port"), number("dst_port"));
    // One that is bound to nothing is everybody's.
    if local_port != 0 || local.is_some_and(|local| !local.is_unspecified()) {
        match local.filter(|local| Network::has(&scene.allowed.addresses, *local)) {
            Some(_) => {}
            None => findings.refuse_in(record, Line::Addresses, format!("a socket is bound to {}", text(local))),
        }
        if local_port != 0 && !Range::has(&scene.allowed.ports, local_port) {
            findings.refuse_in(record, Line::Ports, format!("a socket is bound to port {local_port}"));
        }
    }
    if remote_port != 0 || remote.is_some_and(|remote| !remote.is_unspecified()) {
        let allowed = remote.is_some_and(|remote| Network::has(&scene.allowed.remotes, remote));
        if !allowed {
            let what = format!("a socket is connected to {} port {remote_port}", text(remote));
            findings.refuse_in(record, Line::Remotes, what);
        }
    }
}

fn text(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "no address".to_owned(), |address| address.to_string())
}

fn unix(scene: &Scene<'_>, record: &Record, socket: &Message, findings: &mut Findings<'_>) {
    let flags = socket.number("uflags").unwrap_or(0);
    if flags != 0 {
        let what = format!("a unix socket's other end is outside of the tree (flags {flags:#x})");
        findings.refuse_in(record, Line::Unrestricted, what);
    }
    if let Some(permissions) = socket.message("file_perms") {
        let number = |field| permissions.number(field).unwrap_or(0);
        user_id(scene, record, number("uid"), "the socket that would be made is of user", findings);
        group_id(scene, record, number("gid"), "the socket that would be made is of group", findings);
        if number("mode") & 0o7000 != 0 {
            let what = format!("a socket of mode {:#o} would be made", number("mode"));
            findings.refuse_in(record, Line::Create, what);
        }
    }
}
