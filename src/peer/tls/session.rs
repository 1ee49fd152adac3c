//! An authenticated stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::super::{Peer, Problem};
use super::Blocking;
use crate::error::{Error, Result};

/// A stream to a peer that has shown who it is. Reads and writes are those of the peer.
#[derive(Debug)]
pub struct Session<S> {
    stream: TlsStream<S>,
    peer: Peer,
    binding: [u8; 32],
}

impl<S> Session<S> {
    pub(super) fn new(stream: TlsStream<S>, peer: Peer) -> Result<Self> {
        let exported = match &stream {
            TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], BINDING, None),
            TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], BINDING, None),
        };
        let binding = exported.map_err(|error| Problem::Handshake { why: error.to_string() })?;
        Ok(Self { stream, peer, binding })
    }

    /// Who is at the other end. To be [asked about again](super::super::Enrolled::still) before anything is started.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// A secret that only the two ends of this connection have. A connection for bulk data shows the one of the migration's
    /// first connection as the first thing it sends; compare with [`is_bound`](Self::is_bound).
    pub fn binding(&self) -> [u8; 32] {
        self.binding
    }

    /// Whether `shown` is this connection's [`binding`](Self::binding); the time it takes does not tell where they differ.
    pub fn is_bound(&self, shown: &[u8; 32]) -> bool {
        self.binding.iter().zip(shown).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

const BINDING: &[u8] = b"EXPORTER-crr-bulk-data";

impl Session<tokio::net::TcpStream> {
    /// For a thread that does nothing else: the same connection with blocking reads and writes.
    ///
    /// # Errors
    /// [`Error::System`] when the socket cannot be made blocking.
    pub fn into_blocking(self) -> Result<Blocking> {
        let failed = |error| Error::system("make the connection blocking", error);
        let plain = |tcp: tokio::net::TcpStream| {
            let tcp = tcp.into_std()?;
            tcp.set_nonblocking(false)?;
            io::Result::Ok(tcp)
        };
        match self.stream {
            TlsStream::Client(stream) => {
                let (tcp, connection) = stream.into_inner();
                Ok(Blocking::client(connection, plain(tcp).map_err(failed)?, self.peer))
            }
            TlsStream::Server(stream) => {
                let (tcp, connection) = stream.into_inner();
                Ok(Blocking::server(connection, plain(tcp).map_err(failed)?, self.peer))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Session<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Session<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
