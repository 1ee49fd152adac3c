//! The peers that this host knows.

use std::ffi::OsStr;

use nix::dir::Type;
use serde::Deserialize;

use super::configuration::{Configuration, believed, distrust, is_plain, lock, make, read};
use super::{Address, Fingerprint, HostKey, Name, Problem};
use crate::checkpoint::Directory;
use crate::error::{Error, Result};

/// The directory in the [`Configuration`].
const DIRECTORY: &str = "peers";
const SUFFIX: &str = ".toml";
/// Of one file.
const LIMIT: u64 = 4096;
/// More peers than this are not looked at.
const PEERS_LIMIT: usize = 4096;

/// A peer that is enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called here.
    pub name: Name,
    /// By which key it is known.
    pub fingerprint: Fingerprint,
    /// Where it listens.
    pub address: Option<Address>,
}

/// What a file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    fingerprint: String,
    #[serde(default)]
    address: Option<String>,
}

/// All peers, sorted by name.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// Those that can be let in.
    pub peers: Vec<Peer>,
    /// Why others cannot: what is wrong with their files.
    pub unread: Vec<Error>,
}

/// The peers of this host. Nothing is kept in memory: each question reads the files.
#[derive(Clone, Debug)]
pub struct Enrolled {
    configuration: Configuration,
}

impl Enrolled {
    /// Those of this configuration.
    pub fn new(configuration: Configuration) -> Self {
        Self { configuration }
    }

    /// Every peer.
    ///
    /// # Errors
    /// [`Problem::Untrusted`] when others may write the directory, [`Error::Io`] when it cannot be read. What is wrong with
    /// one file is in [`Listing::unread`], and that peer is not let in.
    pub fn all(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let Some(directory) = self.directory()? else { return Ok(listing) };
        for entry in directory.entries_up_to(PEERS_LIMIT)? {
            let name = entry.os_name().to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
            // Such as what an interrupted addition left, or an editor.
            let Some(name) = name else { continue };
            match self.read(&directory, &name) {
                Ok(Some(peer)) => listing.peers.push(peer),
                Ok(None) => {}
                Err(error) => listing.unread.push(error),
            }
        }
        listing.peers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listing)
    }

    /// The peer of this name.
    ///
    /// # Errors
    /// [`Problem::NoSuchPeer`], and what is wrong with its file.
    pub fn named(&self, name: &Name) -> Result<Peer> {
        let found = self.directory()?.map_or(Ok(None), |directory| self.read(&directory, name))?;
        found.ok_or_else(|| Problem::NoSuchPeer { name: name.clone() }.into())
    }

    /// The peer with this key. One that two files enrol is nobody's: which policy it has would be chance.
    ///
    /// # Errors
    /// As [`all`](Self::all), and [`Problem::FingerprintTaken`].
    pub fn with(&self, fingerprint: &Fingerprint) -> Result<Option<Peer>> {
        let mut found = self.all()?.peers.into_iter().filter(|peer| peer.fingerprint == *fingerprint);
        match (found.next(), found.next()) {
            (Some(peer), Some(_)) => {
                Err(Problem::FingerprintTaken { fingerprint: peer.fingerprint, name: peer.name }.into())
            }
            (first, _) => Ok(first),
        }
    }

    /// Whether this peer is enrolled still, by the same name and key. To be asked before each message of a connection that
    /// starts something; what cannot be read says no.
    pub fn still(&self, peer: &Peer) -> bool {
        self.named(&peer.name).is_ok_and(|now| now.fingerprint == peer.fingerprint)
    }

    /// Enrols a peer.
    ///
    /// # Errors
    /// [`Problem::NameTaken`], [`Problem::FingerprintTaken`], [`Problem::Own`]; nothing is changed then.
    pub fn add(&self, peer: &Peer) -> Result<()> {
        let above = self.configuration.open_or_make()?;
        make(&above, OsStr::new(DIRECTORY))?;
        let directory =
            self.directory()?.ok_or(Error::Bug { what: "the directory of peers that was just made is gone" })?;
        let _lock = lock(&directory)?;
        if HostKey::open(&self.configuration)?.is_some_and(|key| key.fingerprint() == peer.fingerprint) {
            return Err(Problem::Own { fingerprint: peer.fingerprint }.into());
        }
        if let Some(now) = self.read(&directory, &peer.name)? {
            return Err(Problem::NameTaken { name: now.name, fingerprint: now.fingerprint }.into());
        }
        let Listing { peers, unread } = self.all()?;
        // It may hold this very key.
        if let Some(error) = unread.into_iter().next() {
            return Err(error);
        }
        if let Some(now) = peers.into_iter().find(|now| now.fingerprint == peer.fingerprint) {
            return Err(Problem::FingerprintTaken { fingerprint: now.fingerprint, name: now.name }.into());
        }
        let address = peer.address.as_ref().map(|address| format!("address = \"{address}\"\n")).unwrap_or_default();
        let content = format!("fingerprint = \"{}\"\n{address}", peer.fingerprint);
        directory.replace(&format!("{}{SUFFIX}", peer.name), content.as_bytes(), true)
    }

    /// Takes a peer off the list, be its file readable or not. From then on it is not let in, and [`still`](Self::still) says
    /// no to what connections it has.
    ///
    /// # Errors
    /// [`Problem::NoSuchPeer`].
    pub fn remove(&self, name: &Name) -> Result<()> {
        let missing = || Error::from(Problem::NoSuchPeer { name: name.clone() });
        let directory = self.directory()?.ok_or_else(missing)?;
        let _lock = lock(&directory)?;
        let file = format!("{name}{SUFFIX}");
        directory.stat(OsStr::new(&file))?.filter(is_plain).ok_or_else(missing)?;
        directory.unlink(OsStr::new(&file), Type::File)?;
        directory.flush()
    }

    fn directory(&self) -> Result<Option<Directory>> {
        let Some(above) = self.configuration.open()? else { return Ok(None) };
        if above.stat(OsStr::new(DIRECTORY))?.is_none() {
            return Ok(None);
        }
        let directory = above.directory(OsStr::new(DIRECTORY))?;
        let stat =
            nix::sys::stat::fstat(&directory).map_err(|errno| Error::io("look at", directory.path())(errno.into()))?;
        believed(directory.path(), distrust(&stat, directory.path()).into_iter().collect())?;
        Ok(Some(directory))
    }

    fn read(&self, directory: &Directory, name: &Name) -> Result<Option<Peer>> {
        let file = format!("{name}{SUFFIX}");
        let Some((text, _)) = read(directory, OsStr::new(&file), LIMIT)? else { return Ok(None) };
        let damaged = |why: String| Problem::Damaged { path: directory.path_of(&file), why };
        let entry: Entry = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        let fingerprint = entry.fingerprint.parse().map_err(|error: Problem| damaged(error.to_string()))?;
        let address = entry.address.map(|address| address.parse()).transpose();
        let address = address.map_err(|error: Problem| damaged(error.to_string()))?;
        Ok(Some(Peer { name: name.clone(), fingerprint, address }))
    }
}

#[cfg(test)]
mod tests;
