//! The client's end of the socket pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send, sendmsg, setsockopt,
    socketpair, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::readiness::watch;
use crate::error::{Error, Result};

/// The largest packet taken from CRIU. Its replies hold a message of at most 1 KiB; whatever is larger is not CRIU's.
const PACKET_LIMIT: usize = 1 << 20;

const ATTEMPT: &str = "make a socket pair for CRIU";

/// One message from CRIU, with the descriptor that came along (the `orphan-pts-master` event brings one).
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Makes the pair: our end, and the one for CRIU. CRIU opens the descriptors named in a request as files of the process
    /// that made the pair, which is this one.
    pub(super) fn pair() -> Result<(Self, OwnedFd)> {
        let pair = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(|errno| Error::system(ATTEMPT, errno))?;
        Self::of(pair)
    }

    /// The same with a pair that another process has made, to which CRIU turns for the descriptors.
    pub(super) fn of((ours, theirs): (OwnedFd, OwnedFd)) -> Result<(Self, OwnedFd)> {
        // CRIU reads and writes its end with blocking calls.
        clear_nonblock(&theirs).map_err(|errno| Error::system(ATTEMPT, errno))?;
        let ours = watch(ours, Interest::READABLE).map_err(|source| Error::system(ATTEMPT, source))?;
        Ok((Self(ours), theirs))
    }

    /// Our end.
    pub(super) fn line(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }

    /// Sends one packet. Cancel-safe: a packet is sent whole or not at all.
    pub(super) async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self.try_send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        let full = watch(self.0.get_ref().try_clone()?, Interest::WRITABLE)?;
        loop {
            let mut ready = full.writable().await?;
            match ready.try_io(|fd| send_now(fd.as_raw_fd(), bytes)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }

    /// Sends one packet if that needs no waiting: for a refusal from a destructor.
    pub(super) fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        send_now(self.0.as_raw_fd(), bytes)
    }

    /// Receives one packet; `None` at the end of file. Cancel-safe: a packet is taken in one call or stays in the socket.
    pub(super) async fn recv(&self) -> io::Result<Option<Packet>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| receive_now(fd.as_raw_fd())) {
                Ok(packet) => return packet,
                Err(_would_block) => {}
            }
        }
    }
}

fn clear_nonblock(fd: &OwnedFd) -> nix::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).map(drop)
}

fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    let attempt = || send(fd, bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    match attempt() {
        // The packet is larger than the socket's buffer, 208 KiB by default: a request with thousands of externals.
        Err(Errno::EMSGSIZE) => {
            let fd = borrow(fd);
            let room = bytes.len().saturating_mul(2);
            setsockopt(&fd, sockopt::SndBufForce, &room).or_else(|_| setsockopt(&fd, sockopt::SndBuf, &room))?;
            sendmsg::<()>(
                fd.as_raw_fd(),
                &[IoSlice::new(bytes)],
                &[],
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                None,
            )?;
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}

fn borrow<'fd>(fd: RawFd) -> std::os::fd::BorrowedFd<'fd> {
    // SAFETY: called only with the descriptor of a live `Socket`, for the duration of one call on it.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

fn receive_now(fd: RawFd) -> io::Result<Option<Packet>> {
    let size = recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT)?;
    if size == 0 {
        return Ok(None);
    }
    if size > PACKET_LIMIT {
        let text = format!("a packet of {size} bytes, more than the {PACKET_LIMIT} that any reply of CRIU has");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; size];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut descriptor = None;
    let received = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), flags)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                for raw in fds {
                    // SAFETY: the kernel has just installed this descriptor for us; nobody else knows its number.
                    descriptor = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        message.bytes
    };
    bytes.truncate(received);
    Ok(Some(Packet { bytes, descriptor }))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_packet_waits_for_room() {
        let (ours, theirs) = Socket::pair().unwrap();
        let packet = [7; 4096];
        let mut sent = 0;
        while ours.try_send(&packet).is_ok() {
            sent += 1;
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut theirs = File::from(theirs);
            (0..=sent).map(|_| theirs.read(&mut [0; 8192]).unwrap()).sum::<usize>()
        });
        ours.send(&packet).await.unwrap();
        assert_eq!(read.await.unwrap(), (sent + 1) * packet.len());
    }
}
