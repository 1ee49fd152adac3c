//! Telling the segment where an address is now.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Error, Result};
use crate::host::links::links;

type Mac = [u8; 6];

const ETHERNET_BROADCAST: Mac = [0xff; 6];
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// "Believe this instead of what you know."
const OVERRIDE: u32 = 0x2000_0000;
const TARGET_LINK_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Tells every host of the segment that `address` is on `device` of this one: IPv4 by a gratuitous ARP request and a reply, as
/// some heed only one of them, IPv6 by an unsolicited neighbour advertisement with the override flag. A device that is no
/// Ethernet has nobody to be told.
///
/// # Errors
/// [`Error::System`] if there is no such device, or what the kernel says about sending.
pub fn announce(address: IpAddr, device: &str) -> Result<()> {
    let failed = |source| Error::system(format!("announce the address {address} on {device}"), source);
    let links = links().map_err(failed)?;
    let link = links.iter().find(|link| link.name == device);
    let link = link.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ENODEV)))?;
    let Some(mac) = mac(&link.mac).filter(|_| !link.loopback) else { return Ok(()) };
    let frames = match address {
        IpAddr::V4(v4) => vec![arp(ARP_REQUEST, mac, v4), arp(ARP_REPLY, mac, v4)],
        IpAddr::V6(v6) => vec![advertisement(mac, v6)],
    };
    // Of no protocol: nothing is received.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.map_err(|errno| failed(errno.into()))?;
    frames.iter().try_for_each(|frame| send(&socket, link.index, frame)).map_err(failed)
}

fn mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok().filter(|mac| *mac != [0; 6])
}

fn frame(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

fn arp(operation: u16, own: Mac, address: Ipv4Addr) -> Vec<u8> {
    let octets = address.octets();
    let asked = if operation == ARP_REQUEST { [0; 6] } else { ETHERNET_BROADCAST };
    // Ethernet, IPv4, the lengths of their addresses.
    let head = [0, 1, 8, 0, 6, 4];
    let payload = [&head[..], &operation.to_be_bytes(), &own, &octets, &asked, &octets].concat();
    frame(ETHERNET_BROADCAST, own, TYPE_ARP, &payload)
}

fn advertisement(own: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0];
    message.extend(OVERRIDE.to_be_bytes());
    message.extend(address.octets());
    // The length of an option is counted in 8 bytes.
    message.extend([TARGET_LINK_ADDRESS, 1]);
    message.extend(own);
    let sum = checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    // Version 6; of no other hop limit than 255 are such messages believed.
    let head = [0x60, 0, 0, 0, length[0], length[1], ICMPV6, 255];
    let packet = [&head[..], &address.octets(), &ALL_NODES.octets(), &message].concat();
    frame(ALL_NODES_MAC, own, TYPE_IPV6, &packet)
}

/// Of an ICMPv6 message, the addresses of the packet included.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let all = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6], message].concat();
    let mut sum: u32 =
        all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn send(socket: &OwnedFd, index: u32, frame: &[u8]) -> io::Result<()> {
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let length = std::mem::size_of_val(&to) as libc::socklen_t;
    // SAFETY: `frame` is readable for its length and `to` for its, and both live across the call; nothing is written to them.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length)
    };
    if usize::try_from(sent) == Ok(frame.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn both_kinds_of_arp_name_the_address_as_senders_and_targets() {
        let address = Ipv4Addr::new(10, 77, 0, 100);
        for operation in [ARP_REQUEST, ARP_REPLY] {
            let frame = arp(operation, OWN, address);
            assert_eq!(frame.len(), 14 + 28);
            assert_eq!((&frame[28..32], &frame[38..42]), (&address.octets()[..], &address.octets()[..]));
            assert_eq!((&frame[6..12], &frame[22..28]), (&OWN[..], &OWN[..]));
        }
    }

    #[test]
    fn the_checksum_of_an_advertisement_makes_the_sum_zero() {
        let address = "fd77::100".parse().unwrap();
        let frame = advertisement(OWN, address);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0);
    }

    #[test]
    fn only_six_bytes_are_an_address_of_ethernet() {
        assert_eq!(mac("02:00:00:00:00:01"), Some(OWN));
        for text in ["", "00:00:00:00:00:00", "02:00:00:00:00", "02:00:00:00:00:01:02", "zz:00:00:00:00:01"] {
            assert_eq!(mac(text), None, "{text}");
        }
    }
}
