//! Routes that the kernel drops together with an address.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Address, address_of, ask};
use crate::host::links::{attributes, listing, word};
use crate::host::netlink::{Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, Socket};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// The size of `rtmsg`, which attributes follow.
const HEADER: usize = 12;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTA_CACHEINFO: u16 = 12;
/// Where `rtmsg` has the protocol, the type and the flags.
const PROTOCOL: usize = 5;
const KIND: usize = 7;
const FLAGS: usize = 8;
/// Made by the kernel for a redirect or a path that it tried; such are none of ours.
const CLONED: u32 = 0x200;
/// The flags that were asked for: `onlink`.
const ASKED: u32 = 0x4;
const REDIRECT: u8 = 1;
/// By the kernel itself, for an address.
const OF_KERNEL: u8 = 2;
/// By router advertisements, which come again.
const ADVERTISED: u8 = 9;
const UNICAST: u8 = 1;
/// The table of this host's own addresses, which the kernel keeps.
const LOCAL: u32 = 255;
/// A device with more routes is not taken apart.
const ROUTES_LIMIT: usize = 1_000;
/// Each fits in a part of a listing.
const LENGTH_LIMIT: usize = 4 << 10;

/// A route, as the kernel tells it, and as it is told to the kernel: an `rtmsg` with its attributes. In text, hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route(Vec<u8>);

impl Route {
    /// The routes over the device of an address, and those whose packets come from it.
    pub(super) fn of(held: &Address) -> io::Result<Vec<Self>> {
        let device = nix::net::if_::if_nametoindex(held.device.as_str())?;
        let all = all(held.address)?;
        let concerns = |route: &Self| {
            route.find(RTA_OIF).and_then(|value| word(value, 0)) == Some(device)
                || route.find(RTA_PREFSRC).and_then(address_of) == Some(held.address)
        };
        let routes: Vec<Self> = all.into_iter().filter(concerns).collect();
        match routes.len() > ROUTES_LIMIT {
            true => {
                Err(io::Error::other(format!("{} has {} routes, more than {ROUTES_LIMIT}", held.device, routes.len())))
            }
            false => Ok(routes),
        }
    }

    /// Keeps what was asked for, and leaves out what tells a state.
    fn parse(body: &[u8]) -> Option<Self> {
        let header = body.get(..HEADER)?;
        let mut message = Message { bytes: header.to_vec() };
        message.bytes[FLAGS..].copy_from_slice(&(word(header, FLAGS)? & ASKED).to_ne_bytes());
        for (kind, value) in attributes(&body[HEADER..]).filter(|(kind, _)| *kind != RTA_CACHEINFO) {
            message.attribute(kind, value);
        }
        Some(Self(message.bytes))
    }

    fn find(&self, wanted: u16) -> Option<&[u8]> {
        attributes(&self.0[HEADER..]).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// What IPv6 makes of a route when the address that its packets come from is taken off.
    fn without_source(&self) -> Self {
        let mut message = Message { bytes: self.0[..HEADER].to_vec() };
        for (kind, value) in attributes(&self.0[HEADER..]).filter(|(kind, _)| *kind != RTA_PREFSRC) {
            message.attribute(kind, value);
        }
        Self(message.bytes)
    }

    fn put_back(&self, now: &[Self]) -> io::Result<()> {
        let has_lost_source = !now.contains(self) && now.contains(&self.without_source());
        let how = if has_lost_source { NLM_F_REPLACE } else { NLM_F_EXCL };
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | how);
        message.bytes.extend(&self.0);
        match ask(message) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            done => done,
        }
    }
}

/// Puts back those of the routes of an address that are not there; a route that leads over another comes after that.
pub(super) fn put_back(address: IpAddr, routes: &[Route]) -> io::Result<()> {
    let now = all(address)?;
    let mut left: Vec<&Route> = routes.iter().collect();
    loop {
        let before = left.len();
        let mut failure = None;
        left.retain(|route| route.put_back(&now).map_err(|error| failure = Some(error)).is_err());
        match failure {
            None => return Ok(()),
            Some(error) if left.len() == before => return Err(error),
            Some(_) => {}
        }
    }
}

/// All routes of the family of `address`, but those that the kernel keeps by itself.
fn all(address: IpAddr) -> io::Result<Vec<Route>> {
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    let mut found = Vec::new();
    listing(&socket, RTM_GETROUTE, &[0; HEADER], |kind, body| {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        if kind != RTM_NEWROUTE || body.len() < HEADER || i32::from(body[0]) != family {
            return;
        }
        let is_cloned = word(body, FLAGS).is_none_or(|flags| flags & CLONED != 0);
        // IPv6 shows each address and network of its own as a route; those of the kernel come with the address.
        let is_kept =
            matches!(body[PROTOCOL], REDIRECT | ADVERTISED) || (address.is_ipv6() && body[PROTOCOL] == OF_KERNEL);
        if is_cloned || is_kept || body[KIND] != UNICAST {
            return;
        }
        found.extend(
            Route::parse(body).filter(|route| route.find(RTA_TABLE).and_then(|value| word(value, 0)) != Some(LOCAL)),
        );
    })?;
    Ok(found)
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            // Writing to a string never fails.
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let digits = text.len() % 2 == 0 && text.len() <= LENGTH_LIMIT * 2;
        let bytes: Option<Vec<u8>> = if digits { text.as_bytes().chunks(2).map(byte).collect() } else { None };
        let bytes = bytes.filter(|bytes| bytes.len() >= HEADER);
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("no route"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_back_from_text_and_no_other_text_is_one() {
        let mut body = vec![0; HEADER];
        body[0] = libc::AF_INET as u8;
        let mut message = Message { bytes: body };
        message.attribute(RTA_OIF, &7u32.to_ne_bytes());
        message.attribute(RTA_CACHEINFO, &[0; 32]);
        let route = Route::parse(&message.bytes).unwrap();
        assert_eq!(route.find(RTA_OIF), Some(7u32.to_ne_bytes().as_slice()));
        assert_eq!(route.find(RTA_CACHEINFO), None);
        let text = serde_json::to_string(&route).unwrap();
        assert_eq!(serde_json::from_str::<Route>(&text).unwrap(), route);
        for bad in ["\"\"", "\"00\"", "\"0\"", "\"zz0000000000000000000000\"", "7", "\"é0000000000000000000000000\""] {
            assert!(serde_json::from_str::<Route>(bad).is_err(), "{bad}");
        }
        let long = format!("\"{}\"", "0".repeat(LENGTH_LIMIT * 2 + 2));
        assert!(serde_json::from_str::<Route>(&long).is_err());
    }
}
