//! A process tree as /proc and the kernel's socket diagnostics show it: tasks, threads, descriptors, mappings, mounts, sockets.
//!
//! Nothing is stopped and nothing is changed; a socket is looked at through a duplicate of its descriptor
//! (`pidfd_getfd(2)`), which is closed at once. A task may change or die while it is being read: what is gone is left out,
//! and only a root that is gone is an error.
//!
//! The hot files (stat, status, maps, fdinfo) are parsed here rather than by the procfs crate, which allocates for every
//! field of every line: a tree of 20 small processes has to be read in a few milliseconds.

mod aftermath;
mod descriptor;
mod foreign;
mod holder;
mod inherited;
mod lines;
mod mapping;
mod mount;
mod namespace;
mod repair;
mod socket;
mod stat;
mod status;
mod task;
mod tree;
mod unix_diag;

pub use aftermath::{Aftermath, Expected, PARASITE, has_parasite};
pub use descriptor::{Descriptor, EpollTarget, Extra, FileStatus, Kind, Lock, LockKind, Watch};
pub use holder::{Holder, Holders, Wanted};
pub use inherited::{Inherited, IoPriority, own_inherited};
pub use mapping::{Mapping, MappingKind, Memory, Segment};
pub use mount::Mount;
pub use namespace::Namespaces;
pub use repair::{Connections, Repaired, silence};
pub use socket::{Family, Socket, TcpState, Transport, UnixKind, UnixSocket};
pub use stat::Stat;
pub use status::{Credentials, Status};
pub use task::{Place, Task, Thread};
pub use tree::Tree;
