//! What the far end says, taken byte by byte as it comes.

use super::record::{LENGTH, Record};
use crate::escape::escape;

/// What the far end says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is there.
    Idle,
    /// It has all pages, this many.
    Stored { pages: u64 },
    /// It has not; the reason is safe to print.
    Failed { reason: String },
}

/// Decodes answers. Takes no byte behind the last: they are another's.
#[derive(Debug)]
pub(super) struct Answer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Answer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; LENGTH], filled: 0 }
    }

    /// Where the next bytes go; never empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Says that `count` bytes were put there.
    pub(super) fn filled(&mut self, count: usize) -> Result<Option<Verdict>, String> {
        self.filled += count;
        if self.filled < self.bytes.len() {
            return Ok(None);
        }
        let mut record = [0; LENGTH];
        record.copy_from_slice(&self.bytes[..LENGTH]);
        let reason = &self.bytes[LENGTH..];
        let verdict = match Record::decode(&record)? {
            Record::Idle => Verdict::Idle,
            Record::Stored { pages } => Verdict::Stored { pages },
            Record::Failed { length } if length > reason.len() => {
                self.bytes.resize(LENGTH + length, 0);
                return Ok(None);
            }
            Record::Failed { .. } => Verdict::Failed { reason: escape(reason) },
            record => return Err(format!("{record:?}, which is no answer")),
        };
        *self = Self::new();
        Ok(Some(verdict))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::shortened;
    use super::*;

    #[test]
    fn answers_are_understood_however_they_are_cut() {
        let reason = "no\nroom";
        let mut bytes = Record::Idle.encode().to_vec();
        bytes.extend(Record::Failed { length: reason.len() }.encode());
        bytes.extend(shortened(reason));
        bytes.extend(Record::Stored { pages: 3 }.encode());
        bytes.extend(Record::Failed { length: 0 }.encode());
        let expected = [
            Verdict::Idle,
            Verdict::Failed { reason: r"no\nroom".into() },
            Verdict::Stored { pages: 3 },
            Verdict::Failed { reason: String::new() },
        ];
        for at_once in [1, 5, 1000] {
            let (mut answer, mut said, mut left) = (Answer::new(), Vec::new(), &bytes[..]);
            while !left.is_empty() {
                let room = answer.room();
                let count = room.len().min(at_once).min(left.len());
                room[..count].copy_from_slice(&left[..count]);
                left = &left[count..];
                said.extend(answer.filled(count).unwrap());
            }
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn what_only_a_source_says_is_no_answer() {
        let mut answer = Answer::new();
        answer.room().copy_from_slice(&Record::End { pages: 0 }.encode());
        assert!(answer.filled(LENGTH).is_err());
    }
}
