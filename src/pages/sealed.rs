//! A link through TLS.

use std::io::{self, Read as _, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_setfl};
use rustls::Connection;

use super::Link;
use super::link::{hasten, unblock};
use crate::error::{Error, Result};

/// How much may be sealed ahead of the socket, in bytes.
const AHEAD: usize = 512 << 10;

/// How much is read from the socket at once, in bytes: rustls alone would take 4 KiB.
const AT_ONCE: usize = 256 << 10;

/// A link through TLS, whose handshake is over.
#[derive(Debug)]
pub struct Sealed {
    connection: Connection,
    socket: OwnedFd,
    /// The flags that the socket had.
    flags: OFlags,
    /// What was read and is still sealed.
    raw: Box<[u8]>,
    left: Range<usize>,
}

impl Sealed {
    /// The two halves of a TLS stream: who keeps the keys, and the socket.
    ///
    /// # Errors
    /// [`Error::System`] when the handshake is not over, or the socket cannot be made not to block.
    pub fn new(connection: impl Into<Connection>, socket: impl Into<OwnedFd>) -> Result<Self> {
        let (mut connection, socket) = (connection.into(), socket.into());
        if connection.is_handshaking() {
            let source = io::Error::from(io::ErrorKind::NotConnected);
            return Err(Error::system("transfer memory through TLS before its handshake is over", source));
        }
        connection.set_buffer_limit(Some(AHEAD));
        hasten(&socket);
        let flags = unblock(&socket)?;
        Ok(Self { connection, socket, flags, raw: vec![0; AT_ONCE].into(), left: 0..0 })
    }

    /// The halves, the socket blocking if it was, and what was read from it and is still sealed.
    pub fn into_parts(self) -> (Connection, OwnedFd, Vec<u8>) {
        // They were set before.
        let _ = fcntl_setfl(&self.socket, self.flags);
        (self.connection, self.socket, self.raw[self.left].to_vec())
    }
}

/// The socket as rustls writes to it.
struct Raw<'s>(&'s OwnedFd);

impl Write for Raw<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        rustix::io::write(self.0, from).map_err(Into::into)
    }

    fn write_vectored(&mut self, from: &[io::IoSlice<'_>]) -> io::Result<usize> {
        rustix::io::writev(self.0, from).map_err(Into::into)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for Sealed {
    fn input(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn output(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.left.is_empty() {
                let count = rustix::io::read(&self.socket, &mut *self.raw)?;
                self.left = 0..count;
            }
            // Nothing read is the end, which is told to rustls by nothing given.
            self.left.start += self.connection.read_tls(&mut &self.raw[self.left.clone()])?;
            if let Err(error) = self.connection.process_new_packets() {
                // The other end is told why, as far as that goes at once.
                let _ = self.connection.write_tls(&mut Raw(&self.socket));
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        loop {
            let count = self.connection.writer().write(from)?;
            match self.flush() {
                // What was taken is taken.
                Err(error) if count > 0 && error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
                Ok(()) if count > 0 || from.is_empty() => return Ok(count),
                flushed => flushed?,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Raw(&self.socket))?;
        }
        Ok(())
    }

    fn is_plain(&self) -> bool {
        false
    }
}
