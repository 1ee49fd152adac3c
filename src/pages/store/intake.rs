//! One transfer into a [`Store`].

use std::time::Instant;

use super::pagemap::Writer;
use super::{ENTRY_BYTES, Store, Stored};
use crate::error::{Error, Result};
use crate::escape::escape;
use crate::pages::block::{self, BLOCK};
use crate::pages::pipe::Pipe;
use crate::pages::record::{LENGTH, Record, shortened};
use crate::pages::run::{Run, page_size};
use crate::pages::stop::{For, is_pending, wait};
use crate::pages::transfer::chain;
use crate::pages::{Link, Problem, Stop};

/// How many files may be kept open to be shortened later.
const LONG_LIMIT: usize = 256;

pub(super) struct Intake<L> {
    store: Store,
    link: L,
    pipe: Option<Pipe>,
    block: Box<[u8]>,
    writer: Option<Writer>,
    /// The entry whose content arrives, and how much of that is awaited.
    run: Option<(Run, u64)>,
    /// How many bytes of content were announced and not taken from the link yet.
    owed: u64,
    /// Whether the source has ended the stream.
    is_over: bool,
}

impl<L: Link> Intake<L> {
    pub(super) fn new(store: Store, link: L) -> Self {
        let block = Box::default();
        Self { store, link, pipe: None, block, writer: None, run: None, owed: 0, is_over: false }
    }

    pub(super) fn all(&mut self) -> Result<()> {
        if self.link.is_plain() {
            self.pipe = Some(Pipe::new()?);
        }
        match self.record()? {
            Record::Start => {}
            record => return Err(unexpected(record)),
        }
        loop {
            match self.record()? {
                Record::Idle => self.send(&Record::Idle.encode())?,
                Record::Open(of) => {
                    self.finish_pagemap()?;
                    self.writer = Some(self.store.open(of)?);
                }
                Record::Entry(run) => self.entry(run)?,
                Record::Zero { bytes } => {
                    self.content(bytes)?;
                    self.store.stored.zero_pages += bytes / page_size();
                    self.writer()?.skip(bytes);
                }
                Record::Data { bytes, hash } => {
                    // Before anything is refused, so that it is known how much is to be passed over.
                    self.owed = bytes;
                    self.content(bytes)?;
                    match hash {
                        Some(hash) => self.copy_hashed(bytes, hash)?,
                        None if self.pipe.is_some() => self.splice()?,
                        None => self.copy()?,
                    }
                }
                Record::End { pages } => {
                    self.finish_pagemap()?;
                    let stored = self.store.stored.pages;
                    if pages != stored {
                        return Err(record(format!("{stored} pages and calls them {pages}")));
                    }
                    self.is_over = true;
                    return Ok(());
                }
                Record::Abort { length } => {
                    let mut reason = vec![0; length];
                    self.receive(&mut reason)?;
                    self.is_over = true;
                    return Err(Problem::Far { reason: escape(reason) }.into());
                }
                record => return Err(unexpected(record)),
            }
        }
    }

    /// Tells the source how it ended, and waits until the source has heard.
    pub(super) fn conclude(mut self, outcome: Result<()>) -> (L, Result<Stored>) {
        let outcome = match outcome {
            Ok(()) => self.succeed(),
            Err(error) => {
                // The first error is what matters: the source gives the link up if this does not reach it.
                let _ = self.fail(&error);
                Err(error)
            }
        };
        (self.link, outcome)
    }

    fn succeed(&mut self) -> Result<Stored> {
        self.send(&Record::Stored { pages: self.store.stored.pages }.encode())?;
        self.store.trim()?;
        Ok(self.store.stored)
    }

