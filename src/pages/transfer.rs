//! One transfer of a [`Relay`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::answer::{Answer, Verdict};
use super::block::{self, BLOCK};
use super::pipe::Pipe;
use super::protocol::{Decoder, Request};
use super::record::{Record, shortened};
use super::run::{Run, page_size};
use super::stop::{For, is_pending, wait};
use super::{Link, Patience, Problem, Relay, Sent, Stop};
use crate::error::Result;
use crate::images::PagemapOf;

pub(super) struct Transfer<L> {
    /// `None`: given up.
    criu: Option<OwnedFd>,
    decoder: Decoder,
    link: L,
    stop: Stop,
    patience: Patience,
    has_hashes: bool,
    way: Way,
    answer: Answer,
    /// What the far end has said at last; nothing more is read from the link then.
    stored: Option<u64>,
    has_failed: bool,
    /// Since when the far end owes an answer to a record that asks for one.
    unanswered: Option<Instant>,
    /// How many bytes of content were announced and not yet sent.
    owed: u64,
    open: Option<PagemapOf>,
    sent: Sent,
}

/// How pages go from CRIU's socket to the link.
enum Way {
    Unknown,
    Spliced(Pipe),
    Copied(Box<[u8]>),
}

impl<L: Link> Transfer<L> {
    pub(super) fn new(relay: Relay, link: L) -> Self {
        let Relay { criu, stop, patience, otherwise, has_hashes } = relay;
        Self {
            criu: Some(criu),
            decoder: Decoder::new(otherwise),
            link,
            stop,
            patience,
            has_hashes,
            way: Way::Unknown,
            answer: Answer::new(),
            stored: None,
            has_failed: false,
            unanswered: None,
            owed: 0,
            open: None,
            sent: Sent::default(),
        }
    }

    pub(super) fn into_link(self) -> L {
        self.link
    }

    pub(super) fn all(&mut self) -> Result<Sent> {
        self.way = match self.link.is_plain() && !self.has_hashes {
            true => Way::Spliced(Pipe::new()?),
            false => Way::Copied(vec![0; BLOCK].into()),
        };
        self.send(&Record::Start.encode())?;
        loop {
            match self.request()? {
                Request::Open { of, is_asked } => {
                    self.open(of)?;
                    if is_asked {
                        self.reply(&[0])?;
                    }
                }
                Request::Parent(_) => self.reply(&0_i32.to_ne_bytes())?,
                Request::Pages(of, run) => {
                    if self.open != Some(of) {
                        self.open(of)?;
                    }
                    self.pages(run)?;
                }
                Request::Close => {
                    self.close()?;
                    self.reply(&0_i32.to_ne_bytes())?;
                    return Ok(self.sent);
                }
            }
        }
    }

    fn open(&mut self, of: PagemapOf) -> Result<()> {
        self.open = Some(of);
        self.sent.pagemaps += 1;
        self.send(&Record::Open(of).encode())
    }

    /// The next request.
    fn request(&mut self) -> Result<Request> {
        loop {
            let room = self.decoder.room();
            match rustix::io::read(criu(self.criu.as_ref())?, room) {
                Ok(0) => return Err(Problem::CriuGone.into()),
                Ok(count) => match self.decoder.filled(count) {
                    Ok(Some(request)) => return Ok(request),
                    Ok(None) => {}
                    Err(what) => return Err(Problem::Criu { what }.into()),
                },
                Err(errno) => self.await_criu("read from", errno)?,
            }
        }
    }

    /// Tells CRIU something. It waits for that, so there is room for it.
    fn reply(&self, bytes: &[u8]) -> Result<()> {
        const ATTEMPT: &str = "write to";
        match rustix::io::write(criu(self.criu.as_ref())?, bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(Problem::Socket { attempt: ATTEMPT, source: std::io::ErrorKind::WriteZero.into() }.into()),
            Err(errno) => Err(Problem::Socket { attempt: ATTEMPT, source: errno.into() }.into()),
        }
    }

