//! Which TCP sockets a network namespace holds (sock_diag(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::SockProtocol;

use super::netlink::{Message, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, Socket, error_of, messages};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The state of a socket that listens.
const LISTEN: u32 = 10;
/// Every state that the kernel lists, TCP_NEW_SYN_RECV being the last, but that.
const CONNECTED: u32 = 0x1ffe & !(1 << LISTEN);
/// An `inet_diag_sockid`, all zero for any socket.
const ANY_SOCKET: [u8; 48] = [0; 48];
/// More need not be known to see that there are some.
const SOCKETS_LIMIT: usize = 64;

/// A way to ask for the TCP sockets of one network namespace: the one that the thread which made it was in.
#[derive(Debug)]
pub struct TcpSockets(Socket);

impl TcpSockets {
    /// Opens it, in the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        Socket::open(SockProtocol::NetlinkSockDiag).map(Self)
    }

    /// The sockets that do more than listen, closing ones included: their own address and their peer's. At most 64.
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` if it has no diagnostics for TCP.
    pub fn connected(&self) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP);
            message.bytes.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
            message.bytes.extend(CONNECTED.to_ne_bytes());
            message.bytes.extend(ANY_SOCKET);
            self.0.send(&message.finish())?;
            self.collect(&mut found)?;
        }
        Ok(found)
    }

    fn collect(&self, found: &mut Vec<(SocketAddr, SocketAddr)>) -> io::Result<()> {
        loop {
            let packet = self.0.receive()?;
            for (kind, body) in messages(&packet) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => error_of(body)?,
                    SOCK_DIAG_BY_FAMILY if found.len() < SOCKETS_LIMIT => found.extend(addresses(body)),
                    _ => {}
                }
            }
        }
    }
}

/// The addresses in an `inet_diag_msg`: own and peer's.
pub(super) fn addresses(body: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(match i32::from(body[0]) {
            libc::AF_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
            _ => Ipv6Addr::from(bytes).into(),
        })
    };
    let own = SocketAddr::new(address(8)?, port(4)?);
    Some((own, SocketAddr::new(address(24)?, port(6)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_found_and_a_listener_alone_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let at = listener.local_addr().expect("its address");
        let of_ours = || {
            let found = TcpSockets::open().and_then(|sockets| sockets.connected()).expect("an answer");
            found.iter().any(|(own, peer)| *own == at || *peer == at)
        };
        assert!(!of_ours());
        let _client = TcpStream::connect(at).expect("a connection");
        assert!(of_ours());
    }

    #[test]
    fn a_message_cut_short_has_no_addresses() {
        let mut body = vec![0; 72];
        body[0] = libc::AF_INET as u8;
        body[4..8].copy_from_slice(&[0, 80, 1, 0]);
        body[8..12].copy_from_slice(&[10, 0, 0, 1]);
        body[24..28].copy_from_slice(&[10, 0, 0, 2]);
        let (own, peer) = addresses(&body).expect("addresses");
        assert_eq!((own.to_string().as_str(), peer.to_string().as_str()), ("10.0.0.1:80", "10.0.0.2:256"));
        for length in 0..40 {
            assert_eq!(addresses(&body[..length]), None, "{length}");
        }
    }
}
