//! crr.json: what a checkpoint directory says about itself beyond CRIU's images.
//!
//! `{"magic": "crr checkpoint", "version": 1, "checkpoint": {…}}`. Magic and version can be read alone, whatever the rest
//! has become; within one version an unknown key is an error, so that nothing recorded is silently left out of a restore.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::container::RecordedContainer;
use super::directory::Directory;
use super::host::RecordedHost;
use super::manifest::Manifest;
use super::options::RecordedOptions;
use super::remap::Remaps;
use super::sums::Sums;
use super::tree::{RecordedCgroup, RecordedTask};
use crate::error::{Error, RecordProblem, Result};
use crate::images::DumpStatistics;
use crate::request::NetworkLock;

/// The name of the record in a checkpoint directory.
pub const RECORD_NAME: &str = "crr.json";
const MAGIC: &str = "crr checkpoint";
/// The version that this crr writes, and the newest that it reads.
pub const RECORD_VERSION: u32 = 1;
/// A record of 2,000 tasks and 2,000 files takes about 1 MiB.
const SIZE_LIMIT: u64 = 32 << 20;

/// The content of crr.json.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of the crr that wrote it.
    pub crr: String,
    /// When, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// The options of the dump.
    pub options: RecordedOptions,
    /// Every task, the root first.
    pub tree: Vec<RecordedTask>,
    /// The machine it ran on.
    pub host: RecordedHost,
    /// The sets of cgroups that its tasks were in; a task names one by its place here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<Vec<RecordedCgroup>>,
    /// The container that the tree was; absent for a plain one. DIR then holds [`CONTAINER_FILES`](super::CONTAINER_FILES) too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<RecordedContainer>,
    /// The network lock that CRIU left in place for this checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_lock: Option<RecordedLock>,
    /// The files outside the images that a restore needs.
    #[serde(default, skip_serializing_if = "Manifest::is_empty")]
    pub files: Manifest,
    /// The files that the tree held open by a name that was gone while they had another.
    #[serde(default, skip_serializing_if = "Remaps::is_empty")]
    pub remaps: Remaps,
    /// The sums of the images; added after the dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<Sums>,
    /// What CRIU measured; added after the dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<RecordedStatistics>,
}

/// A network lock that stays after a dump that killed the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedLock {
    /// How it was made.
    pub method: NetworkLock,
    /// CRIU's run id, as in the inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The nftables table, such as `inet CRIU-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

impl RecordedLock {
    /// The lock of the dump with this run id. CRIU cuts the name of its table to 31 bytes, family included.
    pub fn new(method: NetworkLock, run_id: Option<String>) -> Self {
        let table = run_id.as_ref().filter(|_| method == NetworkLock::Nftables).map(|id| {
            let mut name = format!("inet CRIU-{id}");
            name.truncate(31);
            name
        });
        Self { method, run_id, table }
    }
}

/// What CRIU measured during the dump (its stats-dump), times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordedStatistics {
    /// Until all tasks stood still.
    pub freezing_us: u32,
    /// How long the tree stood still.
    pub frozen_us: u32,
    /// Getting at the memory, within the above.
    pub memdump_us: u32,
    /// Writing the memory.
    pub memwrite_us: u32,
    /// Pages of private memory looked at.
    pub scanned_pages: u64,
    /// Pages of private memory written.
    pub written_pages: u64,
    /// Pages left out because the parent images hold them.
    pub in_parent_pages: u64,
    /// Pages of shared memory written.
    pub shared_written_pages: u64,
}

impl From<DumpStatistics> for RecordedStatistics {
    fn from(measured: DumpStatistics) -> Self {
        let us = |time: std::time::Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self {
            freezing_us: us(measured.freezing),
            frozen_us: us(measured.frozen),
            memdump_us: us(measured.memory_dump),
            memwrite_us: us(measured.memory_write),
            scanned_pages: measured.pages_scanned,
            written_pages: measured.pages_written,
            in_parent_pages: measured.pages_skipped_parent,
            shared_written_pages: measured.shared_pages_written,
        }
    }
}

/// What can be read of every version.
#[derive(Deserialize)]
struct Head {
    magic: String,
    version: u32,
}

#[derive(Serialize)]
struct Written<'a> {
    magic: &'static str,
    version: u32,
    checkpoint: &'a Record,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(rename = "magic")]
    _magic: String,
    #[serde(rename = "version")]
    _version: u32,
    checkpoint: Record,
}

