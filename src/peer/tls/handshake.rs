//! From a byte stream to an authenticated one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::super::{Enrolled, HostKey, Peer, Problem};
use super::verify::{Allowed, Verifier};
use super::{PROTOCOL, Session};
use crate::error::{Error, Result};

/// How long a handshake takes at most, where the caller has no reason for another limit: two round trips and four
/// operations with a key, of less than a millisecond each.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// What the side that was called says when it lets the caller in.
const LET_IN: u8 = 1;
/// The server's name where no migration is named.
pub(super) const NOBODY: &str = "crr";

/// The side that is called.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The key of this host.
    pub key: &'a HostKey,
    /// Who is let in.
    pub enrolled: &'a Enrolled,
}

/// The side that calls.
#[derive(Clone, Copy, Debug)]
pub struct Dialled<'a> {
    /// The key of this host.
    pub key: &'a HostKey,
    /// Who must answer.
    pub peer: &'a Peer,
    /// The migration that the connection is for, where it is not a new one: letters, digits and `-`, up to 63. It is sent in
    /// the clear.
    pub migration: Option<&'a str>,
}

/// Lets a caller in, or not: its key must be enrolled.
///
/// # Errors
/// [`Problem::Unknown`] for a key that is not enrolled, [`Problem::Late`] when it takes longer than `limit`,
/// [`Problem::Handshake`] for what is no such handshake.
///
/// # Cancellation
/// Dropping the future drops the stream.
pub async fn accept<S>(stream: S, caller: Caller<'_>, limit: Duration) -> Result<Session<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(Allowed::Enrolled(caller.enrolled.clone()), provider.clone()));
    let config = server(caller.key, provider, verifier.clone())?;
    let handshake = async {
        let mut stream: TlsStream<S> = TlsAcceptor::from(Arc::new(config)).accept(stream).await?.into();
        spoken(&stream)?;
        stream.write_u8(LET_IN).await?;
        stream.flush().await?;
        Ok(stream)
    };
    let stream = within(limit, handshake).await?.map_err(|error| failed(&verifier, &error))?;
    session(stream, &verifier)
}

/// Calls a peer: the side that answers must have its key.
///
/// # Errors
/// [`Problem::Wrong`] when another key answers, [`Problem::NotLetIn`] when the peer does not know ours, [`Problem::Late`],
/// [`Problem::Handshake`].
///
/// # Cancellation
/// Dropping the future drops the stream.
pub async fn connect<S>(stream: S, dialled: Dialled<'_>, limit: Duration) -> Result<Session<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Dialled { key, peer, migration } = dialled;
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(Allowed::Only(peer.clone()), provider.clone()));
    let config = client(key, provider, verifier.clone())?;
    let name = migration.unwrap_or(NOBODY).to_owned();
    let name = ServerName::try_from(name).map_err(|_| Error::Bug { what: "a migration's id is no name in TLS" })?;
    let handshake = async {
        let mut stream: TlsStream<S> = TlsConnector::from(Arc::new(config)).connect(name, stream).await?.into();
        spoken(&stream)?;
        match stream.read_u8().await? {
            LET_IN => Ok(stream),
            other => Err(io::Error::other(format!("it greets with {other:#04x}"))),
        }
    };
    let stream = within(limit, handshake).await?.map_err(|error| match alert(&error) {
        Some(AlertDescription::AccessDenied) => {
            Problem::NotLetIn { name: peer.name.clone(), own: key.fingerprint() }.into()
        }
        _ => failed(&verifier, &error),
    })?;
    session(stream, &verifier)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> Result<io::Result<T>> {
    tokio::time::timeout(limit, work).await.map_err(|_| Problem::Late { limit }.into())
}

/// That both sides have named the same protocol: one that names none is let through by TLS.
fn spoken<S>(stream: &TlsStream<S>) -> io::Result<()> {
    match stream.get_ref().1.alpn_protocol() == Some(PROTOCOL) {
        true => Ok(()),
        false => Err(io::Error::other("it speaks no protocol of crr's")),
    }
}

fn session<S>(stream: TlsStream<S>, verifier: &Verifier) -> Result<Session<S>> {
    let peer = verifier.outcome().ok_or(Error::Bug { what: "a handshake ended without a certificate" })??;
    Session::new(stream, peer)
}

pub(super) fn server(key: &HostKey, provider: Arc<CryptoProvider>, verifier: Arc<Verifier>) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            builder.with_client_cert_verifier(verifier).with_single_cert(vec![key.certificate()], key.private())
        })
        .map_err(|error| own_fault(key, &error))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A ticket would let a peer in that was removed since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

pub(super) fn client(key: &HostKey, provider: Arc<CryptoProvider>, verifier: Arc<Verifier>) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            builder.with_client_auth_cert(vec![key.certificate()], key.private())
        })
        .map_err(|error| own_fault(key, &error))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn own_fault(key: &HostKey, error: &rustls::Error) -> Error {
    Problem::Damaged { path: key.path().into(), why: format!("TLS cannot use it ({error})") }.into()
}

/// What the verifier says, else what the stream says.
fn failed(verifier: &Verifier, error: &io::Error) -> Error {
    match verifier.outcome() {
        Some(Err(error)) => error,
        _ => Problem::Handshake { why: error.to_string() }.into(),
    }
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
