//! The same for a thread that copies memory and does nothing else.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::{ClientConnection, ServerConnection, StreamOwned};

use super::super::Peer;

/// Bytes that are encrypted before they are written: 64 records.
const BUFFER: usize = 1 << 20;

/// A blocking, authenticated stream. An end that the peer did not announce is an error, not an end of file.
#[derive(Debug)]
pub struct Blocking {
    stream: Stream,
    peer: Peer,
}

#[derive(Debug)]
enum Stream {
    Client(StreamOwned<ClientConnection, TcpStream>),
    Server(StreamOwned<ServerConnection, TcpStream>),
}

impl Blocking {
    pub(super) fn client(mut connection: ClientConnection, tcp: TcpStream, peer: Peer) -> Self {
        connection.set_buffer_limit(Some(BUFFER));
        Self { stream: Stream::Client(StreamOwned::new(connection, tcp)), peer }
    }

    pub(super) fn server(mut connection: ServerConnection, tcp: TcpStream, peer: Peer) -> Self {
        connection.set_buffer_limit(Some(BUFFER));
        Self { stream: Stream::Server(StreamOwned::new(connection, tcp)), peer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The socket, for time limits and to shut it down from another thread (after a `try_clone`).
    pub fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Client(stream) => &stream.sock,
            Stream::Server(stream) => &stream.sock,
        }
    }

    /// The same as a link for memory, whose operations do not block.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) when the socket cannot be made not to block.
    pub fn into_link(self) -> crate::Result<crate::pages::Sealed> {
        match self.stream {
            Stream::Client(stream) => crate::pages::Sealed::new(stream.conn, stream.sock),
            Stream::Server(stream) => crate::pages::Sealed::new(stream.conn, stream.sock),
        }
    }

    /// Tells the peer that nothing more comes, and writes what is left.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Client(stream) => stream.conn.send_close_notify(),
            Stream::Server(stream) => stream.conn.send_close_notify(),
        }
        self.flush()
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Client(stream) => stream.read(buffer),
            Stream::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Client(stream) => stream.write(bytes),
            Stream::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Client(stream) => stream.flush(),
            Stream::Server(stream) => stream.flush(),
        }
    }
}
