//! The sockets of `files.img`, and `tcp-stream-INODE.img`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::name;
use super::record::Record;
use crate::proto::images::{packet_sock, sk_inet, sk_netlink, sk_unix, tcp_stream};

/// A TCP, UDP, UDP-Lite, ICMP or raw socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InetSocket {
    /// Its inode when it was dumped, which names its TCP stream image.
    pub inode: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// `SOCK_STREAM`...
    pub socket_type: u32,
    /// `IPPROTO_TCP`...
    pub protocol: u32,
    /// Of TCP its state; of others whether they are connected.
    pub state: SocketState,
    /// Where it is bound; `None` for a family other than the two.
    pub local: Option<SocketAddr>,
    /// Its peer; `None` where it has none.
    pub peer: Option<SocketAddr>,
    /// Whether it takes IPv6 only.
    pub v6_only: bool,
    /// The interface it is bound to, or that its link-local address is on.
    pub interface: Option<OsString>,
    /// Its network namespace, as [`Ids`](super::Ids) number them.
    pub namespace: Option<u32>,
}

/// The state of a socket, numbered as in /proc/net/tcp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "TCP's own names")]
pub enum SocketState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    Other(u32),
}

impl From<u32> for SocketState {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            other => Self::Other(other),
        }
    }
}

impl InetSocket {
    /// Whether CRIU takes it for a TCP connection, which a restore needs `--tcp-established` or `--tcp-close` for: it has a
    /// peer, be it closed by now.
    pub fn is_tcp_connection(&self) -> bool {
        self.protocol == libc::IPPROTO_TCP as u32 && self.peer.is_some()
    }
}

impl From<sk_inet::Inet_sk_entry> for InetSocket {
    fn from(message: sk_inet::Inet_sk_entry) -> Self {
        let family = message.family();
        let end = |words: &[u32], port: u32| {
            let port = u16::try_from(port).ok()?;
            Some(SocketAddr::new(address(family, words)?, port))
        };
        let peer = match message.dst_port() {
            0 => None,
            port => end(&message.dst_addr, port),
        };
        Self {
            inode: message.ino(),
            family,
            socket_type: message.type_(),
            protocol: message.proto(),
            state: message.state().into(),
            local: end(&message.src_addr, message.src_port()),
            peer,
            v6_only: message.v6only(),
            namespace: message.ns_id,
            interface: message.ifname.map(|interface| name(Some(interface))),
        }
    }
}

/// The address in `words`, which hold it in network byte order on a little-endian machine.
fn address(family: u32, words: &[u32]) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (word, place) in words.iter().zip(bytes.chunks_exact_mut(4)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    match (i32::try_from(family).ok()?, words.len()) {
        (libc::AF_INET, 1) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..4]).ok()?).into()),
        (libc::AF_INET6, 4) => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnixSocket {
    /// Its inode when it was dumped.
    pub inode: u32,
    /// `SOCK_STREAM`...
    pub socket_type: u32,
    /// Whether it is connected or listens.
    pub state: SocketState,
    /// The inode of its peer, 0 without.
    pub peer: u32,
    /// A path, an abstract name with a leading NUL byte, or nothing.
    pub name: Vec<u8>,
    /// What a relative path starts from.
    pub directory: Option<PathBuf>,
    /// Whether its path had been deleted.
    pub deleted: bool,
    /// Whether it belongs to a process outside the tree and only its name was dumped.
    pub external: bool,
}

impl From<sk_unix::Unix_sk_entry> for UnixSocket {
    fn from(message: sk_unix::Unix_sk_entry) -> Self {
        Self {
            inode: message.ino(),
            socket_type: message.type_(),
            state: message.state().into(),
            peer: message.peer(),
            deleted: message.deleted(),
            external: message.uflags() & 1 != 0,
            name: message.name.unwrap_or_default(),
            directory: message.name_dir.map(|directory| name(Some(directory)).into()),
        }
    }
}

/// A packet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketSocket {
    /// `SOCK_RAW` or `SOCK_DGRAM`.
    pub socket_type: u32,
    /// `ETH_P_...`.
    pub protocol: u32,
    /// The interface it is bound to, 0 for all.
    pub interface: u32,
}

impl From<packet_sock::Packet_sock_entry> for PacketSocket {
    fn from(message: packet_sock::Packet_sock_entry) -> Self {
        Self { socket_type: message.type_(), protocol: message.protocol(), interface: message.ifindex() }
    }
}

/// A netlink socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetlinkSocket {
    /// `NETLINK_...`.
    pub protocol: u32,
    /// Its address.
    pub port: u32,
}

impl From<sk_netlink::Netlink_sk_entry> for NetlinkSocket {
    fn from(message: sk_netlink::Netlink_sk_entry) -> Self {
        Self { protocol: message.protocol(), port: message.portid() }
    }
}

/// The queues of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpStream {
    /// Bytes received that the task has not read.
    pub received_bytes: u32,
    /// Bytes written that the peer has not acknowledged.
    pub unacknowledged_bytes: u32,
    /// Those of them that were never sent.
    pub unsent_bytes: u32,
}

impl Record for TcpStream {
    type Message = tcp_stream::Tcp_stream_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            received_bytes: message.inq_len(),
            unacknowledged_bytes: message.outq_len(),
            unsent_bytes: message.unsq_len(),
        })
    }

    fn raw_bytes(message: &Self::Message) -> u64 {
        u64::from(message.inq_len()) + u64::from(message.outq_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_network_byte_order() {
        assert_eq!(address(2, &[0x0100_007f]), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(address(10, &[0, 0, 0, 0x0100_0000]), Some(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_family_with_the_wrong_number_of_words_has_no_address() {
        assert_eq!(address(2, &[]), None);
        assert_eq!(address(2, &[1, 2, 3, 4]), None);
        assert_eq!(address(10, &[1]), None);
        assert_eq!(address(u32::MAX, &[1; 100]), None);
    }
}
