//! The network interfaces of a network namespace (rtnetlink(7)).

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::SockProtocol;

use super::netlink::{Message, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, Socket, error_of, messages};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// The sizes of `ifinfomsg` and `ifaddrmsg`, which attributes follow.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
/// The bits of an attribute's type that are flags.
const ATTRIBUTE_FLAGS: u16 = 0xc000;
/// No host has more; a listing that does is cut.
const LINKS_LIMIT: usize = 100_000;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind, such as veth or bridge; empty for a device of the machine and the loopback.
    pub kind: String,
    /// The hardware address, as in `02:42:ac:11:00:02`.
    pub mac: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// The number of the other end of a veth, in that one's namespace.
    pub peer: Option<u32>,
    /// The number of the bridge or bond that it is in.
    pub master: Option<u32>,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<String>,
}

/// The interfaces of the calling thread's network namespace.
///
/// # Errors
/// What the kernel says.
pub fn links() -> io::Result<Vec<Link>> {
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    let mut links: Vec<Link> = Vec::new();
    listing(&socket, RTM_GETLINK, &[0; LINK_HEADER], |kind, body| {
        if kind == RTM_NEWLINK && links.len() < LINKS_LIMIT {
            links.extend(link(body));
        }
    })?;
    listing(&socket, RTM_GETADDR, &[0; ADDRESS_HEADER], |kind, body| {
        let Some((index, address)) = (kind == RTM_NEWADDR).then(|| address(body)).flatten() else { return };
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            link.addresses.push(address);
        }
    })?;
    Ok(links)
}

/// Does something in the network namespace at `path`: on a thread of its own, since entering one is for the thread's life.
///
/// # Errors
/// What opening or entering it says.
pub fn in_network<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    std::thread::scope(|scope| {
        let enter = || setns(namespace, CloneFlags::CLONE_NEWNET).map(|()| act());
        let thread = std::thread::Builder::new().spawn_scoped(scope, enter)?;
        let done = thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
        Ok(done?)
    })
}

pub(super) fn listing(
    socket: &Socket,
    request: u16,
    header: &[u8],
    mut take: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let mut message = Message::new(request, NLM_F_REQUEST | NLM_F_DUMP);
    message.bytes.extend(header);
    socket.send(&message.finish())?;
    loop {
        let packet = socket.receive()?;
        for (kind, body) in messages(&packet) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => error_of(body)?,
                _ => take(kind, body),
            }
        }
    }
}

fn link(body: &[u8]) -> Option<Link> {
    let flags = word(body, 8)?;
    let mut link =
        Link { index: word(body, 4)?, up: flags & IFF_UP != 0, loopback: flags & IFF_LOOPBACK != 0, ..Link::default() };
    for (kind, value) in attributes(body.get(LINK_HEADER..)?) {
        match kind {
            IFLA_ADDRESS => {
                link.mac = value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
            }
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINK => link.peer = word(value, 0),
            IFLA_MASTER => link.master = word(value, 0),
            IFLA_LINKINFO => {
                let name = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = name.map(|(_, name)| text(name)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// The number of the interface, and the address.
fn address(body: &[u8]) -> Option<(u32, String)> {
    let prefix = *body.get(1)?;
    let index = word(body, 4)?;
    let found = |wanted| attributes(body.get(ADDRESS_HEADER..)?).find(|(kind, _)| *kind == wanted);
    // Of a point-to-point interface the one is the peer's, and the other its own.
    let (_, value) = found(IFA_LOCAL).or_else(|| found(IFA_ADDRESS))?;
    let address: IpAddr = match value.len() {
        4 => Ipv4Addr::new(value[0], value[1], value[2], value[3]).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into(),
        _ => return None,
    };
    Some((index, format!("{address}/{prefix}")))
}

pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !ATTRIBUTE_FLAGS, value))
    })
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there() {
        let links = links().expect("a listing");
        let loopback = links.iter().find(|link| link.loopback).expect("the loopback");
        assert_eq!((loopback.name.as_str(), loopback.index), ("lo", 1));
        assert!(!loopback.up || loopback.addresses.iter().any(|address| address == "127.0.0.1/8"), "{loopback:?}");
    }

    #[test]
    fn a_veth_is_read_and_every_prefix_of_it_is_survived() {
        let mut body = vec![0; LINK_HEADER];
        body[4] = 7;
        body[8] = 1;
        let mut attribute = |kind: u16, value: &[u8]| {
            body.extend((value.len() as u16 + 4).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        attribute(IFLA_IFNAME, b"eth0\0");
        attribute(IFLA_LINK, &9u32.to_ne_bytes());
        attribute(IFLA_ADDRESS, &[2, 0x42, 0, 0, 0, 1]);
        attribute(IFLA_LINKINFO | 0x8000, &[8, 0, 1, 0, b'v', b'e', b't', b'h']);
        let found = link(&body).expect("a link");
        assert_eq!((found.index, found.name.as_str(), found.kind.as_str()), (7, "eth0", "veth"));
        assert_eq!((found.peer, found.mac.as_str(), found.up), (Some(9), "02:42:00:00:00:01", true));
        for length in 0..body.len() {
            assert_ne!(link(&body[..length]), Some(found.clone()), "{length}");
        }
    }
}
