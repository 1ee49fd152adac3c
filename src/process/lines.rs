//! Reading the lines of a /proc file through one reused buffer of bounded size.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The longest line that is seen whole; /proc caps paths at a page, so that only a forged file has longer ones.
const BUFFER_BYTES: usize = 32 * 1024;

/// A reader of /proc files that keeps its buffer from one file to the next.
pub(super) struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES] }
    }

    /// Calls `take` for each line of `path`, without its newline. A line longer than the buffer arrives in pieces.
    pub(super) fn each(&mut self, path: impl AsRef<Path>, take: impl FnMut(&[u8])) -> io::Result<()> {
        each_line(&mut self.buffer, &mut File::open(path)?, take)
    }

    /// The whole of a short file, cut at the size of the buffer.
    pub(super) fn whole(&mut self, path: impl AsRef<Path>) -> io::Result<&[u8]> {
        let mut file = File::open(path)?;
        let mut filled = 0;
        while filled < self.buffer.len() {
            match file.read(&mut self.buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[..filled])
    }
}

fn each_line(buffer: &mut [u8], source: &mut impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut filled = 0;
    loop {
        let count = match source.read(&mut buffer[filled..]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            if filled > 0 {
                take(&buffer[..filled]);
            }
            return Ok(());
        }
        let end = filled + count;
        let mut start = 0;
        while let Some(length) = buffer[start..end].iter().position(|byte| *byte == b'\n') {
            take(&buffer[start..start + length]);
            start += length + 1;
        }
        buffer.copy_within(start..end, 0);
        filled = end - start;
        if filled == buffer.len() {
            take(&buffer[..filled]);
            filled = 0;
        }
    }
}

/// The number that `text` is, with spaces around it.
pub(super) fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// The hexadecimal number that `text` is.
pub(super) fn hexadecimal(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text.trim_ascii()).ok()?, 16).ok()
}

/// The words of `text`.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b' ' || *byte == b'\t').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &str, buffer: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut buffer = vec![0; buffer];
        each_line(&mut buffer, &mut text.as_bytes(), |line| found.push(String::from_utf8_lossy(line).into_owned()))
            .expect("reading from memory");
        found
    }

    #[test]
    fn lines_come_whole_whatever_the_size_of_the_buffer() {
        let text = "one\n\ntwo three\nfour";
        for size in 10..30 {
            assert_eq!(lines_of(text, size), ["one", "", "two three", "four"], "buffer of {size}");
        }
    }

    #[test]
    fn a_line_longer_than_the_buffer_comes_in_pieces() {
        assert_eq!(lines_of("abcdefgh\nij\n", 4), ["abcd", "efgh", "", "ij"]);
    }

    #[test]
    fn numbers_and_words_are_read_with_any_spaces() {
        assert_eq!(decimal::<i32>(b" -7\t"), Some(-7));
        assert_eq!(decimal::<u32>(b"-7"), None);
        assert_eq!(hexadecimal(b"fe01"), Some(0xfe01));
        assert_eq!(words(b" a\t b  c ").collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    }
}
