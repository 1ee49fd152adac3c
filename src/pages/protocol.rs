//! What CRIU says to a page server: a header of one of two sizes, and after some of them pages. Host byte order.
//!
//! CRIU 4.2 made the header longer (24 bytes before, 32 since) and tells nobody. The first header does: it opens a pagemap, so
//! that it has a number that is never zero and an address that is, and the number of one form lies where the other has the
//! address. That is exact, and holds for a CRIU with patches of its own too; the version counts only where CRIU closes before
//! it has opened anything, since that header is all zeros.

use super::run::{Run, pagemap_of};
use crate::images::PagemapOf;
use crate::request::Version;

/// How long a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// 24 bytes: the number of pages has 32 bits.
    Short,
    /// 32 bytes: it has 64.
    Long,
}

impl Width {
    /// What a release of CRIU speaks.
    pub(super) fn of(version: Version) -> Self {
        if version < Version::new(4, 2) { Self::Short } else { Self::Long }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Short => SHORT,
            Self::Long => LONG,
        }
    }
}

const SHORT: usize = 24;
const LONG: usize = 32;

/// What CRIU wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To begin a pagemap; where `is_asked`, to know whether it has a parent (one byte).
    Open { of: PagemapOf, is_asked: bool },
    /// To know whether a pagemap has a parent (four bytes).
    Parent(PagemapOf),
    /// To store a run. Its pages follow.
    Pages(PagemapOf, Run),
    /// To know that everything is stored (four bytes, 0 for yes). The last request.
    Close,
}

const ADD: u16 = 1;
const HOLE: u16 = 2;
const OPEN: u16 = 3;
const OPEN2: u16 = 4;
const PARENT: u16 = 5;
const ADD_WITH_FLAGS: u16 = 6;
const CLOSE: u16 = 0x1023;
const FORCE_CLOSE: u16 = 0x1024;

/// Decodes headers. Takes no more than a header at a time, since the pages behind it are not for this process to copy.
#[derive(Debug)]
pub(super) struct Decoder {
    width: Option<Width>,
    /// Where the first header does not tell.
    otherwise: Width,
    header: [u8; LONG],
    filled: usize,
}

impl Decoder {
    pub(super) fn new(otherwise: Width) -> Self {
        Self { width: None, otherwise, header: [0; LONG], filled: 0 }
    }

    /// Where the next bytes go: exactly as many as the header still lacks, never none.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let wanted = self.width.map_or(if self.filled < SHORT { SHORT } else { LONG }, Width::bytes);
        &mut self.header[self.filled..wanted]
    }

    /// Whether a header has begun and not ended.
    #[cfg(test)]
    fn is_within(&self) -> bool {
        self.filled > 0
    }

    /// Says that `count` bytes were put into [`Decoder::room`]. A request where that made one.
    pub(super) fn filled(&mut self, count: usize) -> Result<Option<Request>, String> {
        self.filled += count;
        if self.filled < SHORT {
            return Ok(None);
        }
        let width = *self.width.get_or_insert_with(|| told_by(&self.header, self.otherwise));
        if self.filled < width.bytes() {
            return Ok(None);
        }
        self.filled = 0;
        decode(&self.header, width).map(Some)
    }
}

/// The width of the header whose first 24 bytes these are.
fn told_by(header: &[u8; LONG], otherwise: Width) -> Width {
    match (u16::from_ne_bytes([header[0], header[1]]), word(header, 16)) {
        (CLOSE | FORCE_CLOSE, _) => otherwise,
        // The address of the long form.
        (_, 0) => Width::Long,
        // The number of the short one.
        _ => Width::Short,
    }
}

fn decode(header: &[u8; LONG], width: Width) -> Result<Request, String> {
    let half = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let command = half(0);
    let (pages, address, number) = match width {
        Width::Short => (half(4).into(), word(header, 8), word(header, 16)),
        Width::Long => (word(header, 8), word(header, 16), word(header, 24)),
    };
    // High and low half.
    let (flags, command) = (command >> 16, (command & 0xffff) as u16);
    Ok(match command {
        OPEN | OPEN2 => Request::Open { of: pagemap_of(number)?, is_asked: command == OPEN2 },
        PARENT => Request::Parent(pagemap_of(number)?),
        ADD => Request::Pages(pagemap_of(number)?, Run::new(address, pages, super::run::PRESENT)?),
        HOLE => Request::Pages(pagemap_of(number)?, Run::new(address, pages, super::run::PARENT)?),
        ADD_WITH_FLAGS => Request::Pages(pagemap_of(number)?, Run::new(address, pages, flags)?),
        CLOSE | FORCE_CLOSE => Request::Close,
        _ => return Err(format!("the command {command:#x}, which a dump does not send")),
    })
}

