//! What of the network of a container goes into its images, and whether connections must be kept silent meanwhile.

use std::path::PathBuf;

use crate::checkpoint::{NetworkKind, RecordedInterface};
use crate::error::{Error, Result};
use crate::host::{Link, TcpSockets, in_network, interfaces_of_dead_routes, links};
use crate::process::Namespaces;

/// The devices that every network namespace has when their modules are loaded, and that nobody has asked for.
const FALLBACK: [&str; 9] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

/// The network of a container.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) kind: NetworkKind,
    pub(super) interfaces: Vec<RecordedInterface>,
    /// The interfaces with routes that could not be made again.
    pub(super) dead: Vec<String>,
    /// A way to see its connections; `None` in the namespace of the host, where other than its own do not matter.
    pub(super) sockets: Option<TcpSockets>,
}

impl Network {
    /// Looks at the network of process `init`. `given`: whether the namespace was taken from a path.
    pub(super) fn look(init: i32, given: bool) -> Result<Self> {
        let namespace = Namespaces::read(format!("/proc/{init}/ns").as_ref()).net;
        let own = Namespaces::read("/proc/thread-self/ns".as_ref()).net;
        if namespace == own || namespace == 0 {
            let (interfaces, dead) = (Vec::new(), Vec::new());
            return Ok(Self { kind: NetworkKind::Host, interfaces, dead, sockets: None });
        }
        let path = PathBuf::from(format!("/proc/{init}/ns/net"));
        let look = || (links(), interfaces_of_dead_routes(), TcpSockets::open());
        let (inside, dead, sockets) =
            in_network(&path, look).map_err(Error::io("look into the network namespace", &path))?;
        let dead = dead.map_err(Error::io("list the routes in", &path))?;
        let inside = inside.map_err(Error::io("list the interfaces in", &path))?;
        let interfaces = described(&inside, &links().unwrap_or_default());
        let kind = match (given, interfaces.is_empty()) {
            (true, _) => NetworkKind::External,
            (false, true) => NetworkKind::Empty,
            (false, false) => NetworkKind::Dumped,
        };
        let dead = inside.iter().filter(|link| dead.contains(&link.index)).map(|link| link.name.clone()).collect();
        Ok(Self { kind, interfaces, dead, sockets: sockets.ok() })
    }

    /// A way to see the connections of process `init` later.
    pub(super) fn sockets_of(init: i32) -> Option<TcpSockets> {
        in_network(format!("/proc/{init}/ns/net").as_ref(), TcpSockets::open).ok()?.ok()
    }

    /// Whether the network has to be locked: it need not be where nothing but listening sockets is there.
    pub(super) fn must_be_locked(&self) -> bool {
        self.kind != NetworkKind::Host && has_connections(self.sockets.as_ref())
    }
}

/// Whether there is a TCP socket that does more than listen, or nobody can tell.
pub(super) fn has_connections(sockets: Option<&TcpSockets>) -> bool {
    sockets.is_none_or(|sockets| sockets.connected().map_or(true, |found| !found.is_empty()))
}

/// The interfaces besides the loopback, with their other ends among those of the host.
fn described(inside: &[Link], host: &[Link]) -> Vec<RecordedInterface> {
    let counts = |link: &&Link| !link.loopback && (link.up || !FALLBACK.contains(&link.name.as_str()));
    let describe = |link: &Link| {
        let peer = host.iter().find(|other| {
            link.kind == "veth"
                && other.kind == "veth"
                && Some(other.index) == link.peer
                && other.peer == Some(link.index)
        });
        let bridge = peer.and_then(|peer| host.iter().find(|other| Some(other.index) == peer.master));
        RecordedInterface {
            name: link.name.clone(),
            kind: link.kind.clone(),
            mac: link.mac.clone(),
            addresses: link.addresses.clone(),
            peer: peer.map(|peer| peer.name.clone()),
            bridge: bridge.filter(|bridge| bridge.kind == "bridge").map(|bridge| bridge.name.clone()),
        }
    };
    inside.iter().filter(counts).map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, peer: Option<u32>) -> Link {
        Link { index, name: name.into(), kind: kind.into(), peer, up: true, ..Link::default() }
    }

    #[test]
    fn a_veth_is_recorded_with_its_other_end_and_bridge() {
        let lo = Link { loopback: true, ..link(1, "lo", "", None) };
        let tunnel = Link { up: false, ..link(2, "tunl0", "ipip", None) };
        let inside = [lo, tunnel, link(7, "eth0", "veth", Some(12))];
        let host = [
            link(11, "vethx", "veth", Some(8)),
            Link { master: Some(3), ..link(12, "vethy", "veth", Some(7)) },
            link(3, "br0", "bridge", None),
        ];
        let found = described(&inside, &host);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].name, "eth0");
        assert_eq!((found[0].peer.as_deref(), found[0].bridge.as_deref()), (Some("vethy"), Some("br0")));
        // The same number in another namespace is not its other end.
        assert_eq!(described(&inside[2..], &host[..1])[0].peer, None);
    }

    #[test]
    fn the_network_of_this_process_is_the_hosts() {
        let network = Network::look(std::process::id() as i32, false).expect("a look");
        assert_eq!(network.kind, NetworkKind::Host);
        assert!(!network.must_be_locked());
    }
}
