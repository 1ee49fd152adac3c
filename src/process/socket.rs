//! The sockets that a tree has open.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrLike, SockaddrStorage, getpeername, getsockname};

use super::foreign::{integer_option, socket_option};

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
    /// Local sockets.
    Unix,
    /// The kernel's message sockets.
    Netlink,
    /// Raw frames of a network device.
    Packet,
    /// Any other, by its number.
    Other(i32),
}

impl Family {
    fn of(number: i32) -> Self {
        match number {
            libc::AF_INET => Self::Inet,
            libc::AF_INET6 => Self::Inet6,
            libc::AF_UNIX => Self::Unix,
            libc::AF_NETLINK => Self::Netlink,
            libc::AF_PACKET => Self::Packet,
            other => Self::Other(other),
        }
    }

    /// The name people know it by.
    pub fn name(self) -> String {
        match self {
            Self::Inet => "IPv4".into(),
            Self::Inet6 => "IPv6".into(),
            Self::Unix => "unix".into(),
            Self::Netlink => "netlink".into(),
            Self::Packet => "packet".into(),
            Self::Other(libc::AF_VSOCK) => "vsock".into(),
            Self::Other(libc::AF_BLUETOOTH) => "Bluetooth".into(),
            Self::Other(libc::AF_KEY) => "IPsec key (AF_KEY)".into(),
            Self::Other(libc::AF_RDS) => "RDS".into(),
            Self::Other(libc::AF_ALG) => "kernel cryptography (AF_ALG)".into(),
            Self::Other(libc::AF_CAN) => "CAN".into(),
            Self::Other(libc::AF_TIPC) => "TIPC".into(),
            Self::Other(libc::AF_XDP) => "XDP".into(),
            Self::Other(43) => "SMC".into(),
            Self::Other(libc::AF_NFC) => "NFC".into(),
            Self::Other(42) => "Qualcomm IPC router".into(),
            Self::Other(number) => format!("family {number}"),
        }
    }
}

/// The state of a TCP socket, with the kernel's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TcpState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listening,
    Closing,
    Other(u8),
}

impl TcpState {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listening,
            11 => Self::Closing,
            other => Self::Other(other),
        }
    }

    /// The name that `ss` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTAB",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECV",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listening => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Other(_) => "UNKNOWN",
        }
    }
}

/// What kind of unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixKind {
    /// A byte stream.
    Stream,
    /// Datagrams.
    Datagram,
    /// Messages in order.
    SequencedPacket,
    /// Any other, by its number.
    Other(i32),
}

/// What the kernel's diagnostics say of a unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its type number (SOCK_…).
    pub kind: u8,
    /// 1 connected, 7 not, 10 listening.
    pub state: u8,
    /// The inode of the socket it is connected to; 0 where there is none, or it is gone or not accepted yet.
    pub peer: u64,
    /// The name it is bound to: a path as it was given to `bind`, or an abstract name that begins with a NUL byte.
    pub name: Option<Vec<u8>>,
    /// Bytes to be read; of a listening socket the connections that wait.
    pub receive_queue: u32,
    /// Bytes that the peer has not read.
    pub send_queue: u32,
    /// Of a listening socket, the inode of each connection that waits; 0 of one that is closed already.
    pub waiting: Vec<u64>,
    /// Bit 0: shut for reading; bit 1: for writing.
    pub shutdown: u8,
}

impl UnixSocket {
    /// The path it is bound to, if that is a path.
    pub fn path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let name = self.name.as_deref()?;
        (name.first() != Some(&0)).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
    }
}

/// What a socket is, beyond its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Its state.
        state: TcpState,
        /// Of a listening socket, the connections that nobody has accepted yet.
        waiting: u32,
    },
    /// UDP or UDP-Lite.
    Udp {
        /// Whether datagrams are held back by UDP_CORK.
        corked: bool,
    },
    /// Raw IP.
    Raw,
    /// ICMP without privileges ("ping socket").
    Ping,
    /// A unix socket.
    Unix(UnixKind),
    /// Netlink.
    Netlink,
    /// A packet socket.
    Packet,
    /// Another protocol, by its number.
    Other(i32),
}

