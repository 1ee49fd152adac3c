//! What two hosts say to each other: bytes only, no connections.
//!
//! | module | what it is |
//! |---|---|
//! | [`Id`] | the name of a migration |
//! | [`Call`] | the first bytes of a connection: whose it is |

mod call;
mod id;

pub use self::call::{CALL_LENGTH, Call, Purpose};
pub use self::id::Id;
