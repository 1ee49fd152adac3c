//! Values of the policy: ranges of numbers, networks, sizes, directories, capabilities.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, de::Error as _};

/// A number or `FIRST-LAST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    first: u32,
    last: u32,
}

impl Range {
    pub(super) fn has(ranges: &[Self], number: u64) -> bool {
        ranges.iter().any(|range| (u64::from(range.first)..=u64::from(range.last)).contains(&number))
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Range;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 4294967294, or a text such as \"1000-1999\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Range, E> {
                let number = u32::try_from(number).ok().filter(|number| *number != u32::MAX);
                number.map(|first| Range { first, last: first }).ok_or_else(|| E::custom("a number is out of range"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Range, E> {
                let parsed = || {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    let number =
                        |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?;
                    let (first, last) = (number(first)?, number(last)?);
                    (first <= last && last != u32::MAX).then_some(Range { first, last })
                };
                parsed().ok_or_else(|| E::custom(format!("`{text}` is neither a number nor FIRST-LAST")))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// An address or `ADDRESS/BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    pub(super) fn has(networks: &[Self], address: IpAddr) -> bool {
        networks.iter().any(|network| network.covers(address))
    }

    fn covers(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u8| {
            let apart = a ^ b;
            self.bits == 0 || apart.checked_shr(u32::from(width - self.bits)).unwrap_or(0) == 0
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = || {
            let (address, bits) = text.split_once('/').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
            let address: IpAddr = address.parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(width), |bits| bits.parse().ok().filter(|bits| *bits <= width))?;
            Some(Self { address, bits })
        };
        parsed().ok_or_else(|| D::Error::custom(format!("`{text}` is neither an address nor ADDRESS/BITS")))
    }
}

/// The address in `words` of an image, which hold it in network byte order on a little-endian machine.
pub(super) fn address(family: u64, words: &[u64]) -> Option<IpAddr> {
    let words: Vec<u32> = words.iter().map(|word| u32::try_from(*word).ok()).collect::<Option<_>>()?;
    match (family, words.as_slice()) {
        (2, [word]) => Some(Ipv4Addr::from(word.to_le_bytes()).into()),
        (10, [_, _, _, _]) => {
            let mut bytes = [0; 16];
            for (word, place) in words.iter().zip(bytes.chunks_exact_mut(4)) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// A number of bytes, or a text such as `"4G"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Number(bytes) => return Ok(Self(bytes)),
            Either::Text(text) => text,
        };
        let parsed = || {
            let place = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (number, unit) = text.split_at(place);
            let shift = match unit {
                "" => 0,
                "K" => 10,
                "M" => 20,
                "G" => 30,
                "T" => 40,
                _ => return None,
            };
            number.parse::<u64>().ok()?.checked_mul(1 << shift).map(Self)
        };
        parsed().ok_or_else(|| D::Error::custom(format!("`{text}` is no size, such as 4096, 64M or 8G")))
    }
}

/// A directory or file below `/`, without links, `.` and `..` in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(PathBuf);

impl Place {
    /// The place that `path` is in or is, the longest one.
    pub(super) fn around<'a>(places: &'a [Self], path: &Path) -> Option<&'a Path> {
        let around = places.iter().map(|place| place.0.as_path()).filter(|place| path.starts_with(place));
        around.max_by_key(|place| place.as_os_str().len())
    }

    /// Whether a place is below `path`, or is it.
    pub(super) fn is_below(places: &[Self], path: &Path) -> bool {
        places.iter().any(|place| place.0.starts_with(path))
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match is_plain(Path::new(&text)) {
            true => Ok(Self(text.into())),
            false => {
                Err(D::Error::custom(format!("`{text}` is no absolute path without `.`, `..` and a `/` at its end")))
            }
        }
    }
}

/// Whether a path is absolute and written in the one way that has no detours.
pub(super) fn is_plain(path: &Path) -> bool {
    let plain = path.components().skip(1).all(|component| matches!(component, Component::Normal(_)));
    let again: PathBuf = path.components().collect();
    path.is_absolute() && plain && again.as_os_str() == path.as_os_str()
}

/// The names of all capabilities, in the order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// A capability, with or without `CAP_`, in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability(u32);

impl Capability {
    pub(super) fn has(list: &[Self], name: &str) -> bool {
        list.iter().any(|capability| capability.name() == name)
    }

