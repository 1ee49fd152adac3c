//! An address that moves from one host to another with the connections of a tree: looked at, taken off, put on, announced.
//!
//! What goes with it is remembered in [`Held`], which is written down before anything is changed: the routes that the kernel
//! drops with the address, and the host's other addresses of the same network, which it drops as well where they came later
//! (the `secondary` ones). Those that stay on the host are put back at once, the others when the address comes back.
//!
//! All of it is netlink and packet sockets, needs no program, and may be repeated. All functions act on the network namespace of
//! the calling thread.

mod announce;
mod route;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;
use serde::{Deserialize, Serialize};

pub use announce::announce;
pub use route::Route;

use super::links::{Link, attributes, links, listing, word};
use super::netlink::{Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Socket};
use crate::error::{Error, Result};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// The size of `ifaddrmsg`, which attributes follow.
const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
/// No duplicate address detection: it would take a second, and find the other host's.
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_MANAGETEMPADDR: u32 = 0x100;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
/// The flags that were asked for, and are asked for again: the others tell a state.
const ASKED: u32 = IFA_F_NODAD | IFA_F_MANAGETEMPADDR | IFA_F_NOPREFIXROUTE;
/// No end to a lifetime, in seconds.
const FOREVER: u32 = u32::MAX;
/// No host has more; what is known of each is kept in memory.
const ADDRESSES_LIMIT: usize = 10_000;

/// An address on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// How many of its bits name the network: 32 or 128 for an address that stands for itself.
    pub prefix: u8,
    /// The device's name.
    pub device: String,
    /// How far it is valid: 0 everywhere, 253 on the link, 254 on the host.
    pub scope: u8,
    /// IPv4: the name it is shown under, such as `eth0:1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// IPv4: the broadcast address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<Ipv4Addr>,
    /// The other end's address, on a device with two ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// For how many seconds it is preferred, and valid, from when it was looked at; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<(u32, u32)>,
    /// The kernel's flags that were asked for.
    #[serde(default)]
    pub flags: u32,
}

/// An address that a host has, with all that goes when it is taken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The address.
    pub address: Address,
    /// The device's other addresses of the same family.
    pub others: Vec<Address>,
    /// The routes over the device, and those whose packets come from the address.
    pub routes: Vec<Route>,
}

impl Address {
    /// An address that is valid everywhere.
    pub fn new(address: IpAddr, prefix: u8, device: impl Into<String>) -> Self {
        Self {
            address,
            prefix,
            device: device.into(),
            scope: 0,
            label: None,
            broadcast: None,
            peer: None,
            lifetime_s: None,
            flags: 0,
        }
    }

    /// Puts it on its device. IPv6 without looking for duplicates. If the device has it already, nothing is changed.
    ///
    /// # Errors
    /// [`Error::System`]: `ENODEV` if there is no such device.
    pub fn put_on(&self) -> Result<()> {
        let failed = |source| Error::system(format!("put the address {self} on"), source);
        let message = self.message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL).map_err(failed)?;
        match ask(message) {
            Err(source) if source.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            done => done.map_err(failed),
        }
    }

    fn message(&self, kind: u16, flags: u16) -> io::Result<Message> {
        let index = nix::net::if_::if_nametoindex(self.device.as_str())?;
        let family = if self.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let asked = if self.address.is_ipv6() { self.flags | IFA_F_NODAD } else { self.flags };
        let mut message = Message::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags);
        message.bytes.extend([family as u8, self.prefix, asked as u8, self.scope]);
        message.bytes.extend(index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &octets(self.address));
        message.attribute(IFA_ADDRESS, &octets(self.peer.unwrap_or(self.address)));
        if let Some(broadcast) = self.broadcast {
            message.attribute(IFA_BROADCAST, &broadcast.octets());
        }
        if let Some(label) = &self.label {
            message.text(IFA_LABEL, label);
        }
        if let Some((preferred, valid)) = self.lifetime_s {
            let words = [preferred, valid, 0, 0].map(u32::to_ne_bytes);
            message.attribute(IFA_CACHEINFO, &words.concat());
        }
        message.attribute(IFA_FLAGS, &asked.to_ne_bytes());
        Ok(message)
    }

    /// Reads an `ifaddrmsg` with its attributes.
    fn parse(body: &[u8], devices: &HashMap<u32, String>) -> Option<Self> {
        let (prefix, flags, scope) = (*body.get(1)?, *body.get(2)?, *body.get(3)?);
        let device = devices.get(&word(body, 4)?)?;
        let (mut local, mut other) = (None, None);
        let mut found = Self::new(Ipv4Addr::UNSPECIFIED.into(), prefix, device.clone());
        found.scope = scope;
        found.flags = u32::from(flags);
        for (kind, value) in attributes(body.get(HEADER..)?) {
            match kind {
                IFA_LOCAL => local = address_of(value),
                IFA_ADDRESS => other = address_of(value),
                IFA_LABEL => {
                    let text = String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned();
                    found.label = Some(text);
                }
                IFA_BROADCAST => found.broadcast = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from),
                IFA_CACHEINFO => {
                    let (preferred, valid) = (word(value, 0)?, word(value, 4)?);
                    found.lifetime_s = (valid != FOREVER).then_some((preferred, valid));
                }
                IFA_FLAGS => found.flags = word(value, 0)?,
                _ => {}
            }
        }
        found.address = local.or(other)?;
        found.peer = other.filter(|other| *other != found.address);
        found.flags &= ASKED;
        Some(found)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.address, self.prefix, self.device)
    }
}

