//! Routes of a network namespace that cannot be made again as they are listed (rtnetlink(7)).

use std::collections::BTreeSet;
use std::io;

use nix::sys::socket::SockProtocol;

use super::links::{attributes, listing, word};
use super::netlink::Socket;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// The size of `rtmsg`, which attributes follow.
const ROUTE_HEADER: usize = 12;
/// The size of `rtnexthop`, of which several may be in one attribute.
const HOP_HEADER: usize = 8;
const AF_INET: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u32 = 254;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_LINKDOWN: u32 = 16;
/// A namespace with more interfaces has no need to have them all named.
const NAMED_LIMIT: usize = 1000;

/// The numbers of the interfaces without a carrier, such as a veth whose other end is down, over which there are routes in the
/// calling thread's network namespace.
///
/// The kernel marks such a route (`linkdown`), and refuses to make one that is marked ("Invalid rtm_flags"): what `ip route
/// save` writes of it, which is what CRIU runs, `ip route restore` cannot read back. Of IPv4's main table only; the others are
/// not saved, and IPv6 takes them.
///
/// # Errors
/// What the kernel says.
pub fn interfaces_of_dead_routes() -> io::Result<BTreeSet<u32>> {
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    let mut header = [0; ROUTE_HEADER];
    header[0] = AF_INET;
    let mut found = BTreeSet::new();
    listing(&socket, RTM_GETROUTE, &header, |kind, body| {
        if kind == RTM_NEWROUTE && found.len() < NAMED_LIMIT {
            found.extend(dead(body).unwrap_or_default());
        }
    })?;
    Ok(found)
}

/// The interfaces by which a route of the main table is dead.
fn dead(body: &[u8]) -> Option<Vec<u32>> {
    let is_dead = |flags: u32| flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0;
    let (family, table, flags) = (*body.first()?, *body.get(4)?, word(body, 8)?);
    let rest = body.get(ROUTE_HEADER..)?;
    let value = |wanted: u16| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let table = value(RTA_TABLE).and_then(|value| word(value, 0)).unwrap_or(u32::from(table));
    if family != AF_INET || table != RT_TABLE_MAIN {
        return None;
    }
    let mut found = Vec::new();
    if is_dead(flags) {
        found.extend(value(RTA_OIF).and_then(|value| word(value, 0)));
    }
    let mut hops = value(RTA_MULTIPATH).unwrap_or_default();
    while let Some(index) = word(hops, 4) {
        let length = usize::from(u16::from_ne_bytes(hops.get(..2)?.try_into().ok()?));
        if is_dead(u32::from(*hops.get(2)?)) {
            found.push(index);
        }
        // A length that is none would be read for ever.
        hops = hops.get(length.max(HOP_HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn route(table: u8, flags: u32, attributes: &[u8]) -> Vec<u8> {
        [&[AF_INET, 24, 0, 0, table, 2, 253, 1][..], &flags.to_ne_bytes(), attributes].concat()
    }

    #[test]
    fn routes_without_a_carrier_are_found_in_the_main_table() {
        let over = attribute(RTA_OIF, &7u32.to_ne_bytes());
        assert_eq!(dead(&route(254, RTNH_F_LINKDOWN, &over)), Some(vec![7]));
        assert_eq!(dead(&route(254, 0, &over)), Some(vec![]));
        assert_eq!(dead(&route(255, RTNH_F_LINKDOWN, &over)), None);
        let table = attribute(RTA_TABLE, &77u32.to_ne_bytes());
        assert_eq!(dead(&route(254, RTNH_F_LINKDOWN, &[over, table].concat())), None);
    }

    #[test]
    fn every_next_hop_is_looked_at_and_every_prefix_is_survived() {
        let hop = |flags: u8, index: u32| [&[8, 0, flags, 0][..], &index.to_ne_bytes()].concat();
        let hops = attribute(RTA_MULTIPATH, &[hop(16, 3), hop(0, 4), hop(1, 5)].concat());
        let whole = route(254, 0, &hops);
        assert_eq!(dead(&whole), Some(vec![3, 5]));
        for length in 0..whole.len() {
            assert_ne!(dead(&whole[..length]), Some(vec![3, 5]), "{length}");
        }
        // A length of 0.
        assert_eq!(dead(&route(254, 0, &attribute(RTA_MULTIPATH, &[0; 16]))), Some(vec![]));
    }
}
