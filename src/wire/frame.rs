//! Frames: what is on a connection behind the greeting.
//!
//! | bytes | of | what |
//! |---|---|---|
//! | 1 | both | the kind: 1 a message, 2 data (0 is none) |
//! | 3 | both | zeros |
//! | 4 | both | length of what follows the header: the message, or the payload (little endian, as all numbers) |
//! | 8 | data | the number of the object (not 0) |
//! | 8 | data | where in the object the payload belongs |
//!
//! A payload may be moved by the kernel (`splice`) from a pipe to the connection and out of it: a sender writes
//! [`DataHeader::to_bytes`] and then moves the payload; a receiver reads no more than [`Decoder::wanted`] says, and what is
//! in the way of a payload never is in the decoder's buffer.

use super::fault::Fault;
use super::greeting::{self, GREETING_LENGTH};
use super::message::Envelope;

/// A message takes at most this: an offer with a manifest of some 10,000 files.
pub const MESSAGE_LIMIT: u32 = 4 << 20;
/// A payload takes at most this: 0.13 s of a link of 1 Gbit/s, for which messages wait.
pub const PAYLOAD_LIMIT: u32 = 16 << 20;
/// How long the header of a data frame is.
pub const DATA_HEADER_LENGTH: usize = 24;

const HEADER_LENGTH: usize = 8;
const MESSAGE: u8 = 1;
const DATA: u8 = 2;
/// What was there when it turned out not to be crr.
const QUOTED: usize = 64;

/// Where a payload belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The object's number, as its [`Object`](super::Object) said.
    pub object: u64,
    /// Where in it.
    pub offset: u64,
    /// How many bytes follow.
    pub length: u32,
}

impl DataHeader {
    /// The header of a data frame, which `length` bytes must follow.
    ///
    /// # Errors
    /// [`Fault`] for what a receiver would refuse.
    pub fn to_bytes(self) -> Result<[u8; DATA_HEADER_LENGTH], Fault> {
        self.check()?;
        let mut bytes = [0; DATA_HEADER_LENGTH];
        bytes[0] = DATA;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.object.to_le_bytes());
        bytes[16..].copy_from_slice(&self.offset.to_le_bytes());
        Ok(bytes)
    }

    fn check(self) -> Result<(), Fault> {
        let Self { object, offset, length } = self;
        check_length("payload", length, PAYLOAD_LIMIT)?;
        let end = offset.checked_add(u64::from(length)).filter(|end| i64::try_from(*end).is_ok());
        match object == 0 || length == 0 || end.is_none() {
            true => Err(Fault::Place { object, offset, length }),
            false => Ok(()),
        }
    }
}

impl Envelope {
    /// The frame of a message.
    ///
    /// # Errors
    /// [`Fault`] for what a receiver would refuse.
    pub fn to_frame(&self) -> Result<Vec<u8>, Fault> {
        let message = self.to_bytes()?;
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        check_length("message", length, MESSAGE_LIMIT)?;
        let mut frame = Vec::with_capacity(HEADER_LENGTH + message.len());
        frame.extend([MESSAGE, 0, 0, 0]);
        frame.extend(length.to_le_bytes());
        frame.extend(message);
        Ok(frame)
    }
}

/// What comes in.
#[derive(Debug, PartialEq)]
pub enum Item {
    /// The greeting: the version that is spoken.
    Greeting(u16),
    /// A message.
    Message(Box<Envelope>),
    /// A payload begins here: [`Decoder::payload`].
    Data(DataHeader),
}

