//! One `criu swrk` process and the socket to it. Knows nothing of requests or options.
//!
//! CRIU reads one protobuf message from each packet of a `SOCK_SEQPACKET` socket pair and answers the same way. A request that
//! notifies (every dump and restore of this crate does) is answered by events first, strictly alternating with our answers.

mod channel;
mod launch;
mod neighbour;
pub(crate) mod readiness;
mod reaper;
mod socket;
mod watch;
mod worker;

pub(crate) use channel::Channel;
pub(crate) use launch::PATH;
pub use launch::{Group, Launch, Programs, Stdin};
pub use neighbour::Neighbour;
pub use reaper::{Exit, Reaping};
pub(crate) use socket::Packet;
pub use watch::{Hang, Watch};
