//! `stats-dump` and `stats-restore`.

use std::time::Duration;

use super::record::Record;
use crate::proto::images::stats as proto;

/// What a dump took. CRIU counts microseconds in 32 bits: times wrap after 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpStatistics {
    /// Until all tasks stood still.
    pub freezing: Duration,
    /// From then to the end of the dump, the time in which the tree did not run.
    pub frozen: Duration,
    /// Taking memory out of the tasks; part of `frozen`.
    pub memory_dump: Duration,
    /// Writing it.
    pub memory_write: Duration,
    /// Pages of private memory looked at.
    pub pages_scanned: u64,
    /// Of these, pages unchanged since the parent images.
    pub pages_skipped_parent: u64,
    /// Of these, pages written.
    pub pages_written: u64,
    /// Of these, pages that may be sent later.
    pub pages_lazy: u64,
    /// Pages of shared memory looked at.
    pub shared_pages_scanned: u64,
    /// Of these, pages unchanged since the parent images.
    pub shared_pages_skipped_parent: u64,
    /// Of these, pages written.
    pub shared_pages_written: u64,
}

impl Record for DumpStatistics {
    type Message = proto::Stats_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        let dump = message.dump.0.ok_or("it has no dump statistics")?;
        Ok(Self {
            freezing: microseconds(dump.freezing_time()),
            frozen: microseconds(dump.frozen_time()),
            memory_dump: microseconds(dump.memdump_time()),
            memory_write: microseconds(dump.memwrite_time()),
            pages_scanned: dump.pages_scanned(),
            pages_skipped_parent: dump.pages_skipped_parent(),
            pages_written: dump.pages_written(),
            pages_lazy: dump.pages_lazy(),
            shared_pages_scanned: dump.shpages_scanned(),
            shared_pages_skipped_parent: dump.shpages_skipped_parent(),
            shared_pages_written: dump.shpages_written(),
        })
    }
}

/// What a restore took. CRIU counts microseconds in 32 bits: times wrap after 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreStatistics {
    /// Forking the tasks.
    pub forking: Duration,
    /// All of the restore.
    pub restoring: Duration,
    /// Pages compared with those of the parent process.
    pub pages_compared: u64,
    /// Of these, pages shared with it.
    pub pages_shared: u64,
    /// Pages restored.
    pub pages_restored: u64,
}

impl Record for RestoreStatistics {
    type Message = proto::Stats_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        let restore = message.restore.0.ok_or("it has no restore statistics")?;
        Ok(Self {
            forking: microseconds(restore.forking_time()),
            restoring: microseconds(restore.restore_time()),
            pages_compared: restore.pages_compared(),
            pages_shared: restore.pages_skipped_cow(),
            pages_restored: restore.pages_restored(),
        })
    }
}

fn microseconds(count: u32) -> Duration {
    Duration::from_micros(count.into())
}
