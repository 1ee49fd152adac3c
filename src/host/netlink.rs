//! Single requests to the kernel over netlink: links up, and tables of nf_tables listed and removed.
//!
//! libnftables is linked into CRIU, so that a machine may have CRIU's tables without having the nft program.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// The subsystem nf_tables, in the upper byte of a message's type.
pub(super) const NFTABLES: u16 = 10 << 8;
pub(super) const NEWTABLE: u16 = NFTABLES;
const GETTABLE: u16 = NFTABLES | 1;
pub(super) const DELTABLE: u16 = NFTABLES | 2;
/// The family `inet`.
const NFPROTO_INET: u8 = 1;
/// The bit of an attribute's type that says that its value is attributes.
const NESTED: u16 = 0x8000;
/// The group of those who are told of changes in nf_tables, the seventh, as a bit.
const NFNLGRP_NFTABLES: u32 = 1 << 6;
/// The attribute with a table's name.
pub(super) const NFTA_TABLE_NAME: u16 = 1;
/// `lo` is the first interface of every network namespace.
const LOOPBACK: i32 = 1;
const IFF_UP: u32 = 1;
/// A message of the header: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Behind the header of a message of netfilter: family, version, resource.
const NFGENMSG: usize = 4;
/// The kernel's parts of a listing are at most this long.
const BUFFER: usize = 64 << 10;
/// Tables in a listing; a machine with more is not understood.
const TABLES_LIMIT: usize = 10_000;

/// Takes the loopback interface of the calling thread's network namespace up.
///
/// # Errors
/// What the kernel says, usually that `CAP_NET_ADMIN` is missing.
pub fn loopback_up() -> io::Result<()> {
    up(LOOPBACK)
}

/// Takes an interface of the calling thread's network namespace up.
///
/// # Errors
/// What the kernel says: `ENODEV` if there is none of that name.
pub fn link_up(name: &str) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(name)?;
    up(i32::try_from(index).map_err(io::Error::other)?)
}

fn up(index: i32) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);
    message.bytes.extend([0; 4]);
    message.bytes.extend(index.to_ne_bytes());
    message.bytes.extend(IFF_UP.to_ne_bytes());
    message.bytes.extend(IFF_UP.to_ne_bytes());
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    socket.send(&message.finish())?;
    socket.acknowledged()
}

/// The names of the nf_tables tables of the family `inet` in the calling thread's network namespace.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_NET_ADMIN`, another if it has no nf_tables.
pub fn inet_tables() -> io::Result<Vec<String>> {
    let mut message = Message::new(GETTABLE, NLM_F_REQUEST | NLM_F_DUMP);
    message.netfilter(NFPROTO_INET, 0);
    let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    socket.send(&message.finish())?;
    let mut names = Vec::new();
    loop {
        let packet = socket.receive()?;
        for (kind, body) in messages(&packet) {
            match kind {
                NLMSG_DONE => return Ok(names),
                NLMSG_ERROR => error_of(body)?,
                NEWTABLE if names.len() < TABLES_LIMIT => names.extend(table_name(body)),
                _ => {}
            }
        }
    }
}

/// Removes the table `inet NAME` with all that is in it.
///
/// # Errors
/// What the kernel says: `ENOENT` if there is no such table, `EPERM` without `CAP_NET_ADMIN`.
pub fn remove_inet_table(name: &str) -> io::Result<()> {
    let mut delete = Message::inet(DELTABLE, 0);
    delete.text(NFTA_TABLE_NAME, name);
    transaction(vec![delete])
}

/// Changes nf_tables as these messages say: all of it, or nothing.
pub(super) fn transaction(mut changes: Vec<Message>) -> io::Result<()> {
    // An error is told of each message; that all is well, of the last.
    if let Some(last) = changes.last_mut() {
        last.flag(NLM_F_ACK);
    }
    let mut begin = Message::new(BATCH_BEGIN, NLM_F_REQUEST);
    begin.netfilter(0, NFTABLES >> 8);
    let mut end = Message::new(BATCH_END, NLM_F_REQUEST);
    end.netfilter(0, NFTABLES >> 8);
    let messages: Vec<Vec<u8>> = [begin].into_iter().chain(changes).chain([end]).map(Message::finish).collect();
    let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    socket.send(&messages.concat())?;
    socket.acknowledged()
}

/// Listens to what is changed in nf_tables, from its making on.
#[derive(Debug)]
pub struct TableWatch(Socket);

