//! Connections, and how they are kept silent.

use serde::{Deserialize, Serialize};

use crate::proto::rpc::{Criu_network_lock_method, Criu_opts};

/// What is done about established TCP connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tcp {
    /// A tree that has one is refused.
    #[default]
    Refuse,
    /// They are kept, and are there after the restore: `--tcp-established`.
    Established,
    /// They are closed in the restored tree: `--tcp-close`.
    Close,
}

impl Tcp {
    pub(super) fn write(self, opts: &mut Criu_opts) {
        match self {
            Self::Refuse => {}
            Self::Established => opts.set_tcp_established(true),
            Self::Close => opts.set_tcp_close(true),
        }
    }
}

/// How packets to and from the tree's connections are dropped while its sockets do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkLock {
    /// Rules made by the iptables-restore program: CRIU's default, and the slowest.
    Iptables,
    /// A table `inet CRIU-…` made through libnftables, within CRIU.
    Nftables,
    /// Nothing: the caller has seen to it, or there is no connection to keep.
    Skip,
}

impl NetworkLock {
    pub(super) fn write(self, opts: &mut Criu_opts) {
        opts.set_network_lock(match self {
            Self::Iptables => Criu_network_lock_method::IPTABLES,
            Self::Nftables => Criu_network_lock_method::NFTABLES,
            Self::Skip => Criu_network_lock_method::SKIP,
        });
    }
}
