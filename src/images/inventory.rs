//! `inventory.img`: what kind of set this is.

use std::time::Duration;

use super::record::Record;
use super::task::Ids;
use crate::proto::images::inventory as proto;

/// What CRIU wrote last and reads first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// The format; see [`Inventory::SUPPORTED_VERSION`].
    pub version: u32,
    /// Whether this is a pre-dump: pages only, nothing that could be restored.
    pub pre_dump: bool,
    /// The namespaces of the dumping CRIU; a task with others had its own.
    pub root_ids: Option<Ids>,
    /// The cgroup set of the dumping CRIU.
    pub root_cgroup_set: Option<u32>,
    /// The security module of the dumping host.
    pub security_module: SecurityModule,
    /// The host's uptime at the dump; known only with memory tracking.
    pub uptime: Option<Duration>,
    /// Whether TCP connections were dropped by the dump.
    pub tcp_close: bool,
    /// How the network was locked, in CRIU's internal numbering.
    pub network_lock: Option<u32>,
    /// Names of the CRIU plugins that the restore needs.
    pub plugins: Vec<String>,
    /// The dump's name, part of that of the nftables table it left.
    pub run_id: Option<String>,
    /// Whether uprobes may be lost; written by CRIU >= 4.2.
    pub allow_uprobes: Option<bool>,
}

/// A Linux security module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecurityModule {
    /// No profile was in force.
    None,
    /// SELinux.
    Selinux,
    /// AppArmor.
    AppArmor,
    /// A number unknown to this version.
    Other(i32),
}

impl Inventory {
    /// The one format that is read.
    pub const SUPPORTED_VERSION: u32 = 2;
}

impl Record for Inventory {
    type Message = proto::Inventory_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self {
            version: message.img_version(),
            pre_dump: message.pre_dump_mode.is_some(),
            root_cgroup_set: message.root_cg_set,
            security_module: match message.lsmtype.map_or(0, |module| module.value()) {
                0 => SecurityModule::None,
                1 => SecurityModule::Selinux,
                2 => SecurityModule::AppArmor,
                other => SecurityModule::Other(other),
            },
            uptime: message.dump_uptime.map(Duration::from_micros),
            tcp_close: message.tcp_close(),
            network_lock: message.network_lock_method,
            plugins: message.plugins_entry.0.map(|all| all.plugins).into_iter().flatten().map(text).collect(),
            run_id: message.dump_criu_run_id.map(text),
            allow_uprobes: message.allow_uprobes,
            root_ids: message.root_ids.0.map(|ids| Ids::from_message(*ids)).transpose()?,
        })
    }
}