impl TableWatch {
    /// Begins to listen, in the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` without `CAP_NET_ADMIN`.
    pub fn begin() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        bind(socket.0.as_raw_fd(), &NetlinkAddr::new(0, NFNLGRP_NFTABLES))?;
        Ok(Self(socket))
    }

    /// The tables of the family `inet` that process `pid` has made since. The kernel names the maker by its first netlink
    /// socket, whose address is the PID unless another process has taken that.
    pub fn made_by(&self, pid: i32) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let packet = match self.0.receive_with(MsgFlags::MSG_DONTWAIT) {
                Ok(packet) => packet,
                // More was changed than the kernel keeps for us; what was first is here.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(_) => return names,
            };
            for (kind, port, body) in messages_with_port(&packet) {
                if kind == NEWTABLE && port == pid.unsigned_abs() && body.first() == Some(&NFPROTO_INET) {
                    names.extend(table_name(body));
                }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // The kernel answers at once; this is for the day it does not.
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self(fd))
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    pub(super) fn receive(&self) -> io::Result<Vec<u8>> {
        self.receive_with(MsgFlags::empty())
    }

    fn receive_with(&self, flags: MsgFlags) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; BUFFER];
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut buffer, flags) {
                Err(Errno::EINTR) => continue,
                other => break other?,
            }
        };
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Waits for the answer to the one message that asked for it. An answer to another, such as an error at the end of a
    /// batch, decides as well.
    pub(super) fn acknowledged(&self) -> io::Result<()> {
        loop {
            let packet = self.receive()?;
            if let Some((_, body)) = messages(&packet).find(|(kind, _)| *kind == NLMSG_ERROR) {
                return error_of(body);
            }
        }
    }
}

/// A message in the making.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        Self { bytes }
    }

    /// A change of a table of the family `inet`.
    pub(super) fn inet(kind: u16, flags: u16) -> Self {
        let mut message = Self::new(kind, NLM_F_REQUEST | flags);
        message.netfilter(NFPROTO_INET, 0);
        message
    }

    fn flag(&mut self, flag: u16) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flag;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    fn netfilter(&mut self, family: u8, resource: u16) {
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
    }

    /// An attribute that is a string.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// An attribute that is a number in the order of the network.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// An attribute whose value is attributes.
    pub(super) fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self { bytes: Vec::new() };
        write(&mut inner);
        self.attribute(kind | NESTED, &inner.bytes);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        // A name that is longer than an attribute can be is no table's.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// The messages of a packet: type, and what is behind the header. Stops at what makes no sense.
pub(super) fn messages(packet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    messages_with_port(packet).map(|(kind, _, body)| (kind, body))
}

/// As [`messages`], with the address of the socket that the message comes from or is about.
fn messages_with_port(packet: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        let port = u32::from_ne_bytes(rest.get(12..HEADER)?.try_into().ok()?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, port, body))
    })
}

pub(super) fn error_of(body: &[u8]) -> io::Result<()> {
    match body.get(..4).and_then(|word| word.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn table_name(body: &[u8]) -> Option<String> {
    let mut rest = body.get(NFGENMSG..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == NFTA_TABLE_NAME {
            let name = value.strip_suffix(b"\0").unwrap_or(value);
            return String::from_utf8(name.to_vec()).ok();
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_in_a_listing_and_every_prefix_of_it_is_survived() {
        let mut table = Message::new(NEWTABLE, 0);
        table.netfilter(NFPROTO_INET, 0);
        table.attribute(7, &[1, 2, 3]);
        table.text(NFTA_TABLE_NAME, "CRIU-x");
        let packet = [table.finish(), Message::new(NLMSG_DONE, 0).finish()].concat();
        let read = |packet: &[u8]| -> Vec<(u16, Option<String>)> {
            messages(packet).map(|(kind, body)| (kind, table_name(body))).collect()
        };
        assert_eq!(read(&packet), [(NEWTABLE, Some("CRIU-x".into())), (NLMSG_DONE, None)]);
        for length in 0..packet.len() {
            assert!(read(&packet[..length]).len() < 2, "{length}");
        }
    }

    #[test]
    fn an_acknowledgement_is_an_error_of_zero() {
        assert!(error_of(&0i32.to_ne_bytes()).is_ok());
        let refused = error_of(&(-libc::EPERM).to_ne_bytes()).expect_err("refused");
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(error_of(&i32::MIN.to_ne_bytes()).is_err());
        assert!(error_of(&[0]).is_err());
    }
}