    fn fail(&mut self, error: &Error) -> Result<()> {
        if matches!(error, Error::Pages { source: Problem::Cut | Problem::Link { .. } }) {
            return Ok(());
        }
        // The one that was asked to stop has stopped; this ends by patience.
        self.store.stop = Stop::new()?;
        let reason = match self.is_over {
            // It knows.
            true => String::new(),
            false => chain(error),
        };
        let reason = shortened(&reason);
        let mut bytes = Record::Failed { length: reason.len() }.encode().to_vec();
        bytes.extend_from_slice(reason);
        self.send(&bytes)?;
        if matches!(error, Error::Pages { source } if source.has_broken_the_link()) {
            return Ok(());
        }
        // The source stops when it hears; what is on its way is passed over.
        let until = Instant::now() + self.store.patience.silence;
        while !self.is_over && Instant::now() < until {
            self.pass_over()?;
            match self.record()? {
                Record::Data { bytes, .. } => self.owed = bytes,
                Record::End { .. } => self.is_over = true,
                Record::Abort { length } => {
                    self.owed = length as u64;
                    self.pass_over()?;
                    self.is_over = true;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes what is owed, for nothing.
    fn pass_over(&mut self) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        if block.is_empty() {
            block = vec![0; BLOCK].into();
        }
        while self.owed > 0 {
            let length = block.len().min(usize::try_from(self.owed).unwrap_or(usize::MAX));
            self.receive(&mut block[..length])?;
            self.owed -= length as u64;
        }
        self.block = block;
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut Writer> {
        self.writer.as_mut().ok_or_else(|| record("pages before it has opened a pagemap".into()))
    }

    fn entry(&mut self, run: Run) -> Result<()> {
        self.must_be_complete()?;
        self.store.count(ENTRY_BYTES)?;
        self.writer()?.entry(run)?;
        self.run = Some((run, run.stored_bytes()));
        self.store.stored.pages += run.stored_bytes() / page_size();
        Ok(())
    }

    /// Counts content of the current entry.
    fn content(&mut self, bytes: u64) -> Result<()> {
        match &mut self.run {
            Some((_, awaited)) if *awaited >= bytes => *awaited -= bytes,
            _ => return Err(record(format!("{bytes} bytes of pages that belong nowhere"))),
        }
        self.store.count(bytes)
    }

    fn must_be_complete(&self) -> Result<()> {
        match self.run {
            Some((run, awaited)) if awaited > 0 => {
                Err(record(format!("{awaited} bytes too little of the pages at {:#x}", run.address)))
            }
            _ => Ok(()),
        }
    }

    fn finish_pagemap(&mut self) -> Result<()> {
        self.must_be_complete()?;
        self.run = None;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        if let Some(long) = writer.finish()? {
            self.store.long.push(long);
        }
        // Each is a descriptor.
        if self.store.long.len() > LONG_LIMIT {
            for (file, length) in self.store.long.drain(..) {
                file.set_len(length).map_err(Error::io("shorten a file in", &self.store.place.path))?;
            }
        }
        Ok(())
    }

    /// Content into the pages file, without looking at it.
    fn splice(&mut self) -> Result<()> {
        while self.owed > 0 {
            let (Some(pipe), Some(writer)) = (&mut self.pipe, &mut self.writer) else { return Ok(()) };
            match pipe.take_more(self.link.input(), self.owed) {
                Ok(0) => return Err(Problem::Cut.into()),
                Ok(count) => {
                    self.owed -= count as u64;
                    writer.splice(pipe)?;
                }
                Err(error) => self.await_input(error)?,
            }
        }
        Ok(())
    }

    fn copy(&mut self) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        if block.is_empty() {
            block = vec![0; BLOCK].into();
        }
        while self.owed > 0 {
            let length = block.len().min(usize::try_from(self.owed).unwrap_or(usize::MAX));
            self.receive(&mut block[..length])?;
            self.owed -= length as u64;
            self.writer()?.write(&block[..length])?;
        }
        self.block = block;
        Ok(())
    }

    fn copy_hashed(&mut self, bytes: u64, hash: u64) -> Result<()> {
        if bytes > BLOCK as u64 {
            return Err(record(format!("a hash of {bytes} bytes")));
        }
        let mut content = vec![0; bytes as usize];
        self.receive(&mut content)?;
        self.owed = 0;
        if block::hash(&content) != hash {
            let address = self.run.map_or(0, |(run, awaited)| run.address + run.stored_bytes() - awaited - bytes);
            return Err(Problem::Damaged { address, bytes }.into());
        }
        self.writer()?.write(&content)
    }

    /// The next record.
    fn record(&mut self) -> Result<Record> {
        let mut bytes = [0; LENGTH];
        self.receive(&mut bytes)?;
        Record::decode(&bytes).map_err(record)
    }

    /// Fills `into` from the link.
    fn receive(&mut self, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            match self.link.read(into) {
                Ok(0) => return Err(Problem::Cut.into()),
                Ok(count) => into = &mut into[count..],
                Err(error) => self.await_input(error)?,
            }
        }
        Ok(())
    }

    fn await_input(&mut self, source: std::io::Error) -> Result<()> {
        if !is_pending(&source) {
            return Err(Problem::Link { attempt: "read from", source }.into());
        }
        let limit = self.store.patience.silence;
        match wait([(self.link.input(), For::Input)], &self.store.stop, Instant::now() + limit)? {
            [true] => Ok(()),
            [false] => Err(Problem::Silence { limit }.into()),
        }
    }

    /// Sends an answer.
    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            let tried = match bytes.is_empty() {
                true => self.link.flush().map(|()| 0),
                false => self.link.write(bytes),
            };
            match tried {
                Ok(_) if bytes.is_empty() => return Ok(()),
                Ok(count) => bytes = &bytes[count..],
                Err(source) if !is_pending(&source) => {
                    return Err(Problem::Link { attempt: "write to", source }.into());
                }
                Err(_) => {
                    let limit = self.store.patience.silence;
                    let awaited = [(self.link.output(), For::Output)];
                    if wait(awaited, &self.store.stop, Instant::now() + limit)? == [false] {
                        return Err(Problem::Silence { limit }.into());
                    }
                }
            }
        }
    }
}

fn record(what: String) -> Error {
    Problem::Record { what }.into()
}

fn unexpected(found: Record) -> Error {
    record(format!("{found:?} where that means nothing"))
}
