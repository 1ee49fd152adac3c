//! What the fuzz target calls.

use super::answer::Answer;
use super::protocol::{Decoder, Width};
use super::record::{LENGTH, Record};

/// Takes any bytes for each of the three languages here.
pub(crate) fn fuzz(data: &[u8]) {
    for otherwise in [Width::Short, Width::Long] {
        let mut decoder = Decoder::new(otherwise);
        feed(data, |left| {
            let room = decoder.room();
            let count = room.len().min(left.len());
            room[..count].copy_from_slice(&left[..count]);
            decoder.filled(count).ok().map(|_| count)
        });
    }
    let mut answer = Answer::new();
    feed(data, |left| {
        let room = answer.room();
        let count = room.len().min(left.len());
        room[..count].copy_from_slice(&left[..count]);
        answer.filled(count).ok().map(|_| count)
    });
    for record in data.chunks_exact(LENGTH).filter_map(|record| record.first_chunk()) {
        if let Ok(decoded) = Record::decode(record) {
            assert_eq!(decoded.encode(), *record);
        }
    }
}

/// Feeds all of it, until something is refused. Each step takes at least a byte.
fn feed(mut left: &[u8], mut step: impl FnMut(&[u8]) -> Option<usize>) {
    while !left.is_empty() {
        match step(left) {
            Some(count) => left = &left[count..],
            None => return,
        }
    }
}
