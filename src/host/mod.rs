//! The machine that crr runs on: what of it decides whether processes can be dumped and restored here.
//!
//! Nothing here needs CRIU, and nothing changes a setting of the machine: what could be set differently is reported with the
//! command that sets it. For as long as a dump or a restore takes, crr asks the kernel for [shorter waits](stand_back).

pub mod address;
mod capability;
pub mod cgroup;
mod directory_watch;
mod environment;
pub mod fence;
mod kernel;
mod latency;
mod links;
pub mod netlink;
pub mod netlock;
mod orphan;
mod pids;
mod program;
mod routes;
mod runtime;
mod sysctl;
mod tcp;

pub use capability::{Capabilities, Capability, WANTED};
pub use directory_watch::{Changes, DirectoryWatch};
pub use environment::{Environment, UserNamespace, Wsl};
pub use kernel::{CheckpointRestore, KernelRelease};
pub use latency::stand_back;
pub(crate) use latency::{Awake, Hurry};
pub use links::{Link, in_network, links};
pub use orphan::{abort_orphan, abort_orphans};
pub use pids::{Taken, TakenBy, await_end, await_free, await_free_inside, taken, taken_inside};
pub(crate) use program::is_executable;
pub use program::{Program, program};
pub use routes::interfaces_of_dead_routes;
pub use runtime::RuntimeDirectory;
pub use sysctl::{Advice, Sysctl, sysctls};
pub use tcp::TcpSockets;
