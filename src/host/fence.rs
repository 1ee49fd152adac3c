//! Fences around an address that moves from one host to another with the connections of a tree.
//!
//! | fence | where | drops | as long as |
//! |---|---|---|---|
//! | [`Kind::Target`] | `inet crr-fence-ID` | every TCP segment to and from the address, but those that CRIU sends itself to rebuild half-closed sockets, which have its mark, in both directions | the copy is there and may not be heard of |
//! | [`Kind::Source`] | `inet crr-syn-ID` | every attempt to connect to the address | the tree is frozen: what connects then would be in no image, and hang after the commit |
//!
//! Without the first the target's kernel answers each segment of a connection whose socket is not there yet with a reset. Each
//! is one table of nf_tables, made and removed as one change, over netlink: no program is needed. Their names end in the first
//! half of the migration's ID, so that whoever comes after a crash finds them ([`Fence::all`]).
//!
//! **The target's fence is taken down before CRIU is answered at `pre-resume`, never after**: else the first answers of the tree
//! are dropped, and its clients wait 200 ms for them to be sent again.
//!
//! All functions act on the network namespace of the calling thread.

use std::net::IpAddr;

use serde::Serialize;

use super::netlink::{
    DELTABLE, Message, NEWTABLE, NFTA_TABLE_NAME, NFTABLES, NLM_F_APPEND, NLM_F_CREATE, inet_tables, remove_inet_table,
    transaction,
};
use crate::error::{Error, Result};

const NEWCHAIN: u16 = NFTABLES | 3;
const NEWRULE: u16 = NFTABLES | 6;

/// Attributes of chains and rules, and of the expressions that a rule is made of.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// The register that values are compared in.
const REGISTER: u32 = 1;
const META_MARK: u32 = 3;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Where the flags are in a TCP header, and those of the first segment of a connection.
const TCP_FLAGS: u32 = 13;
const SYN: u8 = 0x02;
const SYN_OR_ACK: u8 = 0x12;

/// CRIU marks the packets by which it rebuilds half-closed sockets.
const CRIU_MARK: u32 = 0xC114;
/// Before the rules of others, which have 0.
const PRIORITY: i32 = -10;

/// What a fence drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// All TCP but CRIU's own.
    Target,
    /// Attempts to connect.
    Source,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Target => "crr-fence-",
            Self::Source => "crr-syn-",
        }
    }
}

/// A side of the host that a packet passes.
#[derive(Clone, Copy)]
enum Side {
    In,
    Out,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    /// NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT.
    fn hook(self) -> u32 {
        match self {
            Self::In => 1,
            Self::Out => 3,
        }
    }

    /// Where an IP header has the address that is this host's: of the destination, or of the source.
    fn offset(self, address: IpAddr) -> u32 {
        match (self, address) {
            (Self::In, IpAddr::V4(_)) => 16,
            (Self::Out, IpAddr::V4(_)) => 12,
            (Self::In, IpAddr::V6(_)) => 24,
            (Self::Out, IpAddr::V6(_)) => 8,
        }
    }
}

/// A fence, there or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fence {
    /// What it drops.
    pub kind: Kind,
    /// The first half of the migration's ID.
    pub tag: String,
}

impl Fence {
    /// The fence of a migration.
    pub fn of(kind: Kind, tag: &str) -> Self {
        Self { kind, tag: tag.to_owned() }
    }

    /// All fences that are up, whoever's.
    ///
    /// # Errors
    /// [`Error::System`]: `EPERM` without `CAP_NET_ADMIN`, another without nf_tables.
    pub fn all() -> Result<Vec<Self>> {
        let tables = inet_tables().map_err(|source| Error::system("list the tables of nf_tables", source))?;
        let parse = |table: &String| {
            let mut kinds = [Kind::Target, Kind::Source].into_iter();
            kinds.find_map(|kind| Some(Self::of(kind, table.strip_prefix(kind.prefix())?)))
        };
        Ok(tables.iter().filter_map(parse).collect())
    }

    /// The table's name.
    pub fn table(&self) -> String {
        format!("{}{}", self.kind.prefix(), self.tag)
    }

    /// Whether it is up.
    ///
    /// # Errors
    /// As [`Fence::all`].
    pub fn is_up(&self) -> Result<bool> {
        Ok(Self::all()?.contains(self))
    }

    /// Puts it up around these addresses. One that is up already is replaced, and there is no moment without it.
    ///
    /// # Errors
    /// [`Error::System`] with what the kernel says; nothing has changed then.
    pub fn put_up(&self, addresses: &[IpAddr]) -> Result<()> {
        let table = self.table();
        let change = |kind, flags| {
            let mut message = Message::inet(kind, flags);
            message.text(NFTA_TABLE_NAME, &table);
            message
        };
        // To remove what is not there would be an error.
        let mut changes = vec![change(NEWTABLE, NLM_F_CREATE), change(DELTABLE, 0), change(NEWTABLE, NLM_F_CREATE)];
        let sides: &[Side] = match self.kind {
            Kind::Target => &[Side::In, Side::Out],
            Kind::Source => &[Side::In],
        };
        for side in sides {
            changes.push(chain(&table, *side));
            changes.extend(addresses.iter().map(|address| rule(&table, self.kind, *side, *address)));
        }
        transaction(changes).map_err(|source| Error::system(format!("make the nftables table `inet {table}`"), source))
    }

