//! What two hosts say to each other: bytes only, no connections.
//!
//! | module | what it is |
//! |---|---|
//! | [`Id`] | the name of a migration |
//! | [`Call`] | the first bytes of a connection: whose it is; in the clear, and trusted by nobody |
//! | [`greeting`] | the first bytes of the conversation: that it is crr, and which versions it speaks |
//! | [`Decoder`], [`DataHeader`] | frames: messages, and data that the kernel may move past us |
//! | [`Envelope`], [`Message`] | what is said, and about which migration |
//! | [`Fault`] | what is wrong with what a peer says |
//!
//! A conversation, on one connection or on one for messages and others for data:
//!
//! 1. both: greeting, [`Message::Hello`].
//! 2. *pre-checkpoint*: the source looks at itself, then [`Message::Offer`].
//! 3. *pre-restore*: the target looks at everything and says all at once, [`Message::Ready`] with what it wants sent, or
//!    [`Message::Refused`].
//! 4. *checkpoint*: for each file and stream [`Message::Object`], data frames, [`Message::ObjectEnd`]; the target says
//!    [`Message::ObjectReceived`] when it holds a copy of all of it (a page that was spliced is a reference until then).
//! 5. *restore*: [`Message::Go`], [`Message::Prepared`], [`Message::Commit`], [`Message::Running`], [`Message::Forget`], or an end
//!    by [`Message::Abort`] and its like. From here on each side may repeat itself, also on a later connection: every message
//!    names its migration, and [`machine`](crate::migrate::machine) takes what it has heard before for what it is.
//!
//! Every message is limited ([`MESSAGE_LIMIT`], [`FIELDS_LIMIT`], [`LIST_LIMIT`], [`Text`]), and checked when it is made as when it
//! is read. Zero is no value of an enumeration or id. [`Message::Ping`] is answered at once by [`Message::Pong`]; how long
//! silence may last is the clock's matter, which is not here: [`PING_EVERY`] and [`SILENCE`] are what crr goes by.
//!
//! Numbers are left free in `proto/wire.proto` for containers and volumes, rounds of pre-copy and post-copy, and among the
//! phases for what comes before the checkpoint and behind the restore.

mod call;
mod fault;
mod fields;
mod frame;
mod greeting;
mod id;
mod message;
mod object;
mod offer;
mod reason;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::call::{CALL_LENGTH, Call, Purpose};
pub use self::fault::{Fault, Wrong};
pub use self::fields::Text;
pub use self::frame::{DATA_HEADER_LENGTH, DataHeader, Decoder, Item, MESSAGE_LIMIT, PAYLOAD_LIMIT, Payload};
pub use self::greeting::{GREETING_LENGTH, VERSIONS, greeting};
pub use self::id::Id;
pub use self::message::{Envelope, FIELDS_LIMIT, Hello, Level, LogLine, Message, Prepared, Progress};
pub use self::object::{Object, ObjectEnd, ObjectKind, Sum};
pub use self::offer::{
    Cgroup, Compression, Credentials, Criu, Finding, LIST_LIMIT, Missing, Move, Offer, PageHeader, Ready, Refused,
};
pub use self::reason::{Cause, Failure, Phase, Reason};

/// After so long without anything to say a side says [`Message::Ping`].
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// After so long without anything from the other side the link counts as lost.
pub const SILENCE: Duration = Duration::from_secs(10);
