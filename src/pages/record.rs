//! What goes over the link: records of 32 bytes, little endian, some with bytes behind them.
//!
//! ```text
//!   from the source                              from the far end
//!   Start     version, magic, page size
//!   Open      a pagemap
//!   Entry     address, pages, flags              (of that pagemap; if present, its content in pieces:)
//!     Data    length, xxh3 or none; then the bytes
//!     Zero    length
//!   Idle      nothing is ready                   Idle      as an answer to each
//!   End       pages sent                         Stored    all of them are in files
//!   Abort     a reason                           Failed    a reason, as soon as there is one
//! ```
//!
//! The source ends the stream by End or Abort and by nothing else, the far end answers with Stored or Failed and once. So both
//! know where the stream ends, and the link can be used on: an abort of the source or a failure of the far end cuts nothing.

use super::run::{Run, number_of, page_size, pagemap_of};
use crate::images::PagemapOf;

/// The length of a record.
pub(super) const LENGTH: usize = 32;
/// The longest reason that is taken, in bytes.
pub(super) const REASON_LIMIT: usize = 4096;

const VERSION: u32 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"crr.mem\0");

const START: u32 = 1;
const OPEN: u32 = 2;
const ENTRY: u32 = 3;
const DATA: u32 = 4;
const ZERO: u32 = 5;
const IDLE: u32 = 6;
const END: u32 = 7;
const ABORT: u32 = 8;
const STORED: u32 = 9;
const FAILED: u32 = 10;

const HASHED: u32 = 1;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Start,
    Open(PagemapOf),
    Entry(Run),
    /// `bytes` of content follow; their hash where there is one.
    Data {
        bytes: u64,
        hash: Option<u64>,
    },
    /// As many bytes of content that are all zero.
    Zero {
        bytes: u64,
    },
    Idle,
    End {
        pages: u64,
    },
    /// A reason of `length` bytes follows.
    Abort {
        length: usize,
    },
    Stored {
        pages: u64,
    },
    /// A reason of `length` bytes follows.
    Failed {
        length: usize,
    },
}

impl Record {
    pub(super) fn encode(self) -> [u8; LENGTH] {
        let (kind, flags, words) = match self {
            Self::Start => (START, VERSION, [MAGIC, page_size(), 0]),
            Self::Open(of) => (OPEN, 0, [number_of(of), 0, 0]),
            Self::Entry(Run { address, pages, flags }) => (ENTRY, flags, [address, pages, 0]),
            Self::Data { bytes, hash: None } => (DATA, 0, [bytes, 0, 0]),
            Self::Data { bytes, hash: Some(hash) } => (DATA, HASHED, [bytes, hash, 0]),
            Self::Zero { bytes } => (ZERO, 0, [bytes, 0, 0]),
            Self::Idle => (IDLE, 0, [0; 3]),
            Self::End { pages } => (END, 0, [pages, 0, 0]),
            Self::Abort { length } => (ABORT, 0, [length as u64, 0, 0]),
            Self::Stored { pages } => (STORED, 0, [pages, 0, 0]),
            Self::Failed { length } => (FAILED, 0, [length as u64, 0, 0]),
        };
        let mut record = [0; LENGTH];
        record[..4].copy_from_slice(&kind.to_le_bytes());
        record[4..8].copy_from_slice(&flags.to_le_bytes());
        for (at, word) in words.into_iter().enumerate() {
            record[8 + 8 * at..][..8].copy_from_slice(&word.to_le_bytes());
        }
        record
    }

    pub(super) fn decode(record: &[u8; LENGTH]) -> Result<Self, String> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&record[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (kind, flags) = (word(0) as u32, (word(0) >> 32) as u32);
        let (first, second) = (word(8), word(16));
        let decoded = match kind {
            START if first != MAGIC => return Err("a stream that is not of memory".into()),
            START if flags != VERSION => return Err(format!("version {flags} of the stream of memory, not {VERSION}")),
            START if second != page_size() => {
                return Err(format!("pages of {second} bytes, where this host has pages of {} bytes", page_size()));
            }
            START => Self::Start,
            OPEN => Self::Open(pagemap_of(first)?),
            ENTRY => Self::Entry(Run::new(first, second, flags)?),
            DATA | ZERO if first == 0 || first % page_size() != 0 => {
                return Err(format!("{first} bytes, which are no pages"));
            }
            DATA => Self::Data { bytes: first, hash: (flags == HASHED).then_some(second) },
            ZERO => Self::Zero { bytes: first },
            IDLE => Self::Idle,
            END => Self::End { pages: first },
            ABORT => Self::Abort { length: reason(first)? },
            STORED => Self::Stored { pages: first },
            FAILED => Self::Failed { length: reason(first)? },
            _ => return Err(format!("a record of the unknown kind {kind}")),
        };
        // What is not said is zero, so that it can be given a meaning by a later version.
        match decoded.encode() == *record {
            true => Ok(decoded),
            false => Err(format!("a record of the kind {kind} that says more than this crr understands")),
        }
    }
}

fn reason(length: u64) -> Result<usize, String> {
    match usize::try_from(length) {
        Ok(length) if length <= REASON_LIMIT => Ok(length),
        _ => Err(format!("a reason of {length} bytes")),
    }
}

/// As much of a reason as is sent.
pub(super) fn shortened(reason: &str) -> &[u8] {
    let mut end = reason.len().min(REASON_LIMIT);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_record_comes_back() {
        let records = [
            Record::Start,
            Record::Open(PagemapOf::Task(7)),
            Record::Open(PagemapOf::Shared(u32::MAX)),
            Record::Entry(Run { address: 0x7000, pages: 3, flags: 6 }),
            Record::Data { bytes: page_size(), hash: None },
            Record::Data { bytes: 2 * page_size(), hash: Some(0) },
            Record::Zero { bytes: page_size() },
            Record::Idle,
            Record::End { pages: 9 },
            Record::Abort { length: REASON_LIMIT },
            Record::Stored { pages: u64::MAX },
            Record::Failed { length: 0 },
        ];
        for record in records {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
            let mut more = record.encode();
            more[31] = 1;
            assert!(Record::decode(&more).is_err(), "{record:?} and more");
        }
    }

    #[test]
    fn zero_is_no_record_and_limits_hold() {
        assert!(Record::decode(&[0; LENGTH]).is_err());
        for record in [
            Record::Abort { length: REASON_LIMIT + 1 },
            Record::Data { bytes: 0, hash: None },
            Record::Zero { bytes: page_size() + 1 },
        ] {
            assert!(Record::decode(&record.encode()).is_err(), "{record:?}");
        }
        let mut newer = Record::Start.encode();
        newer[4] = 2;
        assert!(Record::decode(&newer).unwrap_err().contains("version 2"));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = format!("{}ö", "x".repeat(REASON_LIMIT - 1));
        assert_eq!(shortened(&reason).len(), REASON_LIMIT - 1);
        assert_eq!(shortened("full"), b"full");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(record in prop::array::uniform32(any::<u8>()), kind in 0..12_u8) {
            let mut record = record;
            record[..4].copy_from_slice(&u32::from(kind).to_le_bytes());
            let _ = Record::decode(&record);
        }
    }
}
