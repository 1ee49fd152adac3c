//! Checkpoint and restore of Linux process trees, talking to CRIU over its RPC (`criu swrk`).

pub mod error;
#[allow(unused_imports)]
mod proto;

pub use error::{Error, Result};