    /// The names of those in `set` that are not in the list.
    pub(super) fn beyond(list: &[Self], set: u64) -> Vec<String> {
        let allowed = list.iter().fold(0, |all: u64, capability| all | (1 << capability.0));
        let name =
            |bit: usize| CAPABILITIES.get(bit).map_or_else(|| format!("number {bit}"), |name| (*name).to_owned());
        (0..64).filter(|bit| set & !allowed & (1 << bit) != 0).map(name).collect()
    }

    fn name(self) -> &'static str {
        CAPABILITIES.get(self.0 as usize).copied().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("cap_").unwrap_or(&lower);
        let number = CAPABILITIES.iter().position(|known| *known == name);
        let number = number.and_then(|number| u32::try_from(number).ok());
        number.map(Self).ok_or_else(|| D::Error::custom(format!("`{text}` is no capability")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct One<T> {
        v: T,
    }

    fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Option<T> {
        toml::from_str::<One<T>>(text).ok().map(|one| one.v)
    }

    #[test]
    fn ranges() {
        let ranges: Vec<Range> = read("v = [0, \"5\", \"1000-1999\"]").unwrap();
        for (number, inside) in
            [(0, true), (1, false), (5, true), (999, false), (1000, true), (1999, true), (2000, false)]
        {
            assert_eq!(Range::has(&ranges, number), inside, "{number}");
        }
        for wrong in [
            "[-1]",
            "[4294967295]",
            "[\"5-4\"]",
            "[\"a\"]",
            "[\"\"]",
            "[\"-\"]",
            "[\"1-\"]",
            "[1.5]",
            "[\"+1\"]",
            "[\"0-4294967295\"]",
        ] {
            assert!(read::<Vec<Range>>(&format!("v = {wrong}")).is_none(), "{wrong}");
        }
    }

    #[test]
    fn networks() {
        let networks: Vec<Network> = read("v = [\"10.0.0.0/8\", \"127.0.0.1\", \"fd00::/8\", \"::\"]").unwrap();
        for (address, inside) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("fdff::1", true),
            ("fe00::1", false),
            ("::", true),
            ("::1", false),
            ("0.0.0.0", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(Network::has(&networks, address.parse().unwrap()), inside, "{address}");
        }
        let all: Vec<Network> = read("v = [\"0.0.0.0/0\"]").unwrap();
        assert!(Network::has(&all, "255.1.2.3".parse().unwrap()) && !Network::has(&all, "::".parse().unwrap()));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "a", "", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(read::<Network>(&format!("v = \"{wrong}\"")).is_none(), "{wrong}");
        }
    }

    #[test]
    fn places() {
        let places: Vec<Place> = read("v = [\"/srv\", \"/srv/app/data\"]").unwrap();
        let around = |path: &str| Place::around(&places, Path::new(path)).map(|path| path.to_str().unwrap());
        assert_eq!(around("/srv/x"), Some("/srv"));
        assert_eq!(around("/srv/app/data/x"), Some("/srv/app/data"));
        assert_eq!(around("/srv"), Some("/srv"));
        assert_eq!(around("/srvx"), None);
        for wrong in ["srv", "", "/srv/", "/srv/../etc", "/srv/./a", "//srv", "/a//b"] {
            assert!(read::<Place>(&format!("v = \"{wrong}\"")).is_none(), "{wrong}");
        }
        assert!(read::<Place>("v = \"/\"").is_some());
    }

    #[test]
    fn sizes_and_capabilities() {
        assert_eq!(read::<Size>("v = \"8G\""), Some(Size(8 << 30)));
        assert_eq!(read::<Size>("v = 5"), Some(Size(5)));
        for wrong in ["\"\"", "\"G\"", "\"8g\"", "-1", "\"99999999T\"", "\"1 M\""] {
            assert!(read::<Size>(&format!("v = {wrong}")).is_none(), "{wrong}");
        }
        let some: Vec<Capability> = read("v = [\"CAP_NET_RAW\", \"sys_admin\"]").unwrap();
        assert!(Capability::has(&some, "net_raw") && !Capability::has(&some, "net_admin"));
        assert_eq!(Capability::beyond(&some, 1 << 13 | 1 << 21), [""; 0]);
        assert_eq!(Capability::beyond(&some, 1 | 1 << 13 | 1 << 63), ["chown", "number 63"]);
        assert!(read::<Capability>("v = \"all\"").is_none());
    }
}