impl Held {
    /// Looks where this host has an address; `None` if it does not.
    ///
    /// # Errors
    /// [`Error::System`] with what the kernel says; also where more routes than could be put back lead over the device.
    pub fn look(address: IpAddr) -> Result<Option<Self>> {
        let failed = |source| Error::system(format!("look at the address {address}"), source);
        let mut all = addresses().map_err(failed)?;
        let Some(at) = all.iter().position(|held| held.address == address) else { return Ok(None) };
        let held = all.remove(at);
        all.retain(|other| other.device == held.device && other.address.is_ipv4() == address.is_ipv4());
        let routes = Route::of(&held).map_err(failed)?;
        Ok(Some(Self { address: held, others: all, routes }))
    }

    /// Takes the address off, and puts back at once what goes with it and can be without it. To be done after `self` was
    /// written down; may be repeated.
    ///
    /// # Errors
    /// [`Error::System`] with what the kernel says.
    pub fn take_off(&self) -> Result<()> {
        let failed = |source| Error::system(format!("take the address {} off", self.address), source);
        match self.address.message(RTM_DELADDR, 0).and_then(ask) {
            // The device is gone, and the address with it; or only the address is.
            Err(source) if matches!(source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {}
            done => done.map_err(failed)?,
        }
        self.put_back_others()?;
        // What needs the address, or the network that it was in, comes back with it.
        let _ = route::put_back(self.address.address, &self.routes);
        Ok(())
    }

    /// Puts the address on again, with all that went with it: what was added meanwhile is left alone. May be repeated.
    ///
    /// # Errors
    /// [`Error::System`] with what the kernel says.
    pub fn put_back(&self) -> Result<()> {
        self.address.put_on()?;
        self.put_back_others()?;
        let failed = |source| Error::system(format!("put back the routes of the address {}", self.address), source);
        route::put_back(self.address.address, &self.routes).map_err(failed)
    }

    fn put_back_others(&self) -> Result<()> {
        let failed = |source| Error::system(format!("look at the addresses of {}", self.address.device), source);
        let now = addresses().map_err(failed)?;
        let is_there =
            |other: &Address| now.iter().any(|now| now.address == other.address && now.device == other.device);
        self.others.iter().filter(|other| !is_there(other)).try_for_each(Address::put_on)
    }
}

/// All addresses of the network namespace.
fn addresses() -> io::Result<Vec<Address>> {
    let devices: HashMap<u32, String> = links()?.into_iter().map(|Link { index, name, .. }| (index, name)).collect();
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    let mut found = Vec::new();
    listing(&socket, RTM_GETADDR, &[0; HEADER], |kind, body| {
        if kind == RTM_NEWADDR && found.len() < ADDRESSES_LIMIT {
            found.extend(Address::parse(body, &devices));
        }
    })?;
    Ok(found)
}

/// Asks the kernel for one change.
fn ask(message: Message) -> io::Result<()> {
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    socket.send(&message.finish())?;
    socket.acknowledged()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_asked_for_and_every_prefix_of_it_is_survived() {
        let devices = HashMap::from([(1, "lo".to_owned())]);
        let mut wanted = Address::new("10.0.0.1".parse().unwrap(), 24, "lo");
        wanted.label = Some("lo:1".into());
        wanted.broadcast = Some(Ipv4Addr::new(10, 0, 0, 255));
        wanted.lifetime_s = Some((10, 20));
        wanted.scope = 253;
        // The last attribute is not without meaning then.
        wanted.flags = IFA_F_NOPREFIXROUTE;
        let bytes = wanted.message(RTM_NEWADDR, 0).unwrap().finish();
        // Behind the header of the message.
        let body = &bytes[16..];
        assert_eq!(Address::parse(body, &devices), Some(wanted.clone()));
        for length in 0..body.len() {
            assert_ne!(Address::parse(&body[..length], &devices), Some(wanted.clone()), "{length}");
        }
        let json = serde_json::to_string(&wanted).unwrap();
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), wanted);
    }

    #[test]
    fn an_address_that_nobody_has_is_not_found() {
        assert_eq!(Held::look("203.0.113.77".parse().unwrap()).unwrap(), None);
    }
}
