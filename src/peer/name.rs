//! What a peer is called here, and where it is.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::Problem;

/// The name under which a peer is enrolled: up to 64 letters, digits, `.`, `_` and `-` of ASCII, a letter or digit first. It
/// is part of a file's name and of what is printed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    const LIMIT: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let good = text.len() <= Self::LIMIT
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if good { Ok(Self(text.into())) } else { Err(Problem::Name { value: text.into() }) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a peer listens: `HOST:PORT`, an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// A host name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let parsed = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.bytes().all(|digit| digit.is_ascii_digit()).then(|| port.parse().ok())??;
            let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
                Some(inside) => inside.filter(|inside| inside.parse::<Ipv6Addr>().is_ok())?,
                None => host,
            };
            let named = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
            let is_name = !host.is_empty() && host.len() <= 253 && host.chars().all(named);
            let good = is_name && (!host.contains(':') || text.starts_with('[')) && !host.starts_with('-') && port != 0;
            good.then(|| Self { host: host.into(), port })
        };
        parsed().ok_or_else(|| Problem::Address { value: text.into() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_chooses_no_path_and_no_option() {
        for good in ["b", "B2", "node-17.rack_3", "0"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "a".repeat(65);
        for wrong in ["", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "é", "a\0", long.as_str()] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["b:7420", "10.0.0.2:1", "b.example:65535", "[fe80::1]:7420", "[::]:7420"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for wrong in [
            "",
            "b",
            "b:",
            ":7420",
            "b:0",
            "b:65536",
            "b:+1",
            "b:7 ",
            "fe80::1:7420",
            "[b]:7420",
            "[]:1",
            "[::1:1",
            "-b:1",
            "b c:1",
            "b/c:1",
            "b:1:2",
            "[fe80::1%eth0]:1",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong:?}");
        }
    }
}
