//! One pagemap and its pages, on their way into files.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use protobuf::Message;

use super::Place;
use crate::error::{Error, Result};
use crate::images::PagemapOf;
use crate::pages::pipe::Pipe;
use crate::pages::run::Run;
use crate::proto::images::pagemap as proto;

/// A pagemap that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    map: BufWriter<File>,
    map_path: PathBuf,
    pages: File,
    pages_path: PathBuf,
    /// How long the file with the pages is, and how much of it is of any use.
    length: u64,
    position: u64,
}

impl Writer {
    /// Begins `pagemap-*.img`. `pages` is the file for the pages, full of zeros, with its length.
    pub(super) fn new(
        place: &Place,
        of: PagemapOf,
        pages_id: u32,
        pages: (File, u64),
        pages_path: PathBuf,
    ) -> Result<Self> {
        let name = of.file_name();
        let map_path = place.path.join(&name);
        let map = BufWriter::new(place.create(&name)?);
        let (pages, length) = pages;
        let mut writer = Self { map, map_path, pages, pages_path, length, position: 0 };
        for word in of.file().0.header().into_iter().flatten() {
            writer.put(&word.to_le_bytes())?;
        }
        let mut head = proto::Pagemap_head::new();
        head.set_pages_id(pages_id);
        writer.message(&head)?;
        Ok(writer)
    }

    /// Adds an entry.
    pub(super) fn entry(&mut self, run: Run) -> Result<()> {
        let mut entry = proto::Pagemap_entry::new();
        entry.set_vaddr(run.address);
        // What CRIU 4.2 writes.
        entry.set_compat_nr_pages(0);
        entry.set_flags(run.flags);
        entry.set_nr_pages(run.pages);
        self.message(&entry)
    }

    fn message(&mut self, message: &impl Message) -> Result<()> {
        let bytes = message.write_to_bytes().map_err(|source| Error::Encode { source })?;
        // A few numbers.
        self.put(&(bytes.len() as u32).to_le_bytes())?;
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.map.write_all(bytes).map_err(Error::io("write", &self.map_path))
    }

    /// Writes what a pipe holds behind what is there.
    pub(super) fn splice(&mut self, pipe: &mut Pipe) -> Result<()> {
        let count = pipe.held() as u64;
        pipe.write_at(&self.pages, self.position).map_err(Error::io("write", &self.pages_path))?;
        self.position += count;
        Ok(())
    }

    /// Writes bytes behind what is there.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pages.write_all_at(bytes, self.position).map_err(Error::io("write", &self.pages_path))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Leaves zeros behind what is there: the file holds nothing else yet.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.position += bytes;
    }

    /// Everything is in the files. Where the one with the pages is too long, it and its proper length.
    pub(super) fn finish(mut self) -> Result<Option<(File, u64)>> {
        self.map.flush().map_err(Error::io("write", &self.map_path))?;
        if self.position > self.length {
            // Zeros at the end.
            self.pages.set_len(self.position).map_err(Error::io("write", &self.pages_path))?;
        }
        Ok((self.position < self.length).then_some((self.pages, self.position)))
    }
}