    /// Sends a run and what it holds.
    fn pages(&mut self, run: Run) -> Result<()> {
        let bytes = run.stored_bytes();
        self.sent.pages += bytes / page_size();
        match &self.way {
            Way::Spliced(_) if bytes > 0 => {
                let mut records = Record::Entry(run).encode().to_vec();
                records.extend(Record::Data { bytes, hash: None }.encode());
                self.send(&records)?;
                self.owed = bytes;
                self.splice()
            }
            Way::Copied(_) if bytes > 0 => {
                self.write(&Record::Entry(run).encode())?;
                self.copy(bytes)
            }
            _ => self.send(&Record::Entry(run).encode()),
        }
    }

    /// Passes on what is owed without looking at it.
    fn splice(&mut self) -> Result<()> {
        while self.owed > 0 {
            let Way::Spliced(pipe) = &mut self.way else { return Ok(()) };
            if pipe.held() == 0 {
                match pipe.take_more(criu(self.criu.as_ref())?, self.owed) {
                    Ok(0) => return Err(Problem::CriuGone.into()),
                    Ok(_) => {}
                    Err(error) => {
                        self.await_criu("take pages from", error)?;
                        continue;
                    }
                }
            }
            let is_more = self.owed > pipe.held() as u64;
            match pipe.give(self.link.output(), is_more) {
                Ok(count) => self.owed -= count as u64,
                Err(error) => self.await_room(error)?,
            }
        }
        Ok(())
    }

    /// Passes on the next bytes of CRIU's but for pages of zeros.
    fn copy(&mut self, bytes: u64) -> Result<()> {
        let Way::Copied(mut block) = std::mem::replace(&mut self.way, Way::Unknown) else { return Ok(()) };
        let mut left = bytes;
        while left > 0 {
            let length = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.fill(&mut block[..length])?;
            for (is_zero, place) in block::stretches(&block[..length], page_size() as usize) {
                let (content, bytes) = (&block[place.clone()], place.len() as u64);
                if is_zero {
                    self.sent.zero_pages += bytes / page_size();
                    self.write(&Record::Zero { bytes }.encode())?;
                    continue;
                }
                let hash = self.has_hashes.then(|| block::hash(content));
                self.write(&Record::Data { bytes, hash }.encode())?;
                self.owed = bytes;
                self.write_content(content)?;
            }
            self.flush()?;
            left -= length as u64;
        }
        self.way = Way::Copied(block);
        Ok(())
    }

