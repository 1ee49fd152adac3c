//! Containers of runc and crun.

pub mod tmpfs;
