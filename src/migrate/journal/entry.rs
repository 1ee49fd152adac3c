//! What a record says.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, RecordProblem, Result};
use crate::migrate::machine::{Boot, Record as _, SourceRecord, TargetRecord};
use crate::wire::Id;

const MAGIC: &str = "crr migration";
/// The version that this crr writes, and the only one that it reads.
const VERSION: u32 = 1;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A record of a migration: where it is, and what a restart needs to finish it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The migration.
    pub id: Id,
    /// Which side this is, and where it is.
    pub state: State,
    /// Since when, in milliseconds since 1970 (UTC).
    pub since_ms: u64,
    /// Why it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The other side, as `--to` names it, or as it has named itself.
    pub peer: String,
    /// The boot of this host in which it was written.
    pub boot_id: String,
    /// The version of the crr that wrote it.
    pub crr: String,
    /// The tree's tasks, the root first.
    #[serde(default)]
    pub tasks: Vec<RecordedTask>,
    /// The cgroups they were in.
    #[serde(default)]
    pub cgroups: Vec<TaskCgroup>,
    /// SO_REUSEADDR of their TCP sockets, which repair mode changes.
    #[serde(default)]
    pub reuse: Vec<RecordedReuse>,
    /// The tables of nftables that were made for it, by us and by CRIU.
    #[serde(default)]
    pub tables: Vec<String>,
    /// The cgroup in which the tree is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<PathBuf>,
    /// The addresses that go with it.
    #[serde(default)]
    pub addresses: Vec<RecordedAddress>,
    /// Where its images are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
}

/// Which side a record is of, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The side that had the tree.
    Source(SourceRecord),
    /// The side that will have it.
    Target(TargetRecord),
}

/// A task, by what no other task has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedTask {
    /// Its PID.
    pub pid: i32,
    /// When it was started, in ticks since boot: field 22 of /proc/PID/stat.
    pub start: u64,
}

/// The cgroup of a task in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCgroup {
    /// The task.
    pub pid: i32,
    /// The directory of the cgroup.
    pub path: PathBuf,
}

/// SO_REUSEADDR of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedReuse {
    /// A task that has it open.
    pub pid: i32,
    /// By this number.
    pub fd: i32,
    /// The option's value.
    pub value: i32,
}

/// An address that goes with the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedAddress {
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are the network's.
    pub prefix: u8,
    /// The device of this host.
    pub device: String,
}

#[derive(Serialize)]
struct Written<'a> {
    magic: &'static str,
    version: u32,
    /// BLAKE3 of the entry's JSON: a torn record is not taken for another.
    sum: String,
    migration: &'a serde_json::value::RawValue,
}

/// What can be read of every version.
#[derive(Deserialize)]
struct Head {
    magic: String,
    version: u32,
}

#[derive(Deserialize)]
struct Read<'a> {
    sum: String,
    #[serde(borrow)]
    migration: &'a serde_json::value::RawValue,
}

impl Entry {
    /// A record of a migration with `peer` that begins now.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel does not tell its boot id.
    pub fn new(id: Id, state: State, peer: impl Into<String>) -> Result<Self> {
        Ok(Self {
            id,
            state,
            since_ms: now_ms(),
            reason: None,
            peer: peer.into(),
            boot_id: boot_id()?,
            crr: env!("CARGO_PKG_VERSION").into(),
            tasks: Vec::new(),
            cgroups: Vec::new(),
            reuse: Vec::new(),
            tables: Vec::new(),
            hold: None,
            addresses: Vec::new(),
            images: None,
        })
    }

    /// The same with another state, from now on, in this boot.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel does not tell its boot id.
    pub fn now(&self, state: State) -> Result<Self> {
        Ok(Self { state, since_ms: now_ms(), boot_id: boot_id()?, ..self.clone() })
    }

    /// Whether what it names can still be there.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel does not tell its boot id.
    pub fn boot(&self) -> Result<Boot> {
        Ok(if boot_id()? == self.boot_id { Boot::Same } else { Boot::Another })
    }

    /// Whether no other migration of the same tree or address may begin here as long as it stands.
    pub fn touches_tree(&self) -> bool {
        match self.state {
            State::Source(record) => record.touches_tree(),
            State::Target(record) => record.touches_tree(),
        }
    }

    /// The record in the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordProblem> {
        let malformed = |error: serde_json::Error| RecordProblem::Malformed(error.to_string());
        if bytes.len() as u64 > super::SIZE_LIMIT {
            return Err(RecordProblem::TooLarge(super::SIZE_LIMIT));
        }
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.magic != MAGIC {
            return Err(RecordProblem::Magic);
        }
        if head.version != VERSION {
            return Err(RecordProblem::Version { found: head.version, known: VERSION });
        }
        let read: Read<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
        if blake3::hash(read.migration.get().as_bytes()).to_hex().as_str() != read.sum {
            return Err(RecordProblem::Malformed("its sum is not that of what it says".into()));
        }
        serde_json::from_str(read.migration.get()).map_err(malformed)
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// [`RecordProblem::TooLarge`] for what could not be read again.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordProblem> {
        let malformed = |error: serde_json::Error| RecordProblem::Malformed(error.to_string());
        let migration = serde_json::value::to_raw_value(self).map_err(malformed)?;
        let sum = blake3::hash(migration.get().as_bytes()).to_hex().to_string();
        let written = Written { magic: MAGIC, version: VERSION, sum, migration: &migration };
        let mut bytes = serde_json::to_vec(&written).map_err(malformed)?;
        bytes.push(b'\n');
        match bytes.len() as u64 > super::SIZE_LIMIT {
            true => Err(RecordProblem::TooLarge(super::SIZE_LIMIT)),
            false => Ok(bytes),
        }
    }
}

fn boot_id() -> Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID).map_err(Error::io("read", BOOT_ID))?.trim().into())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
