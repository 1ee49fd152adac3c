//! Locks made by the iptables program.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output, Stdio};

use serde::Serialize;

use super::{Connection, Lock};
use crate::host::program::program;
use crate::swrk::PATH;

/// The mark of CRIU's own packets, which pass.
const MARK: &str = "0xc114";

/// CRIU's chain in a network namespace of the tree's own.
const CHAIN: &str = "CRIU";

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4, iptables.
    V4,
    /// IPv6, ip6tables.
    V6,
}

impl Family {
    /// The program.
    pub fn iptables(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn save(self) -> &'static str {
        match self {
            Self::V4 => "iptables-save",
            Self::V6 => "ip6tables-save",
        }
    }
}

/// A rule of CRIU's that drops one direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Where the packets come from.
    pub source: SocketAddr,
    /// Where they go.
    pub destination: SocketAddr,
    /// The rule, from its chain on, as iptables-save writes it.
    pub specification: Vec<String>,
}

impl Rule {
    /// Reads a line of iptables-save; `None` unless it is a rule of CRIU's.
    fn parse(family: Family, line: &str) -> Option<Self> {
        let specification: Vec<String> = line.strip_prefix("-A ")?.split_whitespace().map(str::to_owned).collect();
        if !matches!(specification.first()?.as_str(), "INPUT" | "OUTPUT") {
            return None;
        }
        let after = |word: &str| {
            let at = specification.iter().position(|candidate| candidate == word)?;
            specification.get(at + 1).map(String::as_str)
        };
        let marked = specification.windows(3).any(|words| words == ["!", "--mark", MARK]);
        if !marked || after("-j") != Some("DROP") || after("-p") != Some("tcp") {
            return None;
        }
        let address = |word| after(word)?.split('/').next()?.parse::<IpAddr>().ok();
        let port = |word| after(word)?.parse::<u16>().ok();
        let source = SocketAddr::new(address("-s")?, port("--sport")?);
        let destination = SocketAddr::new(address("-d")?, port("--dport")?);
        Some(Self { family, source, destination, specification })
    }

    /// Whether it drops a direction of `connection`.
    pub(super) fn drops(&self, connection: &Connection) -> bool {
        let same = |one: SocketAddr, other: SocketAddr| {
            one.ip().to_canonical() == other.ip().to_canonical() && one.port() == other.port()
        };
        let Connection { local, remote } = *connection;
        same(self.source, local) && same(self.destination, remote)
            || same(self.source, remote) && same(self.destination, local)
    }

    fn removal(&self) -> Vec<&str> {
        let specification = self.specification.iter().map(String::as_str);
        ["-w", "-t", "filter", "-D"].into_iter().chain(specification).collect()
    }

    pub(super) fn removal_command(&self) -> String {
        format!("{} {}", self.family.iptables(), crate::escape::escape(self.removal().join(" ")))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        run(self.family, &self.removal())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, source, destination, specification } = self;
        let chain = specification.first().map_or("", String::as_str);
        write!(f, "the {} rule in {chain} that drops {source} to {destination}", family.iptables())
    }
}

/// The locks of one family. Without the program there are none: CRIU makes them by it.
pub(super) fn list(family: Family) -> Result<Vec<Lock>, String> {
    let name = family.save();
    let Some(path) = program(name).path else { return Ok(Vec::new()) };
    // Without `-t` only tables that exist already are shown: naming one would make it.
    let output = started(Command::new(path)).map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(parse(family, &String::from_utf8_lossy(&output.stdout))),
        false => Err(format!("{name}: {}", last_line(&output))),
    }
}

fn parse(family: Family, saved: &str) -> Vec<Lock> {
    let mut table = "";
    let mut found = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if table == "filter" {
            let chain = line.strip_prefix(':').and_then(|line| line.split(' ').next());
            if chain == Some(CHAIN) {
                found.push(Lock::Chain { family });
            }
            found.extend(Rule::parse(family, line).map(Lock::Rule));
        }
    }
    found
}

