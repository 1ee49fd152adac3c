//! Requests: one options struct for each, and how it becomes CRIU's `criu_opts`.
//!
//! `Default` is CRIU's own default: a field that is absent, empty or `None` sends nothing. Events are always asked for
//! (`notify_scripts`), since without them a client that vanishes does not stop a dump.
//!
//! Options that only switch something on are the values of [`DumpSwitch`] and [`RestoreSwitch`], named as the criu program
//! names them; what has more than two states is an enum of its own. What became of every field of `criu_opts` is the table
//! [`FIELDS`].

mod cgroups;
mod cpu;
mod dump;
mod fields;
mod images;
mod network;
mod page_server;
mod restore;
mod switch;
mod version;

pub use cgroups::{CgroupMode, CgroupOptions, CgroupRoot};
pub use cpu::{CpuCapabilities, CpuInfoOptions};
pub use dump::{Afterwards, CheckOptions, DumpOptions, EmptyNamespace, PreDumpMode, PreDumpOptions};
pub use fields::{Account, FIELDS, Field};
pub use images::{ImageDirectory, Log};
pub use network::{NetworkLock, Tcp};
pub use page_server::{Listen, PageServerOptions, PagesTo, Tls, VerifyName};
pub use restore::{InheritedFd, JoinNamespace, Parent, RestoreOptions, RestoreState};
pub use switch::{DumpSwitch, RestoreSwitch};
pub use version::{Features, Version};

pub(crate) use dump::PreDumpKind;
pub(crate) use fields::gate;