/// Makes items of bytes.
///
/// It holds what it was fed and has not given out yet: at most one message, if its caller asks for items after each feeding,
/// and what was fed beyond it.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What of the buffer has been given out.
    taken: usize,
    expected: Expected,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Greeting,
    Header,
    Message(u32),
    Place(u32),
    Payload {
        left: u32,
    },
    /// After a fault.
    Nothing,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// For a connection from which nothing has been read.
    pub fn new() -> Self {
        Self { buffer: Vec::new(), taken: 0, expected: Expected::Greeting }
    }

    /// Takes bytes as they come.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes are certainly needed for the next item. Who reads no more than that from the connection finds the whole
    /// payload of a data frame there.
    pub fn wanted(&self) -> usize {
        let needed = match self.expected {
            Expected::Greeting => GREETING_LENGTH,
            Expected::Header => HEADER_LENGTH,
            Expected::Message(length) => length as usize,
            Expected::Place(_) => DATA_HEADER_LENGTH - HEADER_LENGTH,
            Expected::Payload { left } => left as usize,
            Expected::Nothing => 0,
        };
        needed.saturating_sub(self.rest().len())
    }

    /// The next item, or `None` where bytes are missing. Also `None` as long as something of a payload is left.
    ///
    /// # Errors
    /// [`Fault`]: the connection cannot be used any more.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item>, Fault> {
        let item = self.try_next();
        if item.is_err() {
            self.expected = Expected::Nothing;
            self.buffer = Vec::new();
            self.taken = 0;
        }
        item
    }

    fn try_next(&mut self) -> Result<Option<Item>, Fault> {
        loop {
            match self.expected {
                Expected::Nothing => return Err(Fault::Misuse { what: "a connection is read on after a fault" }),
                Expected::Payload { left: 0 } => self.expected = Expected::Header,
                Expected::Payload { .. } => return Ok(None),
                Expected::Greeting => {
                    if !greeting::begins(&self.rest()[..self.rest().len().min(8)]) {
                        let found = self.rest()[..self.rest().len().min(QUOTED)].to_vec();
                        return Err(Fault::NotCrr { found });
                    }
                    let Some(bytes) = self.take::<GREETING_LENGTH>() else { return Ok(None) };
                    let version = greeting::agree(&bytes)?;
                    self.expected = Expected::Header;
                    return Ok(Some(Item::Greeting(version)));
                }
                Expected::Header => {
                    let Some(header) = self.take::<HEADER_LENGTH>() else { return Ok(None) };
                    self.expected = expected_after(header)?;
                }
                Expected::Message(length) => {
                    let Some(bytes) = self.rest().get(..length as usize) else { return Ok(None) };
                    let envelope = Envelope::parse(bytes)?;
                    self.taken += length as usize;
                    self.expected = Expected::Header;
                    return Ok(Some(Item::Message(Box::new(envelope))));
                }
                Expected::Place(length) => {
                    let Some(place) = self.take::<{ DATA_HEADER_LENGTH - HEADER_LENGTH }>() else { return Ok(None) };
                    let number = |at: usize| u64::from_le_bytes(place[at..at + 8].try_into().expect("8 bytes"));
                    let header = DataHeader { object: number(0), offset: number(8), length };
                    header.check()?;
                    self.expected = Expected::Payload { left: length };
                    return Ok(Some(Item::Data(header)));
                }
            }
        }
    }

    /// The payload that has begun, as long as something of it is left.
    pub fn payload(&mut self) -> Option<Payload<'_>> {
        match self.expected {
            Expected::Payload { left: 1.. } => Some(Payload { decoder: self }),
            _ => None,
        }
    }

    /// That the connection may end here.
    ///
    /// # Errors
    /// [`Fault::Truncated`] in the middle of something.
    pub fn end(&self) -> Result<(), Fault> {
        let what = match self.expected {
            Expected::Payload { left: 1.. } => "payload",
            Expected::Message(_) => "message",
            Expected::Place(_) => "header",
            Expected::Greeting => "greeting",
            _ if !self.rest().is_empty() => "header",
            _ => return Ok(()),
        };
        Err(Fault::Truncated { what })
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.rest().get(..N)?.try_into().ok()?;
        self.taken += N;
        Some(bytes)
    }
}

/// What is left of the payload of a data frame.
#[derive(Debug)]
pub struct Payload<'decoder> {
    decoder: &'decoder mut Decoder,
}

impl Payload<'_> {
    /// How many bytes are still to be taken, here or from the connection.
    pub fn left(&self) -> u32 {
        match self.decoder.expected {
            Expected::Payload { left } => left,
            _ => 0,
        }
    }

    /// Those that the decoder was fed already. They come before what is still on the connection.
    pub fn bytes(&self) -> &[u8] {
        let rest = self.decoder.rest();
        &rest[..rest.len().min(self.left() as usize)]
    }

    /// The first `count` of [`bytes`](Self::bytes) have been used.
    ///
    /// # Errors
    /// [`Fault::Misuse`] if there are fewer.
    pub fn consume(&mut self, count: usize) -> Result<(), Fault> {
        if count > self.bytes().len() {
            return Err(Fault::Misuse { what: "more of a payload is used than there is" });
        }
        self.decoder.taken += count;
        self.pass(u32::try_from(count).unwrap_or(u32::MAX));
        Ok(())
    }

    /// So many bytes have been taken from the connection itself.
    ///
    /// # Errors
    /// [`Fault::Misuse`] if there are fewer, or others come before them: [`bytes`](Self::bytes).
    pub fn spliced(&mut self, count: u32) -> Result<(), Fault> {
        if !self.bytes().is_empty() || count > self.left() {
            return Err(Fault::Misuse { what: "bytes of a payload are taken past others" });
        }
        self.pass(count);
        Ok(())
    }

    fn pass(&mut self, count: u32) {
        self.decoder.expected = Expected::Payload { left: self.left().saturating_sub(count) };
    }
}

fn expected_after(header: [u8; HEADER_LENGTH]) -> Result<Expected, Fault> {
    let [kind, zeros @ .., a, b, c, d] = header;
    let length = u32::from_le_bytes([a, b, c, d]);
    let (what, limit, expected) = match kind {
        MESSAGE => ("message", MESSAGE_LIMIT, Expected::Message(length)),
        DATA => ("payload", PAYLOAD_LIMIT, Expected::Place(length)),
        kind => return Err(Fault::Kind { kind }),
    };
    if zeros != [0; 3] {
        return Err(Fault::Reserved { what: "frame" });
    }
    check_length(what, length, limit)?;
    Ok(expected)
}

fn check_length(what: &'static str, length: u32, limit: u32) -> Result<(), Fault> {
    match length > limit {
        true => Err(Fault::TooLong { what, length: length.into(), limit: limit.into() }),
        false => Ok(()),
    }
}
