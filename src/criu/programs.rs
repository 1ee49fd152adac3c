//! What CRIU need not start.

use std::path::Path;

use rustix::fs::statfs;

use crate::request::{NetworkLock, Tcp};
use crate::swrk::Programs;

/// Where CRIU keeps what it found out about the kernel.
const CACHE: &str = "/run/criu.kdat";
/// `TMPFS_MAGIC` of linux/magic.h: elsewhere CRIU does not keep it, as it would outlive the kernel.
const TMPFS: u64 = 0x0102_1994;

/// Whether CRIU looks at the kernel once per boot only, and not in each dump and restore.
fn keeps_features() -> bool {
    let is_tmpfs = || statfs("/run").is_ok_and(|run| u64::try_from(run.f_type) == Ok(TMPFS));
    Path::new(CACHE).exists() || is_tmpfs()
}

/// The programs that CRIU should find for a tree with these options, which is in a network namespace of its own or not.
///
/// Only to lock connections by iptables, and to take along the rules of a network namespace, does CRIU need iptables; but
/// whether it may use it is part of what it finds out about the kernel. Where it keeps that for others it has to find
/// iptables, if it is there.
pub fn programs(tcp: Tcp, lock: Option<NetworkLock>, own_network: bool) -> Programs {
    let other_lock = matches!(lock, Some(NetworkLock::Nftables | NetworkLock::Skip));
    match tcp == Tcp::Refuse || other_lock {
        true if !own_network && !keeps_features() => Programs::NoIptables,
        _ => Programs::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iptables_is_found_where_it_is_needed() {
        for (tcp, lock, own_network) in [
            (Tcp::Established, None, false),
            (Tcp::Close, Some(NetworkLock::Iptables), false),
            (Tcp::Refuse, None, true),
            (Tcp::Established, Some(NetworkLock::Nftables), true),
        ] {
            assert_eq!(programs(tcp, lock, own_network), Programs::All, "{tcp:?} {lock:?} {own_network}");
        }
    }

    #[test]
    fn it_is_found_where_what_was_found_out_is_kept() {
        let expected = if keeps_features() { Programs::All } else { Programs::NoIptables };
        assert_eq!(programs(Tcp::Refuse, None, false), expected);
        assert_eq!(programs(Tcp::Established, Some(NetworkLock::Nftables), false), expected);
    }
}
