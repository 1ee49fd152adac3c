//! What a migration's commit rests on, on the real kernel and the real CRIU, between hosts of a bed: fences, addresses, sockets
//! in repair mode, and trees that are held.

mod address;
mod fence;
mod guard;
mod hand;
mod hold;
mod moves;

use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};

use crate::bed::Host;

pub(crate) use hand::as_helper;

/// The first half of a migration's ID.
const TAG: &str = "0123456789abcdef";

/// The address that moves.
const SERVICE: &str = "10.77.0.100";

const PORT: u16 = 7000;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = fence::trials();
    trials.extend(address::trials());
    trials.extend(hold::trials());
    trials.extend(moves::trials());
    trials.extend(guard::trials());
    trials
}

/// The network namespace of a host.
fn network(host: &Host) -> PathBuf {
    host.namespace("net")
}

/// Does something of the library's in the network namespace of a host.
fn inside<T: Send>(host: &Host, act: impl FnOnce() -> crr::Result<T> + Send) -> Result<T, Failed> {
    // The chain of causes says more than the first of them.
    let done = crr::host::in_network(&network(host), act)?;
    done.map_err(|error| hand::chain(&error).into())
}
