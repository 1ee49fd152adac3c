//! CRIU's network locks: what drops the packets of connections whose sockets are in a checkpoint.
//!
//! A dump that kills its tree leaves its lock on purpose: an unlocked kernel would answer the peer that there is no such
//! connection. The restore removes it. If nobody restores here, those packets are dropped for ever.
//!
//! What CRIU 4.2 leaves where the tree shares CRIU's network namespace, as seen:
//! - nftables: a table `inet CRIU-` and as much of the dump's run ID as fits (21 characters), with the connections as elements
//!   of the sets `conns4` and `conns6`;
//! - iptables: two rules a socket, in INPUT and OUTPUT of the filter table:
//!   `-s A/32 -d B/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport a --dport b -j DROP`.
//!
//! In a network namespace of the tree's own everything is locked: a table of the same name whose chains drop by policy, or a
//! chain `CRIU` that INPUT and OUTPUT jump to. These end with the namespace.
//!
//! All functions act on the network namespace of the calling thread.

mod iptables;
mod ledger;

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use iptables::{Family, Rule};
pub use ledger::{Entry, Ledger};

use super::netlink;
use crate::error::{Error, Result};

/// What CRIU's tables are called, before the run ID.
const TABLE: &str = "CRIU-";

/// Shorter beginnings of a run ID than this could be anybody's.
const ID_LENGTH: usize = 8;

/// An established TCP connection, as one of its ends sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Connection {
    /// The address and port of the end that is in the checkpoint.
    pub local: SocketAddr,
    /// The address and port of its peer.
    pub remote: SocketAddr,
}

/// A lock that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Lock {
    /// A table of nf_tables, of the family `inet`.
    Table {
        /// Its name.
        name: String,
    },
    /// A rule of iptables.
    Rule(Rule),
    /// The chain `CRIU` of iptables, which drops everything.
    Chain {
        /// IPv4 or IPv6.
        family: Family,
    },
}

/// By what a checkpoint's locks are known.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The run ID of the dump, from the inventory image.
    pub run_id: Option<&'a str>,
    /// The established TCP connections that it holds.
    pub connections: &'a [Connection],
}

/// The locks in force, and what could not be looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Locks {
    /// The locks.
    pub found: Vec<Lock>,
    /// What could not be looked at, and why.
    pub unread: Vec<String>,
}

impl Locks {
    /// Looks for CRIU's locks. Needs `CAP_NET_ADMIN`. Changes nothing, and loads no module.
    pub fn look() -> Self {
        let mut locks = Self::default();
        match netlink::inet_tables() {
            Ok(tables) => {
                let own = tables.into_iter().filter(|name| name.starts_with(TABLE));
                locks.found.extend(own.map(|name| Lock::Table { name }));
            }
            // A kernel without nf_tables has no table of CRIU's.
            Err(error) if lacks_nf_tables(&error) => {}
            Err(error) => locks.unread.push(format!("nf_tables: {error}")),
        }
        for family in [Family::V4, Family::V6] {
            match iptables::list(family) {
                Ok(found) => locks.found.extend(found),
                Err(why) => locks.unread.push(why),
            }
        }
        locks
    }

    /// Those that belong to `owner`.
    pub fn of(&self, owner: Owner<'_>) -> impl Iterator<Item = &Lock> {
        self.found.iter().filter(move |lock| lock.belongs_to(owner))
    }
}

impl Locks {
    /// Removes those that belong to `owner`; returns what was removed, and each that could not be with the reason.
    pub fn release(&self, owner: Owner<'_>) -> Released {
        let mut released = Released::default();
        for lock in self.of(owner) {
            match lock.remove() {
                Ok(()) => released.removed.push(lock.clone()),
                Err(error) => released.failures.push(error),
            }
        }
        released
    }
}

/// What became of the locks of a checkpoint.
#[derive(Debug, Default)]
pub struct Released {
    /// Those that are gone.
    pub removed: Vec<Lock>,
    /// Why others are not.
    pub failures: Vec<Error>,
}

