//! Checkpoint and restore of Linux process trees, talking to CRIU over its RPC (`criu swrk`).

pub mod error;
pub mod escape;
pub mod event;
pub mod log;
pub mod operation;
mod proto;
pub mod request;
pub mod swrk;

pub use error::{Error, Result};
