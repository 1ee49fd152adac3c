//! For which migration a connection is, before anything is read from it.

use rustls::server::Acceptor;

/// A client's first message is not longer than this.
const LIMIT: usize = 16 << 10;

/// What the first bytes of a connection ask for. The name is a claim: who calls, and whether the migration is its own, is
/// known only after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first message is not complete yet.
    Unknown,
    /// A new migration.
    New,
    /// The one with this id.
    Migration(String),
    /// It is no TLS.
    Garbage,
}

/// Reads the beginning of a client's first message, as looked at with `MSG_PEEK`.
pub fn wanted(mut peeked: &[u8]) -> Wanted {
    let complete_by = peeked.len() >= LIMIT;
    let mut acceptor = Acceptor::default();
    while !peeked.is_empty() {
        if acceptor.read_tls(&mut peeked).is_err() {
            return Wanted::Garbage;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return match accepted.client_hello().server_name() {
                    Some(name) if name != super::handshake::NOBODY => Wanted::Migration(name.to_owned()),
                    _ => Wanted::New,
                };
            }
            Ok(None) => {}
            Err(_) => return Wanted::Garbage,
        }
    }
    if complete_by { Wanted::Garbage } else { Wanted::Unknown }
}
