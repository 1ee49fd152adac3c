//! Checkpoint and restore of Linux process trees, talking to CRIU over its RPC (`criu swrk`).

pub mod checkpoint;
pub mod criu;
pub mod dump;
pub mod error;
pub mod escape;
pub mod event;
#[doc(hidden)]
pub mod fuzz;
pub mod host;
pub mod images;
pub mod log;
pub mod operation;
pub mod preflight;
pub mod process;
#[allow(unused_imports)]
mod proto;
pub mod readiness;
pub mod request;
pub mod restore;
pub mod swrk;

pub use error::{Error, ImageFault, Result};