impl Record {
    /// A record of this crr and this moment, with nothing else in it.
    pub fn new(options: RecordedOptions, host: RecordedHost) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            crr: env!("CARGO_PKG_VERSION").into(),
            time_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            options,
            host,
            ..Self::default()
        }
    }

    /// Reads the bytes of a crr.json.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordProblem> {
        let malformed = |error: serde_json::Error| RecordProblem::Malformed(error.to_string());
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(RecordProblem::TooLarge(SIZE_LIMIT));
        }
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.magic != MAGIC {
            return Err(RecordProblem::Magic);
        }
        if head.version > RECORD_VERSION || head.version == 0 {
            return Err(RecordProblem::Version { found: head.version, known: RECORD_VERSION });
        }
        let read: Read = serde_json::from_slice(bytes).map_err(malformed)?;
        let record = read.checkpoint;
        match record.tree.iter().filter_map(|task| task.cgroups).find(|&set| set >= record.cgroups.len()) {
            Some(set) => Err(RecordProblem::Malformed(format!("a task is in cgroup set {set}, which is not there"))),
            None => Ok(record),
        }
    }

    /// The bytes of its crr.json.
    ///
    /// # Errors
    /// [`RecordProblem::TooLarge`] for what could not be read again.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordProblem> {
        let written = Written { magic: MAGIC, version: RECORD_VERSION, checkpoint: self };
        let mut bytes = serde_json::to_vec(&written).map_err(|error| RecordProblem::Malformed(error.to_string()))?;
        bytes.push(b'\n');
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(RecordProblem::TooLarge(SIZE_LIMIT));
        }
        Ok(bytes)
    }

    /// Writes it into a directory by way of another name: at every moment crr.json is whole, or not there.
    ///
    /// # Errors
    /// [`Error::Record`] if it would be too large to read again, [`Error::Io`] if it cannot be written.
    pub fn write(&self, directory: impl AsFd, path: &Path, flush: super::Flush) -> Result<()> {
        let bytes = self.to_bytes().map_err(|problem| Error::Record { path: path.join(RECORD_NAME), problem })?;
        Directory::new(directory.as_fd(), path).replace(RECORD_NAME, &bytes, flush == super::Flush::Disk)
    }

    /// Reads the crr.json of a directory; `None` if it has none, as one that the criu program wrote.
    ///
    /// # Errors
    /// [`Error::Record`] if it is damaged, too large or of a newer crr, [`Error::Io`] if it cannot be read.
    pub(crate) fn read(directory: &Directory<impl AsFd>) -> Result<Option<Self>> {
        let Some(bytes) = directory.read(OsStr::new(RECORD_NAME), SIZE_LIMIT)? else { return Ok(None) };
        let record = Self::parse(&bytes);
        record.map(Some).map_err(|problem| Error::Record { path: directory.path_of(RECORD_NAME), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Record {
        let mut record = Record::new(
            RecordedOptions { tcp: crate::request::Tcp::Close, ..Default::default() },
            RecordedHost::default(),
        );
        record.tree.push(RecordedTask { pid: 7, cgroups: Some(0), ..Default::default() });
        record.cgroups.push(vec![RecordedCgroup { hierarchy: 0, controllers: String::new(), path: "/a".into() }]);
        record.statistics = Some(RecordedStatistics { frozen_us: 9, ..Default::default() });
        record.network_lock = Some(RecordedLock { method: NetworkLock::Nftables, run_id: None, table: None });
        record
    }

    #[test]
    fn what_is_written_is_read_again() {
        let record = example();
        assert_eq!(Record::parse(&record.to_bytes().unwrap()).unwrap(), record);
    }

    #[test]
    fn the_version_comes_right_after_the_magic() {
        let text = String::from_utf8(example().to_bytes().unwrap()).unwrap();
        assert!(text.starts_with(r#"{"magic":"crr checkpoint","version":1,"#), "{text}");
    }

    #[test]
    fn a_newer_version_is_named_whatever_else_it_holds() {
        let problem = Record::parse(br#"{"magic":"crr checkpoint","version":7,"new":[{}]}"#).unwrap_err();
        assert_eq!(problem, RecordProblem::Version { found: 7, known: 1 });
        assert!(problem.to_string().contains("version 7"), "{problem}");
    }

    #[test]
    fn an_unknown_key_is_refused_wherever_it_is() {
        let text = String::from_utf8(example().to_bytes().unwrap()).unwrap();
        for key in [r#""checkpoint":{"#, r#""options":{"#, r#""host":{"#, r#""tree":[{"#, r#""statistics":{"#] {
            assert!(text.contains(key), "{key} in {text}");
            let changed = text.replacen(key, &format!(r#"{key}"added":1,"#), 1);
            let problem = Record::parse(changed.as_bytes()).unwrap_err();
            assert!(problem.to_string().contains("`added`"), "{key}: {problem}");
        }
    }

    #[test]
    fn another_json_is_not_a_record() {
        assert_eq!(Record::parse(br#"{"magic":"other","version":1}"#), Err(RecordProblem::Magic));
        assert!(matches!(Record::parse(b"[]"), Err(RecordProblem::Malformed(_))));
        assert!(matches!(Record::parse(&[b'['; 100_000]), Err(RecordProblem::Malformed(_))));
    }

    #[test]
    fn a_task_in_a_cgroup_set_that_is_not_there_is_refused() {
        let mut record = example();
        record.tree[0].cgroups = Some(1);
        assert!(matches!(Record::parse(&record.to_bytes().unwrap()), Err(RecordProblem::Malformed(_))));
    }

    #[test]
    fn a_record_above_the_limit_is_not_read_into_memory() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join(RECORD_NAME)).unwrap();
        file.set_len(SIZE_LIMIT + 1000).unwrap();
        let directory = Directory::new(std::fs::File::open(dir.path()).unwrap(), dir.path());
        let error = Record::read(&directory).unwrap_err();
        assert!(matches!(error, Error::Record { problem: RecordProblem::TooLarge(_), .. }), "{error}");
    }

    #[test]
    fn every_shorter_record_is_an_error() {
        let bytes = example().to_bytes().unwrap();
        for length in 0..bytes.len() - 1 {
            Record::parse(&bytes[..length]).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_read_or_refused(at in 0usize..400, byte: u8) {
            let mut bytes = example().to_bytes().unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(record) = Record::parse(&bytes) {
                prop_assert_eq!(Record::parse(&record.to_bytes().unwrap()).unwrap(), record);
            }
        }
    }
}
