//! Containers of runc and crun.

pub mod dump;
pub mod tmpfs;
