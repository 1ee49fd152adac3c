//! TLS 1.3 between two hosts that know each other's keys.
//!
//! Both sides show a certificate, and nothing of it counts but the public key: its [`Fingerprint`](super::Fingerprint) must be
//! enrolled, and the handshake signed by it. No certificate authority, host name or date is looked at. There is no older
//! version, no resumption and no early data, so that each connection is judged anew. After the handshake the side that was
//! called says with one byte that it lets the caller in: the caller would not hear of a refusal before its first read.
//!
//! A migration may have further connections, for bulk data. Each is authenticated as the first, and says which it belongs to
//! ([`Session::binding`]), so that it is of the same session and not only of the same peer. Who dials names the migration in
//! the clear as the server's name: a listener can [pass](wanted) the connection to whoever holds that migration, before it
//! has read anything from it.

mod blocking;
mod gate;
mod handshake;
mod route;
mod session;
#[cfg(test)]
mod tests;
mod verify;

/// The protocol's name in the handshake (ALPN); its number changes when two versions could not talk to each other.
pub const PROTOCOL: &[u8] = b"crr/1";

pub use self::blocking::Blocking;
pub use self::gate::{Gate, Pass};
pub use self::handshake::{Caller, Dialled, HANDSHAKE_LIMIT, accept, connect};
pub use self::route::{Wanted, wanted};
pub use self::session::Session;
