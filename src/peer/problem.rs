//! Why a key, a peer or a policy cannot be used.

use std::path::PathBuf;
use std::time::Duration;

use super::policy::{Section, Violation};
use super::{Fingerprint, Name};
use crate::error::Distrust;

/// What is wrong with this host's key, with an enrolled peer, with one that calls, or with the policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Others could have put the key, the list of peers or the policy there, or exchange them.
    #[error("`{}` is not trusted: {}", path.display(), listed(found))]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// Every reason.
        found: Vec<Distrust>,
    },
    /// Others may read the private key.
    #[error("the key `{}` may be read by others (mode {mode:04o})", path.display())]
    Readable {
        /// The key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The private key has a second name, which nobody looks after.
    #[error("the key `{}` has {links} names", path.display())]
    Links {
        /// The key.
        path: PathBuf,
        /// How many.
        links: u64,
    },
    /// A file does not hold what it should.
    #[error("cannot understand `{}`: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No key could be made.
    #[error("cannot make a key: {why}")]
    NoKey {
        /// The library's word for it.
        why: String,
    },
    /// Not a name for a peer.
    #[error(
        "`{value}` is no name for a peer: it takes up to 64 letters, digits, `.`, `_` and `-`, a letter or digit first"
    )]
    Name {
        /// What was given.
        value: String,
    },
    /// Not a fingerprint.
    #[error("`{value}` is no fingerprint: one is `SHA256:` and 43 characters, as `crr peer key` prints it")]
    Fingerprint {
        /// What was given.
        value: String,
    },
    /// Not an address.
    #[error("`{value}` is no address: one is HOST:PORT, or [IPv6]:PORT")]
    Address {
        /// What was given.
        value: String,
    },
    /// A peer of that name is enrolled.
    #[error("a peer `{name}` is enrolled already, with the key {fingerprint}")]
    NameTaken {
        /// The name.
        name: Name,
        /// Its key.
        fingerprint: Fingerprint,
    },
    /// A peer with that key is enrolled.
    #[error("the key {fingerprint} is enrolled already, as `{name}`")]
    FingerprintTaken {
        /// The key.
        fingerprint: Fingerprint,
        /// Its name.
        name: Name,
    },
    /// The key of this host is not to be enrolled on it.
    #[error("{fingerprint} is this host's own key")]
    Own {
        /// The key.
        fingerprint: Fingerprint,
    },
    /// No peer of that name is enrolled.
    #[error("no peer `{name}` is enrolled")]
    NoSuchPeer {
        /// The name.
        name: Name,
    },
    /// Somebody called whose key is not enrolled. It was told nothing.
    #[error("a host with the key {shown} called, which is not enrolled")]
    Unknown {
        /// The key that it showed.
        shown: Fingerprint,
    },
    /// Another host answered than the one that was called. It was told nothing.
    #[error("the host that answered has the key {shown}, and `{name}` is enrolled with {expected}")]
    Wrong {
        /// Who was called.
        name: Name,
        /// The key that was shown.
        shown: Fingerprint,
        /// The key that is enrolled.
        expected: Fingerprint,
    },
    /// The host that was called does not know this one's key.
    #[error("`{name}` does not let this host in, whose key is {own}")]
    NotLetIn {
        /// Who was called.
        name: Name,
        /// The key of this host.
        own: Fingerprint,
    },
    /// No TLS 1.3 as crr speaks it.
    #[error("the TLS handshake failed: {why}")]
    Handshake {
        /// What the other side did.
        why: String,
    },
    /// The other side took too long to show who it is.
    #[error("the TLS handshake took longer than {} s", limit.as_secs_f64())]
    Late {
        /// The limit.
        limit: Duration,
    },
    /// The policy does not let a peer bring anything at all.
    #[error("the policy lets nothing in: {section} allows nothing")]
    Nothing {
        /// The section.
        section: Section,
    },
    /// Images ask for what the policy does not allow. CRIU was not started.
    #[error("the policy does not allow {} thing(s) in the images: {}", violations.len(), violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; "))]
    Refused {
        /// Everything that is not allowed.
        violations: Vec<Violation>,
    },
    /// A peer's address is not known.
    #[error("no address is known for the peer `{name}`")]
    NoAddress {
        /// The peer.
        name: Name,
    },
}

impl Problem {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Untrusted { .. } => "make root the only one who may write them, after looking at who has".into(),
            Self::Readable { path, .. } => format!(
                "others may have read it: remove `{}` so that a new one is made, enrol that on the peers and remove the old \
                 one there",
                path.display()
            ),
            Self::Links { .. } => "remove the other name, or the key so that a new one is made".into(),
            Self::NameTaken { name, .. } => format!("remove it first: crr peer remove {name}"),
            Self::FingerprintTaken { name, .. } => format!("use that name, or remove it first: crr peer remove {name}"),
            Self::Own { .. } => "give the one that `crr peer key` prints on the other host".into(),
            Self::NoSuchPeer { name } => {
                format!(
                    "see `crr peer list`; to enrol it, run `crr peer key` there and here: crr peer add {name} SHA256:…"
                )
            }
            Self::NoAddress { name } => {
                format!("give one with --to HOST:PORT, or enrol it with `crr peer add {name} … --address HOST:PORT`")
            }
            Self::Unknown { shown } => format!("if that is a host that may be root here: crr peer add NAME {shown}"),
            Self::Wrong { name, shown, .. } => format!(
                "either somebody is in the way, or `{name}` has a new key: see `crr peer key` there, and only if it prints \
                 {shown}: crr peer remove {name} && crr peer add {name} {shown}"
            ),
            Self::NotLetIn { own, .. } => format!("on that host: crr peer add NAME {own}"),
            Self::Handshake { .. } => "see that a `crr serve` of this version listens there".into(),
            Self::Late { .. } => "see that a `crr serve` listens there, and try again".into(),
            Self::Nothing { section } => {
                format!(
                    "say what it may bring in serve.toml there, below {section}; `unrestricted = true` makes it root"
                )
            }
            Self::Refused { .. } => "change the program, or the lines of serve.toml that are named".into(),
            Self::Damaged { .. } | Self::NoKey { .. } => return None,
            Self::Name { .. } | Self::Fingerprint { .. } | Self::Address { .. } => return None,
        })
    }
}

fn listed(found: &[Distrust]) -> String {
    found.iter().map(Distrust::to_string).collect::<Vec<_>>().join("; ")
}