impl Lock {
    /// Whether a dump that is known by `owner` made it.
    pub fn belongs_to(&self, owner: Owner<'_>) -> bool {
        match self {
            Self::Table { name } => owner.run_id.is_some_and(|id| is_table_of(name, id)),
            Self::Rule(rule) => owner.connections.iter().any(|connection| rule.drops(connection)),
            // It names no connection: whoever's it is, it is not known by these.
            Self::Chain { .. } => false,
        }
    }

    /// The commands that remove it, for a person.
    pub fn removal_commands(&self) -> Vec<String> {
        match self {
            Self::Table { name } => vec![format!("nft delete table inet {}", crate::escape::escape(name))],
            Self::Rule(rule) => vec![rule.removal_command()],
            Self::Chain { family } => iptables::chain_removal()
                .iter()
                .map(|arguments| format!("{} {}", family.iptables(), arguments.join(" ")))
                .collect(),
        }
    }

    /// Removes it. One that is gone already is no error.
    ///
    /// # Errors
    /// [`Error::System`] with what the kernel or iptables says.
    pub fn remove(&self) -> Result<()> {
        let removed = match self {
            Self::Table { name } => netlink::remove_inet_table(name),
            Self::Rule(rule) => rule.remove(),
            Self::Chain { family } => iptables::remove_chain(*family),
        };
        match removed {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => {
                Err(Error::System { attempt: format!("remove CRIU's network lock, {self}"), source })
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table { name } => write!(f, "the nftables table `inet {}`", crate::escape::escape(name)),
            Self::Rule(rule) => rule.fmt(f),
            Self::Chain { family } => write!(f, "the chain CRIU of {}", family.iptables()),
        }
    }
}

/// Listens to who makes nftables locks: the run ID, by which they are known otherwise, is in the images only when a dump is
/// almost done.
#[derive(Debug)]
pub struct LockWatch(netlink::TableWatch);

impl LockWatch {
    /// Begins to listen; `None` where that is impossible.
    pub fn begin() -> Option<Self> {
        netlink::TableWatch::begin().ok().map(Self)
    }

    /// The locks that CRIU has made since, as process `pid`; it may have removed them again.
    pub fn made_by(&self, pid: i32) -> Vec<Lock> {
        let names = self.0.made_by(pid).into_iter().filter(|name| name.starts_with(TABLE));
        names.map(|name| Lock::Table { name }).collect()
    }
}

/// Whether the kernel's nf_tables can be used: what CRIU's lock of the kind `nftables` needs.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_NET_ADMIN`, another without nf_tables.
pub fn nf_tables_works() -> io::Result<()> {
    netlink::inet_tables().map(drop)
}

fn lacks_nf_tables(error: &io::Error) -> bool {
    let absent = [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::EINVAL];
    error.raw_os_error().is_some_and(|errno| absent.contains(&errno))
}

/// CRIU cuts the name where its buffer ends, which a later version may make longer.
fn is_table_of(name: &str, run_id: &str) -> bool {
    name.strip_prefix(TABLE).is_some_and(|id| id.len() >= ID_LENGTH && run_id.starts_with(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_belongs_to_the_run_id_it_was_cut_from() {
        let id = "8f891d4e-0afd-47be-8439-0123456789ab";
        assert!(is_table_of("CRIU-8f891d4e-0afd-47be-84", id));
        assert!(is_table_of(&format!("CRIU-{id}"), id));
        assert!(!is_table_of("CRIU-8f891d4e-0afd-47be-85", id));
        assert!(!is_table_of("CRIU-", id), "an empty beginning is everybody's");
        assert!(!is_table_of("CRIU-8f", id));
        assert!(!is_table_of("filter", id));
    }

    #[test]
    fn a_chain_and_the_unknown_belong_to_nobody() {
        let owner = Owner { run_id: Some("8f891d4e-0afd"), connections: &[] };
        assert!(!Lock::Chain { family: Family::V4 }.belongs_to(owner));
        let nobody = Owner { run_id: None, connections: &[] };
        assert!(!Lock::Table { name: "CRIU-8f891d4e-0afd".into() }.belongs_to(nobody));
    }
}
