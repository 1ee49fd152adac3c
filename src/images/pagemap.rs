//! `pagemap-PID.img` and `pagemap-shmem-ID.img`: which pages are stored, and where.

use std::fs::File;
use std::io::{BufReader, Read};

use super::Kind;
use super::record::Reader;
use crate::error::{ImageFault, Result};
use crate::proto::images::pagemap as proto;

/// Whose pagemap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PagemapOf {
    /// The task with this PID.
    Task(u32),
    /// Shared memory: [`Mapping::shared_memory`](super::Mapping::shared_memory) or
    /// [`Memfd::shared_memory`](super::Memfd::shared_memory).
    Shared(u32),
}

impl PagemapOf {
    pub(crate) fn file(self) -> (Kind, u32) {
        match self {
            Self::Task(pid) => (Kind::Pagemap, pid),
            Self::Shared(id) => (Kind::SharedPagemap, id),
        }
    }

    /// The name of the file.
    pub fn file_name(self) -> String {
        let (kind, id) = self.file();
        kind.file_name(id)
    }
}

/// Neighbouring pages in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageRange {
    /// Address of the first, in bytes (of shared memory the offset).
    pub address: u64,
    /// How many, in pages.
    pub pages: u64,
    /// Where they are.
    pub place: Place,
}

/// Where pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the pages file, after those of the ranges before.
    Stored,
    /// In the parent images, at the same address of the pagemap of the same name.
    Parent,
    /// Nowhere in the images: a page server was to send them.
    Lazy,
}

/// A pagemap, read range by range. Ends after the first error.
#[derive(Debug)]
pub struct Pagemap<R = BufReader<File>> {
    reader: Option<Reader<R>>,
    pages_id: u32,
    /// The first address after the last range.
    reached: u64,
}

/// The unit of addresses here: every page size that Linux has is a multiple of it.
const ADDRESS_UNIT: u64 = 4096;

impl<R: Read> Pagemap<R> {
    pub(super) fn new(mut reader: Reader<R>) -> Result<Self> {
        let head: proto::Pagemap_head = reader.message()?.ok_or_else(|| reader.fault(ImageFault::NoRecord))?;
        Ok(Self { pages_id: head.pages_id(), reader: Some(reader), reached: 0 })
    }

    /// The N of the pages-N.img that holds the stored pages.
    pub fn pages_id(&self) -> u32 {
        self.pages_id
    }

    fn range(&mut self) -> Result<Option<PageRange>> {
        let Some(reader) = self.reader.as_mut() else { return Ok(None) };
        let Some(entry) = reader.message::<proto::Pagemap_entry>()? else { return Ok(None) };
        let range = PageRange {
            address: entry.vaddr(),
            // CRIU 4.2 moved the number to a field of 64 bits.
            pages: entry.nr_pages.unwrap_or_else(|| entry.compat_nr_pages().into()),
            place: place(&entry),
        };
        let end = range.pages.checked_mul(ADDRESS_UNIT).and_then(|bytes| range.address.checked_add(bytes));
        match end {
            Some(end) if range.address >= self.reached => self.reached = end,
            Some(_) => return Err(reader.undecodable("pagemap_entry", "it lies before the one before it")),
            None => return Err(reader.undecodable("pagemap_entry", "it goes beyond the address space")),
        }
        Ok(Some(range))
    }
}

fn place(entry: &proto::Pagemap_entry) -> Place {
    const PARENT: u32 = 1;
    const LAZY: u32 = 2;
    const PRESENT: u32 = 4;
    let flags = entry.flags();
    if entry.in_parent() || flags & PARENT != 0 {
        Place::Parent
    } else if flags & PRESENT == 0 && flags & LAZY != 0 {
        Place::Lazy
    } else {
        // Images of old had no flags: what is not in the parent is stored.
        Place::Stored
    }
}

impl<R: Read> Iterator for Pagemap<R> {
    type Item = Result<PageRange>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.range().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.reader = None;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(flags: Option<u32>, in_parent: Option<bool>) -> Place {
        place(&proto::Pagemap_entry { flags, in_parent, ..Default::default() })
    }

    #[test]
    fn flags_and_their_old_form_say_where_pages_are() {
        assert_eq!(entry(None, None), Place::Stored);
        assert_eq!(entry(Some(0), None), Place::Stored);
        assert_eq!(entry(Some(4), None), Place::Stored);
        assert_eq!(entry(Some(6), None), Place::Stored);
        assert_eq!(entry(Some(2), None), Place::Lazy);
        assert_eq!(entry(Some(1), None), Place::Parent);
        assert_eq!(entry(Some(3), None), Place::Parent);
        assert_eq!(entry(None, Some(true)), Place::Parent);
    }
}
