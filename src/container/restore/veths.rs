//! The veth interfaces of a restored container: what their ends on the host are called, and in which bridge they are.

use std::path::Path;

use super::namespaces::Network;
use super::{Veth, Wanted};
use crate::checkpoint::{NetworkKind, RecordedContainer};

/// The caller's veths, and those recorded. A clone gets other names for the host's ends, and no bridge: the original has its
/// addresses there.
pub(super) fn veths(
    wanted: &Wanted,
    recorded: Option<&RecordedContainer>,
    network: Network,
    private: bool,
    notes: &mut Vec<String>,
) -> Vec<Veth> {
    let mut all = wanted.veths.clone();
    let Some(recorded) = recorded.filter(|container| container.network == NetworkKind::Dumped) else { return all };
    if network != Network::Dumped || wanted.joins.iter().any(|join| join.kind == "net") {
        return all;
    }
    for interface in recorded.interfaces.iter().filter(|interface| interface.kind == "veth") {
        let inside = interface.name.clone();
        if all.iter().any(|veth| veth.inside == inside) {
            continue;
        }
        let is_there = |name: &str| Path::new("/sys/class/net").join(name).exists();
        let digest = blake3::hash(format!("{} {inside}", wanted.id).as_bytes()).to_hex();
        let own = format!("crr{}", &digest[..8]);
        let outside = interface.peer.clone().filter(|peer| !private && !is_there(peer)).unwrap_or(own);
        let bridge = interface.bridge.clone().filter(|_| !private);
        let found = bridge.clone().filter(|bridge| Path::new("/sys/class/net").join(bridge).join("bridge").exists());
        if let (Some(bridge), None) = (&bridge, &found) {
            notes.push(format!("there is no bridge `{bridge}`: `{outside}`, the other end of {inside}, is in none"));
        } else if private {
            notes.push(format!(
                "`{outside}`, the other end of {inside}, is in no bridge: the original has its addresses"
            ));
        }
        all.push(Veth { inside, outside, bridge: found });
    }
    all
}
