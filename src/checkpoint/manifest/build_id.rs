//! The build-id of an ELF file, as CRIU finds it: in a note that lies in the first MiB.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// CRIU maps no more of a file than this.
const LOOKED_AT: u64 = 1 << 20;
/// `NT_GNU_BUILD_ID`.
const NOTE_TYPE: u32 = 3;
const PT_NOTE: u32 = 4;
/// More program headers than any linker makes.
const HEADER_LIMIT: u16 = 256;

/// The build-id; `None` for what has none or is no ELF file of this machine's byte order.
pub(super) fn build_id(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 64];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let native = if cfg!(target_endian = "little") { 1 } else { 2 };
    if &header[..4] != b"\x7fELF" || header[5] != native {
        return Ok(None);
    }
    let is_64 = header[4] == 2;
    let (start, size, count) = if is_64 {
        (long(&header, 32), half(&header, 54), half(&header, 56))
    } else {
        (u64::from(word(&header, 28)), half(&header, 42), half(&header, 44))
    };
    if usize::from(size) < if is_64 { 56 } else { 32 } || size > 256 {
        return Ok(None);
    }
    for index in 0..u64::from(count.min(HEADER_LIMIT)) {
        let mut header = [0; 56];
        let header = if is_64 { &mut header[..] } else { &mut header[..32] };
        let Some(at) = start.checked_add(index * u64::from(size)) else { break };
        if at > LOOKED_AT || file.read_exact_at(header, at).is_err() {
            break;
        }
        let (offset, length) = if is_64 {
            (long(header, 8), long(header, 32))
        } else {
            (u64::from(word(header, 4)), u64::from(word(header, 16)))
        };
        if word(header, 0) != PT_NOTE || offset.checked_add(length).is_none_or(|end| end > LOOKED_AT) {
            continue;
        }
        // At most LOOKED_AT bytes.
        let mut notes = vec![0; length as usize];
        if file.read_exact_at(&mut notes, offset).is_ok() {
            if let Some(id) = find(&notes) {
                return Ok(Some(id.to_vec()));
            }
        }
    }
    Ok(None)
}

fn find(mut notes: &[u8]) -> Option<&[u8]> {
    while notes.len() >= 12 {
        let (name_size, size, kind) = (word(notes, 0) as usize, word(notes, 4) as usize, word(notes, 8));
        let name_end = 12usize.checked_add(name_size)?;
        let start = name_end.checked_next_multiple_of(4)?;
        let end = start.checked_add(size)?;
        let (name, id) = (notes.get(12..name_end)?, notes.get(start..end)?);
        if kind == NOTE_TYPE && name == b"GNU\0" && !id.is_empty() {
            return Some(id);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn a_library_of_the_system_has_the_build_id_that_its_section_holds() {
        // Debian builds every library with one; the text loader maps libc into this very test.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
        let content = std::fs::read(libc.expect("the test is linked dynamically")).unwrap();
        let id = build_id(&file(&content)).unwrap().expect("libc has a build-id");
        let at = content.windows(4).position(|window| window == b"GNU\0").unwrap();
        assert_eq!(id.len(), 20);
        assert!(content[at..at + 200].windows(20).any(|window| window == id));
    }

    #[test]
    fn a_script_has_none() {
        assert_eq!(build_id(&file(b"#!/bin/sh\n")).unwrap(), None);
        assert_eq!(build_id(&file(&[b'x'; 1000])).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_fail(mut content in proptest::collection::vec(any::<u8>(), 64..400), class in 1u8..3) {
            content[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
            build_id(&file(&content)).unwrap();
        }

        #[test]
        fn no_notes_make_it_fail(notes in proptest::collection::vec(any::<u8>(), 0..100)) {
            find(&notes);
        }
    }
}