fn word(bytes: &[u8; LONG], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

/// A header as CRIU writes it: for the tests.
#[cfg(test)]
pub(super) fn header(width: Width, command: u16, flags: u32, pages: u64, address: u64, number: u64) -> Vec<u8> {
    let mut bytes = (flags << 16 | u32::from(command)).to_ne_bytes().to_vec();
    match width {
        Width::Short => bytes.extend(u32::try_from(pages).unwrap().to_ne_bytes()),
        // CRIU does not clear what only fills up.
        Width::Long => {
            bytes.extend([0xa5; 4]);
            bytes.extend(pages.to_ne_bytes());
        }
    }
    bytes.extend(address.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds bytes, `at_once` at a time.
    fn requests(otherwise: Width, mut bytes: &[u8], at_once: usize) -> Result<Vec<Request>, String> {
        let (mut decoder, mut requests) = (Decoder::new(otherwise), Vec::new());
        while !bytes.is_empty() {
            let room = decoder.room();
            let count = room.len().min(at_once).min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            requests.extend(decoder.filled(count)?);
        }
        match decoder.is_within() {
            true => Err("cut short".into()),
            false => Ok(requests),
        }
    }

    fn session(width: Width) -> Vec<u8> {
        let task = 77 << 8 | 1;
        let mut bytes = header(width, OPEN2, 0, 0, 0, task);
        bytes.extend(header(width, ADD_WITH_FLAGS, 4, 3, 0x7000, task));
        bytes.extend(header(width, ADD_WITH_FLAGS, 6, 1, 0x10_000, task));
        bytes.extend(header(width, PARENT, 0, 0, 0, 5 << 8 | 2));
        bytes.extend(header(width, FORCE_CLOSE, 0, 0, 0, 0));
        bytes
    }

    #[test]
    fn both_widths_are_told_by_the_first_header_whatever_was_expected() {
        let of = PagemapOf::Task(77);
        let run = |address, pages, flags| Request::Pages(of, Run { address, pages, flags });
        let expected = [
            Request::Open { of, is_asked: true },
            run(0x7000, 3, 4),
            run(0x10_000, 1, 6),
            Request::Parent(PagemapOf::Shared(5)),
            Request::Close,
        ];
        for width in [Width::Short, Width::Long] {
            for otherwise in [Width::Short, Width::Long] {
                for at_once in [1, 7, 64] {
                    assert_eq!(requests(otherwise, &session(width), at_once).as_deref(), Ok(&expected[..]));
                }
            }
        }
    }

    #[test]
    fn a_close_before_anything_else_is_as_long_as_the_version_says() {
        assert_eq!(Width::of(Version { major: 4, minor: 1, sublevel: 1 }), Width::Short);
        assert_eq!(Width::of(Version::new(4, 2)), Width::Long);
        for width in [Width::Short, Width::Long] {
            let close = header(width, FORCE_CLOSE, 0, 0, 0, 0);
            assert_eq!(requests(width, &close, 64), Ok(vec![Request::Close]));
        }
    }

    #[test]
    fn every_prefix_is_an_error_or_fewer_requests() {
        for width in [Width::Short, Width::Long] {
            let bytes = session(width);
            for end in 1..bytes.len() {
                match requests(width, &bytes[..end], 64) {
                    Ok(requests) => assert_eq!(requests.len() * width.bytes(), end),
                    Err(why) => assert_eq!(why, "cut short"),
                }
            }
        }
    }

    #[test]
    fn what_no_dump_sends_is_refused() {
        let task = 1 << 8 | 1;
        let long = |command, pages, number| header(Width::Long, command, 0, pages, 0, number);
        for bytes in [long(7, 1, task), long(0, 0, task), long(OPEN2, 0, 3), long(ADD, 0, task), long(0xffff, 0, 0)] {
            assert!(requests(Width::Long, &bytes, 64).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_requests_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), at_once in 1..40_usize) {
            // Neither panics nor hangs.
            let _ = requests(Width::Long, &bytes, at_once);
        }
    }
}
