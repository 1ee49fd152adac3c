//! `mm-PID.img`: an address space.

use super::record::Record;
use crate::proto::images::{mm as proto, vma};

/// The address space of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The executable, an [`OpenFile`](super::OpenFile).
    pub executable: u32,
    /// Its mappings, sorted by address.
    pub mappings: Vec<Mapping>,
}

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// `PROT_` flags.
    pub protection: u32,
    /// `MAP_` flags.
    pub flags: u32,
    /// CRIU's `VMA_` flags.
    pub status: u32,
    /// What the numbers of [`file`](Self::file) and [`shared_memory`](Self::shared_memory) are.
    object: u64,
}

impl Mapping {
    const FILE: u32 = (1 << 6) | (1 << 7);
    const SHARED_MEMORY: u32 = 1 << 8;
    /// System V shared memory, which is in images of its own.
    const SYSTEM_V: u32 = 1 << 10;
    /// The ring of asynchronous I/O, which is made anew.
    const AIO_RING: u32 = 1 << 13;

    /// The mapped file, an [`OpenFile`](super::OpenFile).
    pub fn file(&self) -> Option<u32> {
        let wanted = self.status & Self::FILE != 0 && self.status & Self::AIO_RING == 0;
        wanted.then(|| u32::try_from(self.object).ok()).flatten()
    }

    /// The shared anonymous memory mapped: the number of its pagemap.
    pub fn shared_memory(&self) -> Option<u32> {
        let wanted = self.status & Self::SHARED_MEMORY != 0 && self.status & (Self::SYSTEM_V | Self::AIO_RING) == 0;
        wanted.then(|| u32::try_from(self.object).ok()).flatten()
    }
}

impl Record for Memory {
    type Message = proto::Mm_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            executable: message.exe_file_id(),
            mappings: message.vmas.iter().map(mapping).collect::<Result<_, _>>()?,
        })
    }
}

fn mapping(message: &vma::Vma_entry) -> Result<Mapping, String> {
    let (start, end) = (message.start(), message.end());
    if start > end {
        return Err(format!("the mapping {start:#x}-{end:#x} ends before it begins"));
    }
    Ok(Mapping {
        start,
        end,
        offset: message.pgoff(),
        protection: message.prot(),
        flags: message.flags(),
        status: message.status(),
        object: message.shmid(),
    })
}
