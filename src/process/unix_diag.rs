//! What the kernel tells of one unix socket (sock_diag(7), NETLINK_SOCK_DIAG).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::socket::UnixSocket;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const HEADER_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 16;
/// UDIAG_SHOW_NAME, _PEER, _ICONS and _RQLEN.
const SHOW: u32 = 0x01 | 0x04 | 0x08 | 0x10;

/// A connection to the socket diagnostics of one network namespace: the one the calling thread was in when it was made.
pub(super) struct UnixDiagnostics {
    netlink: OwnedFd,
    reply: Vec<u8>,
}

impl UnixDiagnostics {
    pub(super) fn open() -> io::Result<Self> {
        let netlink =
            socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        Ok(Self { netlink, reply: vec![0; 16 * 1024] })
    }

    /// The unix socket with this inode; `None` when the namespace has none.
    pub(super) fn lookup(&mut self, inode: u64) -> io::Result<Option<UnixSocket>> {
        // A unix socket's inode is 32 bits wide on this interface, as it is in CRIU.
        let Ok(inode) = u32::try_from(inode) else { return Ok(None) };
        send(self.netlink.as_raw_fd(), &request(inode), MsgFlags::empty())?;
        let length = recv(self.netlink.as_raw_fd(), &mut self.reply, MsgFlags::empty())?;
        Ok(parse(&self.reply[..length]))
    }
}

/// A `unix_diag_req` for one socket, whatever its cookie.
fn request(inode: u32) -> [u8; HEADER_BYTES + 24] {
    let mut bytes = [0u8; HEADER_BYTES + 24];
    bytes[0..4].copy_from_slice(&((HEADER_BYTES + 24) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[16] = libc::AF_UNIX as u8;
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[24..28].copy_from_slice(&inode.to_ne_bytes());
    bytes[28..32].copy_from_slice(&SHOW.to_ne_bytes());
    bytes[32..40].copy_from_slice(&[0xff; 8]);
    bytes
}

/// Reads one netlink message; `None` for an error message (no such socket) or text of another form.
fn parse(message: &[u8]) -> Option<UnixSocket> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let length = usize::try_from(word(message, 0)?).ok()?.min(message.len());
    let body = message.get(HEADER_BYTES..length)?;
    let mut found = UnixSocket { kind: *body.get(1)?, state: *body.get(2)?, ..UnixSocket::default() };
    let mut attributes = body.get(MESSAGE_BYTES..)?;
    while attributes.len() >= 4 {
        let size = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let name = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let Some(value) = attributes.get(4..size) else { break };
        match name {
            // The kernel counts the NUL behind a path that was bound with one.
            0 if value.first() == Some(&0) => found.name = Some(value.to_vec()),
            0 => found.name = Some(value.strip_suffix(&[0]).unwrap_or(value).to_vec()),
            2 => found.peer = word(value, 0)?.into(),
            3 => found.waiting = value.chunks_exact(4).filter_map(|inode| word(inode, 0)).map(u64::from).collect(),
            4 => {
                found.receive_queue = word(value, 0)?;
                found.send_queue = word(value, 4)?;
            }
            6 => found.shutdown = *value.first()?,
            _ => {}
        }
        attributes = attributes.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn inode(socket: &impl AsRawFd) -> u64 {
        nix::sys::stat::stat(format!("/proc/self/fd/{}", socket.as_raw_fd()).as_str()).expect("a stat").st_ino
    }

    #[test]
    fn the_ends_of_a_pair_name_each_other() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let mut diagnostics = UnixDiagnostics::open().expect("the diagnostics");
        let found = diagnostics.lookup(inode(&one)).expect("an answer").expect("the socket");
        assert_eq!(found.peer, inode(&other));
        assert_eq!((i32::from(found.kind), found.state, found.name), (libc::SOCK_STREAM, 1, None));
    }

    #[test]
    fn a_listening_socket_shows_its_path_and_who_waits() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a listener");
        let client = UnixStream::connect(&path).expect("a connection");
        let mut diagnostics = UnixDiagnostics::open().expect("the diagnostics");
        let found = diagnostics.lookup(inode(&listener)).expect("an answer").expect("the socket");
        assert_eq!(found.path(), Some(path));
        assert_eq!((found.state, found.waiting), (10, vec![inode(&client)]));
    }

    #[test]
    fn what_is_not_a_unix_socket_is_not_found() {
        let mut diagnostics = UnixDiagnostics::open().expect("the diagnostics");
        assert_eq!(diagnostics.lookup(1).expect("an answer"), None);
        // The connection still serves after an answer that was an error.
        let socket = UnixDatagram::unbound().expect("a socket");
        assert!(diagnostics.lookup(inode(&socket)).expect("an answer").is_some());
    }

    proptest! {
        #[test]
        fn no_message_makes_the_parser_panic(mut message in proptest::collection::vec(any::<u8>(), 0..100), ours in any::<bool>()) {
            if ours && message.len() >= 6 {
                message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            }
            let _ = parse(&message);
        }
    }
}