/// A socket that a task of the tree has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its inode, by which all descriptors of one socket are known.
    pub inode: u64,
    /// A task that has it.
    pub pid: i32,
    /// The descriptor there.
    pub fd: i32,
    /// Its family.
    pub family: Family,
    /// What it is.
    pub transport: Transport,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// The address it is connected to.
    pub peer: Option<SocketAddr>,
    /// Whether there is something to read.
    pub readable: bool,
    /// The network namespace it was made in, by the kernel's cookie.
    pub network: Option<u64>,
    /// More about a unix socket.
    pub unix: Option<UnixSocket>,
}

impl Socket {
    /// Looks at a duplicate of descriptor `fd` of `pid`. `None` when it answers nothing.
    pub(super) fn look(twin: &OwnedFd, inode: u64, pid: i32, fd: i32) -> Option<Self> {
        const SO_NETNS_COOKIE: i32 = 71;
        let general = |name| integer_option(twin, libc::SOL_SOCKET, name);
        let family = Family::of(general(libc::SO_DOMAIN).ok()?);
        let kind = general(libc::SO_TYPE).ok()?;
        let protocol = general(libc::SO_PROTOCOL).unwrap_or(0);
        let transport = match family {
            Family::Unix => Transport::Unix(match kind {
                libc::SOCK_STREAM => UnixKind::Stream,
                libc::SOCK_DGRAM => UnixKind::Datagram,
                libc::SOCK_SEQPACKET => UnixKind::SequencedPacket,
                other => UnixKind::Other(other),
            }),
            Family::Netlink => Transport::Netlink,
            Family::Packet => Transport::Packet,
            Family::Inet | Family::Inet6 if kind == libc::SOCK_RAW => Transport::Raw,
            Family::Inet | Family::Inet6 => inet_transport(twin.as_fd(), protocol),
            Family::Other(_) => Transport::Other(protocol),
        };
        let inet = matches!(family, Family::Inet | Family::Inet6);
        let raw = twin.as_raw_fd();
        Some(Self {
            inode,
            pid,
            fd,
            family,
            local: if inet { getsockname::<SockaddrStorage>(raw).ok().and_then(address) } else { None },
            peer: if inet {
                getpeername::<SockaddrStorage>(raw).ok().and_then(address).or_else(|| former_peer(twin.as_fd()))
            } else {
                None
            },
            readable: !matches!(transport, Transport::Tcp { .. }) && is_readable(twin.as_fd()),
            network: socket_option::<8>(twin, libc::SOL_SOCKET, SO_NETNS_COOKIE)
                .ok()
                .map(|(value, _)| u64::from_ne_bytes(value)),
            transport,
            unix: None,
        })
    }
}

fn inet_transport(twin: BorrowedFd<'_>, protocol: i32) -> Transport {
    match protocol {
        libc::IPPROTO_TCP => {
            // struct tcp_info begins with the state; tcpi_unacked, at byte 24, is the accept queue of a listening socket.
            let info = socket_option::<28>(twin, libc::IPPROTO_TCP, libc::TCP_INFO);
            let (info, length) = info.unwrap_or(([0; 28], 0));
            let state = TcpState::of(info[0]);
            let queue = if length == 28 { u32::from_ne_bytes([info[24], info[25], info[26], info[27]]) } else { 0 };
            Transport::Tcp { state, waiting: if state == TcpState::Listening { queue } else { 0 } }
        }
        libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE => {
            const UDP_CORK: i32 = 1;
            Transport::Udp { corked: integer_option(twin, libc::IPPROTO_UDP, UDP_CORK).is_ok_and(|corked| corked != 0) }
        }
        libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 => Transport::Ping,
        other => Transport::Other(other),
    }
}

