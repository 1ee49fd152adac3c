//! Checkpoint and restore of Linux process trees, talking to CRIU over its RPC (`criu swrk`).
//!
//! The whole of each is [`dump::dump`] and [`restore::begin`], with every check before and every clean-up behind. Below them
//! [`operation::Session`] has each request of the RPC with typed options, and events that the caller's own loop answers;
//! [`preflight::examine`] looks at a tree, [`images::Images`] into a checkpoint, [`log::explain`] into a log.
//!
//! ```no_run
//! use crr::dump::{Request, dump};
//! use crr::operation::Interrupt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let report = dump(Request::new(1234, "img"), Interrupt::never(), |_| {}).await?;
//! println!("{} tasks stood still for {} µs", report.tasks.len(), report.frozen_us);
//! # Ok(()) }
//! ```
//!
//! Everything async needs a tokio runtime with I/O and time enabled; one thread is enough.

pub mod arena;
pub mod checkpoint;
pub mod container;
pub mod copy;
pub mod criu;
pub mod dump;
pub mod error;
pub mod escape;
pub mod event;
#[doc(hidden)]
pub mod fuzz;
pub mod hook;
pub mod host;
pub mod images;
pub mod log;
pub mod migrate;
pub mod oci;
pub mod operation;
pub mod pages;
pub mod peer;
pub mod preflight;
pub mod process;
mod proto;
pub mod readiness;
pub mod request;
pub mod restore;
pub mod swrk;
pub mod wire;

pub use error::{Error, ImageFault, Result};
