//! Which pages: the unit that CRIU sends memory in.

use std::sync::LazyLock;

use crate::images::PagemapOf;

/// The pages are in the parent images.
pub(super) const PARENT: u32 = 1;
/// The content of the pages follows.
pub(super) const PRESENT: u32 = 4;
/// Every flag that CRIU knows: parent, lazy, present.
const KNOWN: u32 = 0b111;

/// The size of a page on this host, in bytes.
pub(super) fn page_size() -> u64 {
    static SIZE: LazyLock<u64> = LazyLock::new(|| rustix::param::page_size() as u64);
    *SIZE
}

/// Neighbouring pages of one pagemap: one entry of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Address of the first, in bytes (of shared memory the offset).
    pub(super) address: u64,
    /// How many.
    pub(super) pages: u64,
    /// As in the pagemap.
    pub(super) flags: u32,
}

impl Run {
    /// A run of a stream, checked.
    pub(super) fn new(address: u64, pages: u64, flags: u32) -> Result<Self, String> {
        let end = pages.checked_mul(page_size()).and_then(|bytes| address.checked_add(bytes));
        match end {
            _ if pages == 0 => Err(format!("a run of no pages at {address:#x}")),
            _ if flags & !KNOWN != 0 => Err(format!("pages with the unknown flags {flags:#x}")),
            _ if flags & PRESENT != 0 && flags & PARENT != 0 => Err("pages both here and in the parent".into()),
            _ if address % page_size() != 0 => Err(format!("a run at {address:#x}, which is no page's address")),
            None => Err(format!("{pages} pages at {address:#x}, which is beyond the address space")),
            Some(_) => Ok(Self { address, pages, flags }),
        }
    }

    /// How many bytes of content it has.
    pub(super) fn stored_bytes(&self) -> u64 {
        if self.flags & PRESENT == 0 { 0 } else { self.pages * page_size() }
    }
}

/// The number that CRIU names a pagemap by, and which it may go by in files.
pub(super) fn pagemap_of(number: u64) -> Result<PagemapOf, String> {
    let nonsense = || format!("a pagemap called {number:#x}, which no CRIU has");
    let id = u32::try_from(number >> 8).map_err(|_| nonsense())?;
    match number & 0xff {
        // The others are of a CRIU of old.
        1 | 10 | 11 | 16 | 17 => Ok(PagemapOf::Task(id)),
        2 | 27 | 28 | 29 | 32 | 33 | 34 => Ok(PagemapOf::Shared(id)),
        _ => Err(nonsense()),
    }
}

/// The reverse of [`pagemap_of`].
pub(super) fn number_of(of: PagemapOf) -> u64 {
    match of {
        PagemapOf::Task(id) => u64::from(id) << 8 | 1,
        PagemapOf::Shared(id) => u64::from(id) << 8 | 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_no_address_space_has_is_refused() {
        for (address, pages, flags) in
            [(0, 0, 4), (4095, 1, 4), (0, 1, 8), (0, 1, 5), (0, u64::MAX, 4), (!4095, 1, 4), (4096, u64::MAX / 4096, 4)]
        {
            assert!(Run::new(address, pages, flags).is_err(), "{address:#x} {pages} {flags}");
        }
        assert_eq!(Run::new(4096, 2, 6).map(|run| run.stored_bytes()), Ok(2 * page_size()));
        assert_eq!(Run::new(4096, 2, 1).map(|run| run.stored_bytes()), Ok(0));
    }

    #[test]
    fn every_pagemap_has_one_number() {
        for of in [PagemapOf::Task(1), PagemapOf::Task(u32::MAX), PagemapOf::Shared(0), PagemapOf::Shared(77)] {
            assert_eq!(pagemap_of(number_of(of)), Ok(of));
        }
        assert_eq!(pagemap_of(5 << 8 | 17), Ok(PagemapOf::Task(5)));
        for number in [0, 3, 0x1_00, u64::MAX, 1 << 40 | 1] {
            assert!(pagemap_of(number).is_err(), "{number:#x}");
        }
    }
}