/// The address that a TCP socket was connected to, which the kernel still tells after both ends have closed.
fn former_peer(twin: BorrowedFd<'_>) -> Option<SocketAddr> {
    const SO_PEERNAME: i32 = 28;
    // The kernel refuses a buffer that is larger than the address.
    match integer_option(twin, libc::SOL_SOCKET, libc::SO_DOMAIN).ok()? {
        libc::AF_INET => parse_sockaddr(&socket_option::<16>(twin, libc::SOL_SOCKET, SO_PEERNAME).ok()?.0),
        libc::AF_INET6 => parse_sockaddr(&socket_option::<28>(twin, libc::SOL_SOCKET, SO_PEERNAME).ok()?.0),
        _ => None,
    }
}

/// Reads a `sockaddr_in` or `sockaddr_in6`.
fn parse_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::from((octets, port)))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(SocketAddr::from((octets, port)))
        }
        _ => None,
    }
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        nix::sys::socket::AddressFamily::Inet => storage.as_sockaddr_in().map(|inet| SocketAddr::V4((*inet).into())),
        nix::sys::socket::AddressFamily::Inet6 => storage.as_sockaddr_in6().map(|inet| SocketAddr::V6((*inet).into())),
        _ => None,
    }
}

fn is_readable(twin: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(twin, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLIN) && !events.contains(PollFlags::POLLHUP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn look(socket: impl Into<OwnedFd>) -> Socket {
        Socket::look(&socket.into(), 1, 2, 3).expect("a socket answers")
    }

    #[test]
    fn a_listening_socket_counts_the_connections_that_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let _client = TcpStream::connect(address).expect("a connection");
        let found = look(listener);
        assert_eq!(found.transport, Transport::Tcp { state: TcpState::Listening, waiting: 1 });
        assert_eq!((found.local, found.peer), (Some(address), None));
    }

    #[test]
    fn a_connection_has_both_addresses() {
        let listener = TcpListener::bind("[::1]:0").expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (local, peer) = (client.local_addr().ok(), client.peer_addr().ok());
        let found = look(client);
        assert_eq!(found.family, Family::Inet6);
        assert_eq!(found.transport, Transport::Tcp { state: TcpState::Established, waiting: 0 });
        assert_eq!((found.local, found.peer), (local, peer));
    }

    #[test]
    fn a_connection_that_both_ends_have_closed_remembers_its_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (server, _) = listener.accept().expect("the other end");
        client.shutdown(std::net::Shutdown::Write).expect("closing one way");
        // The server's FIN must find the client's there, so that the server ends up in CLOSED and not in TIME-WAIT.
        let mut nothing = [0; 1];
        assert_eq!(std::io::Read::read(&mut &server, &mut nothing).expect("the client's FIN"), 0);
        server.shutdown(std::net::Shutdown::Write).expect("closing the other way");
        assert_eq!(std::io::Read::read(&mut &client, &mut nothing).expect("the server's FIN"), 0);
        let peer = client.local_addr().expect("the client's address");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let twin: OwnedFd = server.into();
        loop {
            let found = Socket::look(&twin, 1, 2, 3).expect("a socket answers");
            if found.transport == (Transport::Tcp { state: TcpState::Closed, waiting: 0 }) {
                assert_eq!(found.peer, Some(peer));
                break;
            }
            assert!(std::time::Instant::now() < deadline, "still {:?}", found.transport);
        }
    }

    #[test]
    fn a_datagram_that_nobody_has_read_is_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = socket.local_addr().expect("its address");
        UdpSocket::bind("127.0.0.1:0").expect("a sender").send_to(b"x", address).expect("a datagram");
        let found = look(socket);
        assert_eq!(found.transport, Transport::Udp { corked: false });
        assert!(found.readable);
    }

    #[test]
    fn addresses_of_the_kernel_are_read_and_cut_ones_refused() {
        let mut v4 = [0u8; 16];
        v4[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        v4[2..8].copy_from_slice(&[0x1f, 0x90, 127, 0, 0, 1]);
        assert_eq!(parse_sockaddr(&v4), Some("127.0.0.1:8080".parse().expect("an address")));
        for length in 0..8 {
            assert_eq!(parse_sockaddr(&v4[..length]), None);
        }
    }
}
