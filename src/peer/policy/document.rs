//! `serve.toml`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use serde::Deserialize;

use super::super::configuration::read;
use super::super::{Configuration, Name, Problem};
use super::judge;
use super::restrictions::{Limits, Restrictions};
use super::violation::Section;
use crate::error::Result;
use crate::images::Images;

/// The name of the file in the [`Configuration`].
const FILE: &str = "serve.toml";
const LIMIT: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    peer: BTreeMap<String, Restrictions>,
    stdio: Option<Restrictions>,
}

/// The policy of this host.
#[derive(Debug)]
pub struct Policies {
    peers: BTreeMap<Name, Policy>,
    stdio: Option<Policy>,
}

/// The policy for one peer.
#[derive(Clone, Debug)]
pub struct Policy {
    section: Section,
    restrictions: Restrictions,
}

impl Policies {
    /// Reads the policy. Without a file no peer may bring anything.
    ///
    /// # Errors
    /// [`Problem::Untrusted`] when others may write it, [`Problem::Damaged`] when it cannot be understood: with line and
    /// column.
    pub fn read(configuration: &Configuration) -> Result<Self> {
        let Some(directory) = configuration.open()? else { return Self::parse("", PathBuf::new()) };
        let text = read(&directory, OsStr::new(FILE), LIMIT)?.map(|(text, _)| text).unwrap_or_default();
        Self::parse(&text, directory.path_of(FILE))
    }

    pub(super) fn parse(text: &str, path: PathBuf) -> Result<Self> {
        let damaged = |why: String| Problem::Damaged { path: path.clone(), why };
        let document: Document = toml::from_str(text).map_err(|error| damaged(error.to_string().trim_end().into()))?;
        let policy = |section: Section, restrictions: Restrictions| {
            if restrictions.unrestricted && !restrictions.is_only_limits() {
                let why = format!("{section} is unrestricted and has lines that would restrict it");
                return Err(damaged(why));
            }
            Ok(Policy { section, restrictions })
        };
        let mut peers = BTreeMap::new();
        for (name, restrictions) in document.peer {
            let name: Name = name.parse().map_err(|error: Problem| damaged(error.to_string()))?;
            peers.insert(name.clone(), policy(Section::Peer(name), restrictions)?);
        }
        let stdio = document.stdio.map(|restrictions| policy(Section::Stdio, restrictions)).transpose()?;
        Ok(Self { peers, stdio })
    }

    /// The policy for an enrolled peer; one that has no section may bring nothing.
    pub fn of_peer(&self, name: &Name) -> Policy {
        let nothing = || Policy { section: Section::Peer(name.clone()), restrictions: Restrictions::default() };
        self.peers.get(name).cloned().unwrap_or_else(nothing)
    }

    /// The policy for who has logged in (`crr serve --stdio`). The login is the authority there: only a section `[stdio]`
    /// restricts it.
    pub fn of_stdio(&self) -> Policy {
        let root = || Policy {
            section: Section::Stdio,
            restrictions: Restrictions { unrestricted: true, ..Restrictions::default() },
        };
        self.stdio.clone().unwrap_or_else(root)
    }
}

impl Policy {
    /// Whether the peer is root here.
    pub fn is_unrestricted(&self) -> bool {
        self.restrictions.unrestricted
    }

    /// Whether it may bring nothing at all, so that there is no use in hearing it.
    pub fn is_nothing(&self) -> bool {
        !self.restrictions.unrestricted && self.restrictions.is_only_limits()
    }

    /// That images may be restored, before CRIU is started: [`judge`](super::judge) with an error for what it finds.
    ///
    /// # Errors
    /// [`Problem::Refused`] with everything that is not allowed.
    pub fn admit(&self, images: &Images) -> Result<()> {
        let violations = judge(images, self)?;
        if violations.is_empty() { Ok(()) } else { Err(Problem::Refused { violations }.into()) }
    }

    /// What it may use at most.
    pub fn limits(&self) -> Limits {
        self.restrictions.limits()
    }

    /// Where it stands.
    pub fn section(&self) -> &Section {
        &self.section
    }

    pub(super) fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }
}
