//! Images as they lie in a file: magic words, then records of a length (u32, little endian) and a protobuf message, some
//! followed by raw bytes.

use std::io::Read;
use std::path::PathBuf;

use protobuf::Message;

use super::Kind;
use crate::error::{Error, ImageFault, Result};

/// More records than the largest PID are in no image that is read whole.
pub(crate) const RECORDS_LIMIT: u64 = 1 << 22;
/// More parts than this make no record: a message takes up to a hundred times the memory of its encoding.
const PARTS_LIMIT: usize = 1 << 20;

/// One kind of record, as own type.
pub(crate) trait Record: Sized {
    type Message: Message;

    /// Why a message that decodes is not one of these is in the error.
    fn from_message(message: Self::Message) -> Result<Self, String>;

    /// How many raw bytes follow the record.
    fn raw_bytes(_message: &Self::Message) -> u64 {
        0
    }
}

/// Reads the records of one image, never holding more than one.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    path: PathBuf,
    kind: Kind,
    /// Bytes read, and bytes in the file.
    offset: u64,
    length: u64,
    records: u64,
    record: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Checks the magic words of `input`, which holds `length` bytes.
    pub(crate) fn new(input: R, length: u64, path: PathBuf, kind: Kind) -> Result<Self> {
        let mut reader = Self { input, path, kind, offset: 0, length, records: 0, record: Vec::new() };
        for expected in kind.header().into_iter().flatten() {
            let offset = reader.offset;
            let found = reader.word()?;
            if found != expected {
                return Err(reader.fault(ImageFault::Magic { offset, found, expected }));
            }
        }
        Ok(reader)
    }

    /// The next record, or `None` at the end of the file.
    pub(crate) fn bytes(&mut self) -> Result<Option<&[u8]>> {
        if self.offset == self.length {
            return Ok(None);
        }
        let offset = self.offset;
        let size = self.word()?;
        let limit = self.kind.record_limit();
        if size > limit {
            return Err(self.fault(ImageFault::RecordTooLarge { offset, size, limit }));
        }
        if u64::from(size) > self.length - self.offset {
            return Err(self.fault(ImageFault::Truncated { offset }));
        }
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        record.resize(size as usize, 0);
        self.fill(&mut record, offset)?;
        self.records += 1;
        self.record = record;
        Ok(Some(&self.record))
    }

    /// The next record decoded, or `None` at the end of the file. Raw bytes after it are still to be skipped.
    pub(crate) fn message<M: Message>(&mut self) -> Result<Option<M>> {
        let offset = self.offset;
        if self.bytes()?.is_none() {
            return Ok(None);
        }
        let decoded = match parts_within(&self.record, PARTS_LIMIT) {
            true => M::parse_from_bytes(&self.record).map_err(Into::into),
            false => Err(format!("it has more than {PARTS_LIMIT} fields").into()),
        };
        decoded.map(Some).map_err(|source| self.fault(ImageFault::Undecodable { offset, message: M::NAME, source }))
    }

    /// The next record as own type, with the raw bytes after it skipped.
    pub(crate) fn next<T: Record>(&mut self) -> Result<Option<T>> {
        let offset = self.offset;
        let Some(message) = self.message::<T::Message>()? else { return Ok(None) };
        self.skip(T::raw_bytes(&message))?;
        T::from_message(message).map(Some).map_err(|why| {
            self.fault(ImageFault::Undecodable { offset, message: T::Message::NAME, source: why.into() })
        })
    }

    /// The one record of an image that has exactly one, without raw bytes.
    pub(crate) fn only<T: Record>(mut self) -> Result<T> {
        let first = self.next()?.ok_or_else(|| self.fault(ImageFault::NoRecord))?;
        self.end()?;
        Ok(first)
    }

    /// That the file ends here.
    pub(crate) fn end(&self) -> Result<()> {
        match self.offset == self.length {
            true => Ok(()),
            false => Err(self.fault(ImageFault::Surplus { offset: self.offset })),
        }
    }

    /// All records of an image that is read whole.
    pub(crate) fn all<T: Record>(mut self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(record) = self.next()? {
            if self.records > RECORDS_LIMIT {
                return Err(self.fault(ImageFault::TooManyRecords { limit: RECORDS_LIMIT }));
            }
            all.push(record);
        }
        Ok(all)
    }

    /// Passes over `count` raw bytes.
    pub(crate) fn skip(&mut self, count: u64) -> Result<()> {
        let offset = self.offset;
        let skipped = match count > self.length - self.offset {
            true => return Err(self.fault(ImageFault::Truncated { offset })),
            false => std::io::copy(&mut self.input.by_ref().take(count), &mut std::io::sink()),
        };
        match skipped {
            Ok(skipped) if skipped == count => self.offset += count,
            Ok(_) => return Err(self.fault(ImageFault::Truncated { offset })),
            Err(source) => return Err(Error::io("read", &self.path)(source)),
        }
        Ok(())
    }

    /// Passes over what is left of the file.
    pub(crate) fn skip_rest(&mut self) -> Result<()> {
        self.skip(self.length - self.offset)
    }

    pub(crate) fn fault(&self, source: ImageFault) -> Error {
        Error::Image { path: self.path.clone(), source }
    }

    pub(crate) fn undecodable(&self, message: &'static str, why: &str) -> Error {
        self.fault(ImageFault::Undecodable { offset: self.offset, message, source: why.into() })
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    fn word(&mut self) -> Result<u32> {
        let mut word = [0; 4];
        self.fill(&mut word, self.offset)?;
        Ok(u32::from_le_bytes(word))
    }

    /// Fills `buffer`; an end before that is named by `start`, where the cut piece begins.
    fn fill(&mut self, buffer: &mut [u8], start: u64) -> Result<()> {
        if buffer.len() as u64 > self.length - self.offset {
            return Err(self.fault(ImageFault::Truncated { offset: start }));
        }
        match self.input.read_exact(buffer) {
            Ok(()) => self.offset += buffer.len() as u64,
            Err(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(self.fault(ImageFault::Truncated { offset: start }));
            }
            Err(source) => return Err(Error::io("read", &self.path)(source)),
        }
        Ok(())
    }
}

/// Whether the message in `bytes` has at most `limit` fields. What is no protobuf message counts up to where that shows.
pub(crate) fn parts_within(bytes: &[u8], limit: usize) -> bool {
    // Every field takes two bytes.
    if bytes.len() / 2 <= limit {
        return true;
    }
    let mut input = protobuf::CodedInputStream::from_bytes(bytes);
    let mut parts = 0;
    while let Ok(Some(tag)) = input.read_raw_tag_or_eof() {
        parts += 1;
        let Ok(wire) = protobuf::rt::WireType::new(tag & 7).ok_or(()) else { return true };
        if parts > limit {
            return false;
        }
        if input.skip_field(wire).is_err() {
            return true;
        }
    }
    true
}
