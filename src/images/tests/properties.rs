//! What holds for any bytes.

use proptest::prelude::*;
use protobuf::MessageDyn;

use super::*;
use crate::proto::images as proto;

#[test]
fn every_prefix_is_an_error_or_a_shorter_read() {
    for (name, kind, bytes) in image_files() {
        let whole = walk_bytes(kind, &bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for length in 0..bytes.len() {
            match walk_bytes(kind, &bytes[..length]) {
                // Of a ghost without chunks only the file system knew the size.
                Ok(records) => assert!(records < whole || kind == Kind::Ghost, "{name} cut to {length}"),
                Err(Error::Image { .. }) => {}
                Err(error) => panic!("{name} cut to {length}: {error:?}"),
            }
        }
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_truncated() {
    for (name, kind, bytes) in image_files().into_iter().filter(|(_, _, bytes)| !bytes.is_empty()) {
        let short = &bytes[..bytes.len() - 1];
        let read = Reader::new(short, bytes.len() as u64, PathBuf::from("image"), kind)
            .and_then(|reader| walk::walk(reader, kind));
        assert!(matches!(read, Err(Error::Image { source: ImageFault::Truncated { .. }, .. })), "{name}: {read:?}");
    }
}

#[test]
fn a_record_as_long_as_can_be_said_is_refused_before_it_is_allocated() {
    for &kind in Kind::ALL {
        let mut bytes = image(kind, []);
        bytes.extend(u32::MAX.to_le_bytes());
        let result = Reader::new(&bytes[..], u64::MAX, PathBuf::from("image"), kind)
            .and_then(|mut reader| reader.bytes().map(|record| record.map(<[u8]>::len)));
        assert!(matches!(result, Err(Error::Image { source: ImageFault::RecordTooLarge { .. }, .. })), "{kind:?}");
    }
}

#[test]
fn a_record_of_more_fields_than_any_is_not_decoded() {
    // Empty mappings: two bytes each, and more than a hundred in memory.
    let record = b"\x72\0".repeat(2 << 20);
    let mut bytes = image(Kind::Memory, []);
    bytes.extend(u32::try_from(record.len()).expect("small").to_le_bytes());
    bytes.extend(record);
    let error = walk_bytes(Kind::Memory, &bytes).expect_err("too many");
    let cause = std::error::Error::source(&error).and_then(std::error::Error::source).expect("a cause");
    assert_eq!(cause.to_string(), "it has more than 1048576 fields");
}

#[test]
fn groups_in_groups_do_not_exhaust_the_stack() {
    for (kind, start) in [(Kind::Memory, 0x0b), (Kind::Cgroups, 0x0b), (Kind::Pstree, 0x33)] {
        let record = vec![start; 2 << 20];
        let mut bytes = image(kind, []);
        bytes.extend(u32::try_from(record.len()).expect("small").to_le_bytes());
        bytes.extend(record);
        assert!(matches!(walk_bytes(kind, &bytes), Err(Error::Image { source: ImageFault::Undecodable { .. }, .. })));
    }
}

/// Decodes and encodes again each record, which must lose nothing, known here or not.
fn rewritten<M: Message + PartialEq>(name: &str, kind: Kind, bytes: &[u8]) {
    let mut reader = Reader::new(bytes, bytes.len() as u64, PathBuf::from(name), kind).expect("a good header");
    while let Some(record) = reader.bytes().expect("a good record") {
        let message = M::parse_from_bytes(record).expect("a good message");
        let again = message.write_to_bytes().expect("all that is required is set");
        assert_eq!(again.len(), record.len(), "{name}");
        assert!(M::parse_from_bytes(&again).expect("a good message") == message, "{name}");
    }
}

#[test]
fn unknown_fields_survive_a_rewrite() {
    for (name, kind, bytes) in image_files() {
        match kind {
            Kind::Inventory => rewritten::<proto::inventory::Inventory_entry>(&name, kind, &bytes),
            Kind::Pstree => rewritten::<proto::pstree::Pstree_entry>(&name, kind, &bytes),
            Kind::Core => rewritten::<proto::core::Core_entry>(&name, kind, &bytes),
            Kind::Files => rewritten::<proto::fdinfo::File_entry>(&name, kind, &bytes),
            Kind::Descriptors => rewritten::<proto::fdinfo::Fdinfo_entry>(&name, kind, &bytes),
            Kind::Memory => rewritten::<proto::mm::Mm_entry>(&name, kind, &bytes),
            Kind::Directories => rewritten::<proto::fs::Fs_entry>(&name, kind, &bytes),
            Kind::Remaps => rewritten::<proto::remap_file_path::Remap_file_path_entry>(&name, kind, &bytes),
            Kind::Memfds => rewritten::<proto::memfd::Memfd_inode_entry>(&name, kind, &bytes),
            Kind::DumpStatistics => rewritten::<proto::stats::Stats_entry>(&name, kind, &bytes),
            _ => {}
        }
    }
    // The registers of a core are in no field that this crate knows.
    let (_, _, core) =
        image_files().into_iter().find(|(_, kind, bytes)| *kind == Kind::Core && bytes.len() > 1000).expect("one");
    let message: proto::core::Core_entry = messages(Kind::Core, &core).remove(0);
    assert!(message.thread_info.special_fields.unknown_fields().get(3).is_some(), "fpregs");
}

fn tasks() -> impl Strategy<Value = Vec<Task>> {
    let task = (any::<[u32; 4]>(), prop::collection::vec(any::<u32>(), 0..5));
    let task = task.prop_map(|([pid, ppid, pgid, sid], threads)| Task { pid, ppid, pgid, sid, threads });
    prop::collection::vec(task, 0..20)
}

fn ranges() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
    prop::collection::vec((0u32..1000, 0u32..100_000, 0u32..8), 0..50)
}

proptest! {
    #[test]
    fn tasks_are_read_as_they_were_written(tasks in tasks()) {
        let written: Vec<_> = tasks.iter().map(|task| proto::pstree::Pstree_entry {
            pid: Some(task.pid),
            ppid: Some(task.ppid),
            pgid: Some(task.pgid),
            sid: Some(task.sid),
            threads: task.threads.clone(),
            ..Default::default()
        }).collect();
        let bytes = image(Kind::Pstree, written.iter().map(|message| message as &dyn MessageDyn));
        let reader = Reader::new(&bytes[..], bytes.len() as u64, PathBuf::from("pstree"), Kind::Pstree).expect("good");
        prop_assert_eq!(reader.all::<Task>().expect("good"), tasks);
    }

    #[test]
    fn pagemaps_are_read_as_they_were_written(parts in ranges(), new_form in any::<bool>()) {
        let mut address = 0u64;
        let mut expected = Vec::new();
        let head = proto::pagemap::Pagemap_head { pages_id: Some(1), ..Default::default() };
        let entries: Vec<_> = parts.iter().map(|&(gap, pages, flags)| {
            address += u64::from(gap) * 4096;
            let entry = proto::pagemap::Pagemap_entry {
                vaddr: Some(address),
                compat_nr_pages: Some(if new_form { 0 } else { pages }),
                nr_pages: new_form.then_some(pages.into()),
                flags: Some(flags),
                ..Default::default()
            };
            let place = match flags {
                _ if flags & 1 != 0 => Place::Parent,
                2 => Place::Lazy,
                _ => Place::Stored,
            };
            expected.push(PageRange { address, pages: pages.into(), place });
            address += u64::from(pages) * 4096;
            entry
        }).collect();
        let all = std::iter::once(&head as &dyn MessageDyn).chain(entries.iter().map(|entry| entry as &dyn MessageDyn));
        let bytes = image(Kind::Pagemap, all);
        let reader = Reader::new(&bytes[..], bytes.len() as u64, PathBuf::from("pagemap"), Kind::Pagemap).expect("good");
        let read: Vec<_> = Pagemap::new(reader).expect("a head").map(|range| range.expect("good")).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(kind in 0..Kind::ALL.len(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let kind = Kind::ALL[kind];
        let mut framed = image(kind, []);
        framed.extend(u32::try_from(bytes.len()).expect("small").to_le_bytes());
        framed.extend(&bytes);
        let _ = walk_bytes(kind, &framed);
        let _ = walk_bytes(kind, &bytes);
    }

    #[test]
    fn no_flipped_bits_make_a_reader_panic(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bits in 1u8..) {
        let files = image_files();
        let (_, kind, mut bytes) = files[file.index(files.len())].clone();
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let _ = walk_bytes(kind, &bytes);
    }
}