    /// Reads from CRIU until `into` is full.
    fn fill(&mut self, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            match rustix::io::read(criu(self.criu.as_ref())?, &mut *into) {
                Ok(0) => return Err(Problem::CriuGone.into()),
                Ok(count) => into = &mut into[count..],
                Err(errno) => self.await_criu("read pages from", errno)?,
            }
        }
        Ok(())
    }

    /// Ends the stream, and waits until the far end says that it has everything.
    fn close(&mut self) -> Result<()> {
        let pages = self.sent.pages;
        self.send(&Record::End { pages }.encode())?;
        let mut until = Instant::now() + self.patience.silence;
        while self.stored.is_none() {
            let [heard] = wait([(self.link.input(), For::Input)], &self.stop, until)?;
            if !heard {
                return Err(Problem::Silence { limit: self.patience.silence }.into());
            }
            self.hear()?;
            until = Instant::now() + self.patience.silence;
        }
        match self.stored {
            Some(stored) if stored == pages => Ok(()),
            stored => {
                let what = format!("that it has {} pages of {pages}", stored.unwrap_or_default());
                Err(Problem::Record { what }.into())
            }
        }
    }

    /// Lets CRIU go, and ends the stream so that the link can be used on. `error` is what the far end is told.
    pub(super) fn give_up(&mut self, error: &crate::Error) -> Result<()> {
        // First of all: the tree stands still until CRIU sees this.
        self.criu = None;
        match error {
            crate::Error::Pages { source } if source.has_broken_the_link() => return Ok(()),
            _ if self.stored.is_some() => return Ok(()),
            _ => {}
        }
        // The one that was asked to stop has stopped; this ends by patience.
        self.stop = Stop::new()?;
        let zeros = vec![0; BLOCK];
        while self.owed > 0 {
            let length = zeros.len().min(usize::try_from(self.owed).unwrap_or(usize::MAX));
            self.write_content(&zeros[..length])?;
        }
        let reason = chain(error);
        let reason = shortened(&reason);
        let mut bytes = Record::Abort { length: reason.len() }.encode().to_vec();
        bytes.extend_from_slice(reason);
        self.send(&bytes)?;
        let until = Instant::now() + self.patience.silence;
        while !self.has_failed {
            let [heard] = wait([(self.link.input(), For::Input)], &self.stop, until)?;
            if !heard {
                return Err(Problem::Silence { limit: self.patience.silence }.into());
            }
            match self.hear() {
                Err(crate::Error::Pages { source: Problem::Far { .. } }) => {}
                heard => heard?,
            }
        }
        Ok(())
    }

    /// Waits for CRIU after an attempt that it was not ready for.
    fn await_criu(&mut self, attempt: &'static str, error: impl Into<std::io::Error>) -> Result<()> {
        let source = error.into();
        if !is_pending(&source) {
            return Err(Problem::Socket { attempt, source }.into());
        }
        let until = Instant::now() + self.patience.idle;
        let awaited = [(criu(self.criu.as_ref())?, For::Input), (self.link.input(), For::Input)];
        let [is_ready, heard] = wait(awaited, &self.stop, until)?;
        if heard {
            self.hear()?;
        }
        match self.unanswered {
            Some(since) if since.elapsed() > self.patience.silence => {
                Err(Problem::Silence { limit: self.patience.silence }.into())
            }
            // Between records only.
            _ if !is_ready && !heard && self.owed == 0 => {
                self.unanswered.get_or_insert_with(Instant::now);
                self.send(&Record::Idle.encode())
            }
            _ => Ok(()),
        }
    }

    /// Writes all of `bytes` and lets them go.
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        self.flush()
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.link.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.await_room(error)?,
            }
        }
        Ok(())
    }

    fn write_content(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.link.write(bytes) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.owed -= count as u64;
                }
                Err(error) => self.await_room(error)?,
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while let Err(error) = self.link.flush() {
            self.await_room(error)?;
        }
        Ok(())
    }

    /// Waits until the link takes more, after an attempt to write that failed.
    fn await_room(&mut self, source: std::io::Error) -> Result<()> {
        if !is_pending(&source) {
            // It may have said why before it closed.
            if !self.has_failed {
                self.hear()?;
            }
            return Err(Problem::Link { attempt: "write to", source }.into());
        }
        let until = Instant::now() + self.patience.silence;
        let output = (self.link.output(), For::Output);
        let ready = match self.has_failed {
            true => wait([output], &self.stop, until)?[0],
            false => {
                let [is_ready, heard] = wait([output, (self.link.input(), For::Input)], &self.stop, until)?;
                if heard {
                    self.hear()?;
                }
                is_ready || heard
            }
        };
        match ready {
            true => Ok(()),
            false => Err(Problem::Silence { limit: self.patience.silence }.into()),
        }
    }

    /// Takes what the far end says, and nothing behind its last word.
    fn hear(&mut self) -> Result<()> {
        while self.stored.is_none() && !self.has_failed {
            match self.link.read(self.answer.room()) {
                Ok(0) => return Err(Problem::Cut.into()),
                Ok(count) => match self.answer.filled(count) {
                    Ok(None) => {}
                    Ok(Some(Verdict::Idle)) => self.unanswered = None,
                    Ok(Some(Verdict::Stored { pages })) => self.stored = Some(pages),
                    Ok(Some(Verdict::Failed { reason })) => {
                        self.has_failed = true;
                        return Err(Problem::Far { reason }.into());
                    }
                    Err(what) => return Err(Problem::Record { what }.into()),
                },
                Err(error) if is_pending(&error) => return Ok(()),
                Err(source) => return Err(Problem::Link { attempt: "read from", source }.into()),
            }
        }
        Ok(())
    }
}

fn criu(socket: Option<&OwnedFd>) -> Result<BorrowedFd<'_>> {
    socket.map(AsFd::as_fd).ok_or_else(|| Problem::CriuGone.into())
}

/// An error and its causes in one line.
pub(super) fn chain(error: &crate::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