    /// Takes it down. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error::System`] with what the kernel says.
    pub fn take_down(&self) -> Result<()> {
        let table = self.table();
        match remove_inet_table(&table) {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => {
                Err(Error::system(format!("remove the nftables table `inet {table}`"), source))
            }
            _ => Ok(()),
        }
    }
}

fn chain(table: &str, side: Side) -> Message {
    let mut message = Message::inet(NEWCHAIN, NLM_F_CREATE);
    message.text(CHAIN_TABLE, table);
    message.text(CHAIN_NAME, side.name());
    message.nested(CHAIN_HOOK, |hook| {
        hook.number(HOOK_NUMBER, side.hook());
        hook.attribute(HOOK_PRIORITY, &PRIORITY.to_be_bytes());
    });
    message.text(CHAIN_TYPE, "filter");
    message
}

fn rule(table: &str, kind: Kind, side: Side, address: IpAddr) -> Message {
    let mut message = Message::inet(NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    message.text(RULE_TABLE, table);
    message.text(RULE_CHAIN, side.name());
    message.nested(RULE_EXPRESSIONS, |rule| {
        let (family, octets) = match address {
            IpAddr::V4(v4) => (libc::NFPROTO_IPV4, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::NFPROTO_IPV6, v6.octets().to_vec()),
        };
        meta(rule, META_FAMILY);
        compare(rule, Is::Equal, &[u8::try_from(family).unwrap_or_default()]);
        load(rule, NETWORK_HEADER, side.offset(address), &octets);
        compare(rule, Is::Equal, &octets);
        meta(rule, META_PROTOCOL);
        compare(rule, Is::Equal, &[libc::IPPROTO_TCP as u8]);
        match kind {
            Kind::Target => {
                meta(rule, META_MARK);
                compare(rule, Is::Other, &CRIU_MARK.to_ne_bytes());
            }
            Kind::Source => {
                load(rule, TRANSPORT_HEADER, TCP_FLAGS, &[0]);
                mask(rule, SYN_OR_ACK);
                compare(rule, Is::Equal, &[SYN]);
            }
        }
        drop_packet(rule);
    });
    message
}

fn expression(rule: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    rule.nested(ELEMENT, |element| {
        element.text(NAME, name);
        element.nested(DATA, data);
    });
}

/// Loads what the kernel knows of a packet.
fn meta(rule: &mut Message, key: u32) {
    expression(rule, "meta", |data| {
        data.number(1, REGISTER);
        data.number(2, key);
    });
}

/// Loads as many bytes of a header as `like` has.
fn load(rule: &mut Message, header: u32, offset: u32, like: &[u8]) {
    expression(rule, "payload", |data| {
        data.number(1, REGISTER);
        data.number(2, header);
        data.number(3, offset);
        data.number(4, u32::try_from(like.len()).unwrap_or(u32::MAX));
    });
}

fn mask(rule: &mut Message, mask: u8) {
    expression(rule, "bitwise", |data| {
        data.number(1, REGISTER);
        data.number(2, REGISTER);
        data.number(3, 1);
        data.nested(4, |value| value.attribute(VALUE, &[mask]));
        data.nested(5, |value| value.attribute(VALUE, &[0]));
    });
}

#[derive(Clone, Copy)]
enum Is {
    Equal = 0,
    Other = 1,
}

fn compare(rule: &mut Message, is: Is, with: &[u8]) {
    expression(rule, "cmp", |data| {
        data.number(1, REGISTER);
        data.number(2, is as u32);
        data.nested(3, |value| value.attribute(VALUE, with));
    });
}

fn drop_packet(rule: &mut Message) {
    // Register and code of the verdict NF_DROP are both 0.
    expression(rule, "immediate", |data| {
        data.number(1, 0);
        data.nested(2, |value| value.nested(VERDICT, |verdict| verdict.number(1, 0)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_named_after_kind_and_migration() {
        assert_eq!(Fence::of(Kind::Target, "0123456789abcdef").table(), "crr-fence-0123456789abcdef");
        assert_eq!(Fence::of(Kind::Source, "0123456789abcdef").table(), "crr-syn-0123456789abcdef");
    }

    #[test]
    fn a_rule_looks_at_this_hosts_end_of_a_packet() {
        let [v4, v6]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd77::1".parse().unwrap()];
        assert_eq!((Side::In.offset(v4), Side::Out.offset(v4)), (16, 12));
        assert_eq!((Side::In.offset(v6), Side::Out.offset(v6)), (24, 8));
    }
}