/// What removes CRIU's chain: the jumps to it, its rules, and the chain.
pub(super) fn chain_removal() -> [Vec<&'static str>; 4] {
    let filter = |rest: &[&'static str]| [["-w", "-t", "filter"].as_slice(), rest].concat();
    [
        filter(&["-D", "INPUT", "-j", CHAIN]),
        filter(&["-D", "OUTPUT", "-j", CHAIN]),
        filter(&["-F", CHAIN]),
        filter(&["-X", CHAIN]),
    ]
}

pub(super) fn remove_chain(family: Family) -> io::Result<()> {
    // A CRIU that died on the way may have made some of it only.
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
    chain_removal().iter().try_for_each(|arguments| match run(family, arguments) {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    })
}

/// Runs iptables. What is not there, is `ENOENT`.
fn run(family: Family, arguments: &[&str]) -> io::Result<()> {
    let name = family.iptables();
    let path = program(name).path.ok_or_else(|| io::Error::other(format!("there is no program {name}")))?;
    let mut command = Command::new(path);
    command.args(arguments);
    let output = started(command)?;
    let said = last_line(&output);
    match output.status.success() {
        true => Ok(()),
        // Both implementations exit with 1 for this; only the words differ from those of other failures.
        false if said.contains("does a matching rule exist") || said.contains("No chain/target/match") => {
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        }
        false => Err(io::Error::other(format!("{name}: {said}"))),
    }
}

fn started(mut command: Command) -> io::Result<Output> {
    command.env_clear().env("PATH", PATH).stdin(Stdio::null()).output()
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut lines = text.lines().filter(|line| !line.starts_with("Try `"));
    crate::escape::escape(lines.next_back().unwrap_or("it failed and said nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `iptables-save` 1.8.9 wrote after a dump by CRIU 4.2.1, with rules and a table that are not CRIU's.
    const SAVED: &str = "\
# Generated by iptables-save v1.8.9 (nf_tables) on Fri Nov 20 10:00:52 2026
*nat
:PREROUTING ACCEPT [0:0]
-A INPUT -s 127.0.0.1/32 -d 127.0.0.1/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 1 --dport 2 -j DROP
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:CRIUS - [0:0]
-A INPUT -s 10.0.0.2/32 -d 10.0.0.1/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 47804 --dport 5555 -j DROP
-A INPUT -s 10.0.0.2/32 -d 10.0.0.1/32 -p tcp -m tcp --sport 47804 --dport 5555 -j DROP
-A INPUT -s 10.0.0.2/32 -p tcp -m mark ! --mark 0xc114 -m tcp --dport 5555 -j DROP
-A INPUT -p tcp -m mark ! --mark 0xc114 -j DROP
-A OUTPUT -s 10.0.0.1/32 -d 10.0.0.2/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 5555 --dport 47804 -j DROP
-A FORWARD -s 10.0.0.1/32 -d 10.0.0.2/32 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 5555 --dport 47804 -j DROP
COMMIT
";

    #[test]
    fn only_rules_that_criu_makes_are_taken_for_locks() {
        let found = parse(Family::V4, SAVED);
        let rules: Vec<_> = found
            .iter()
            .map(|lock| match lock {
                Lock::Rule(rule) => {
                    (rule.specification[0].as_str(), rule.source.to_string(), rule.destination.to_string())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let (client, server) = ("10.0.0.2:47804".to_owned(), "10.0.0.1:5555".to_owned());
        assert_eq!(rules, [("INPUT", client.clone(), server.clone()), ("OUTPUT", server, client)]);
    }

    #[test]
    fn a_rule_belongs_to_a_connection_in_both_directions_and_to_no_other() {
        let found = parse(Family::V4, SAVED);
        let address = |text: &str| text.parse().expect("an address");
        let connection = Connection { local: address("10.0.0.1:5555"), remote: address("10.0.0.2:47804") };
        let other = Connection { remote: address("10.0.0.2:47805"), ..connection };
        for lock in &found {
            let Lock::Rule(rule) = lock else { panic!("{lock:?}") };
            assert!(rule.drops(&connection), "{rule}");
            assert!(!rule.drops(&other), "{rule}");
        }
    }

    #[test]
    fn ipv6_and_the_chain_of_an_own_namespace_are_known() {
        let saved = "*filter\n:INPUT ACCEPT [0:0]\n:CRIU - [0:0]\n\
            -A INPUT -s ::1/128 -d ::1/128 -p tcp -m mark ! --mark 0xc114 -m tcp --sport 9 --dport 8 -j DROP\n\
            -A INPUT -j CRIU\n-A CRIU -m mark --mark 0xc114 -j ACCEPT\n-A CRIU -j DROP\nCOMMIT\n";
        let found = parse(Family::V6, saved);
        assert_eq!(found[0], Lock::Chain { family: Family::V6 });
        assert!(matches!(&found[1], Lock::Rule(rule) if rule.source.to_string() == "[::1]:9"), "{found:?}");
        assert_eq!(found.len(), 2);
    }
}
