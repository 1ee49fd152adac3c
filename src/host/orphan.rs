//! TCP sockets that nobody holds any more: what the kernel keeps of a connection whose program has ended.
//!
//! As long as the peer does not close its end (or answers, for what was not delivered) such an orphan keeps its address: the
//! connection cannot be made again, nor can the program listen there without SO_REUSEADDR.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::SockProtocol;

use super::netlink::{
    Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, Socket, error_of, messages,
};
use super::netlock::Connection;
use super::tcp::addresses;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// The states that a socket which nobody holds is in until its peer has answered: FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK and
/// CLOSING.
const ENDING: u32 = 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// An `inet_diag_sockid`, all zero for any socket.
const ANY_SOCKET: [u8; 48] = [0; 48];
/// So many are ended at a time.
const ORPHANS_LIMIT: usize = 10_000;
/// A request leaves the socket's cookie open.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// In the answer: the state's place, and that of the inode number, which only a socket that somebody holds has.
const STATE: usize = 1;
const INODE: usize = 68;

/// Ends the socket of `connection` if nobody holds it: without a word to the peer it is gone. Whether there was one.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` if it was built without CONFIG_INET_DIAG_DESTROY.
pub fn abort_orphan(connection: &Connection) -> io::Result<bool> {
    match is_orphan(connection) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
        Ok(true) => {}
        other => return other,
    }
    let socket = Socket::open(SockProtocol::NetlinkSockDiag)?;
    socket.send(&request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, connection))?;
    match socket.acknowledged() {
        // It has ended by itself meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Ends all such sockets whose own address is `address`, and gives their number. A connection that somebody holds, or that waits
/// to be accepted, is left alone.
///
/// The peers are told of it by a reset, if they still can be: where they must not be, it is to be done behind a
/// [fence](super::fence).
///
/// # Errors
/// As [`abort_orphan`].
pub fn abort_orphans(address: IpAddr) -> io::Result<usize> {
    let mut ended = 0;
    // Those that are ended make room in the next listing.
    loop {
        let found = orphans(address)?;
        let mut now = 0;
        for connection in &found {
            now += usize::from(abort_orphan(connection)?);
        }
        ended += now;
        if now == 0 {
            return Ok(ended);
        }
    }
}

/// The connections of which nobody has a socket; those of `address`, some of them if they are many.
fn orphans(address: IpAddr) -> io::Result<Vec<Connection>> {
    let socket = Socket::open(SockProtocol::NetlinkSockDiag)?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut message = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP);
        message.bytes.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
        message.bytes.extend(ENDING.to_ne_bytes());
        message.bytes.extend(ANY_SOCKET);
        socket.send(&message.finish())?;
        'listing: loop {
            let packet = socket.receive()?;
            for (kind, body) in messages(&packet) {
                match kind {
                    NLMSG_DONE => break 'listing,
                    NLMSG_ERROR => error_of(body)?,
                    SOCK_DIAG_BY_FAMILY if found.len() < ORPHANS_LIMIT => {
                        let has_nobody = body.get(INODE..INODE + 4) == Some(&[0; 4]);
                        let addresses = addresses(body).filter(|(local, _)| local.ip().to_canonical() == address);
                        found.extend(
                            addresses.filter(|_| has_nobody).map(|(local, remote)| Connection { local, remote }),
                        );
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

fn is_orphan(connection: &Connection) -> io::Result<bool> {
    const LISTEN: u8 = 10;
    let socket = Socket::open(SockProtocol::NetlinkSockDiag)?;
    socket.send(&request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, connection))?;
    let packet = socket.receive()?;
    let Some((kind, body)) = messages(&packet).next() else { return Ok(false) };
    if kind == NLMSG_ERROR {
        return error_of(body).map(|()| false);
    }
    let inode = body.get(INODE..INODE + 4);
    // The lookup falls back to whoever listens on the address.
    Ok(inode == Some(&[0; 4]) && body.get(STATE).is_some_and(|state| *state != LISTEN))
}

/// `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, connection: &Connection) -> Vec<u8> {
    let Connection { local, remote } = connection;
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut message = Message::new(kind, flags);
    let bytes = &mut message.bytes;
    bytes.extend([family.to_ne_bytes()[0], libc::IPPROTO_TCP.to_ne_bytes()[0], 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(address(local));
    bytes.extend(address(remote));
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(NO_COOKIE);
    message.finish()
}

fn address(of: &SocketAddr) -> [u8; 16] {
    match of.ip() {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_that_the_kernel_expects() {
        let connection = Connection { local: "127.0.0.1:1".parse().unwrap(), remote: "127.0.0.1:2".parse().unwrap() };
        assert_eq!(request(SOCK_DESTROY, NLM_F_REQUEST, &connection).len(), 16 + 56);
        let v6 = Connection { local: "[::1]:1".parse().unwrap(), remote: "[::1]:2".parse().unwrap() };
        assert_eq!(request(SOCK_DESTROY, NLM_F_REQUEST, &v6).len(), 16 + 56);
    }

    #[test]
    fn a_socket_that_somebody_holds_is_left_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let connection = Connection { local: server.local_addr().unwrap(), remote: server.peer_addr().unwrap() };
        assert!(!abort_orphan(&connection).unwrap());
        assert!(client.take_error().unwrap().is_none());
    }
}
