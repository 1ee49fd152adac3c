//! A source that means harm.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::thread;

use proptest::prelude::*;

use super::fixture::{QUICK, chain, content, names, place};
use crate::images::PagemapOf::Task;
use crate::pages::record::Record;
use crate::pages::run::{Run, page_size};
use crate::pages::{Plain, Store, Stored};
use crate::{Error, Result};

/// What a store makes of these bytes and the end behind them.
fn store(directory: &std::path::Path, limit: u64, bytes: Vec<u8>) -> Result<Stored> {
    let (mut near, far) = UnixStream::pair().unwrap();
    let store = Store::new(directory).unwrap().limit(limit).patience(QUICK);
    let writing = thread::spawn(move || {
        // The store may have closed; its answer is not read.
        let _ = near.write_all(&bytes);
        let _ = near.shutdown(std::net::Shutdown::Write);
        near
    });
    let (link, stored) = store.run(Plain::socket(far).unwrap());
    drop(link);
    drop(writing.join().unwrap());
    stored
}

fn stream(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(|record| record.encode()).collect()
}

fn entry(address: u64, pages: u64) -> Record {
    Record::Entry(Run { address, pages, flags: 4 })
}

/// A good stream of one entry of four pages in three pieces.
fn good() -> Vec<u8> {
    let page = page_size();
    let mut bytes =
        stream(&[Record::Start, Record::Open(Task(1)), entry(0, 4), Record::Data { bytes: page, hash: None }]);
    bytes.extend(content(1, 1, &[]));
    bytes.extend(stream(&[Record::Zero { bytes: page }, Record::Data { bytes: 2 * page, hash: None }]));
    bytes.extend(content(2, 1, &[]));
    bytes.extend(stream(&[Record::End { pages: 4 }]));
    bytes
}

#[test]
fn every_prefix_of_a_good_stream_is_an_error() {
    let bytes = good();
    let whole = place();
    assert_eq!(store(whole.path(), u64::MAX, bytes.clone()).unwrap().pages, 4);
    for end in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        let place = place();
        assert!(store(place.path(), u64::MAX, bytes[..end].to_vec()).is_err(), "{end} bytes");
    }
}

#[test]
fn a_stream_out_of_order_is_refused() {
    let page = page_size();
    let open = Record::Open(Task(1));
    let data = Record::Data { bytes: page, hash: None };
    for (what, records) in [
        ("no start", vec![open]),
        ("an entry of nothing", vec![Record::Start, entry(0, 1)]),
        ("content of nothing", vec![Record::Start, open, data]),
        ("too much content", vec![Record::Start, open, entry(0, 1), Record::Zero { bytes: 2 * page }]),
        ("too little content", vec![Record::Start, open, entry(0, 1), entry(page, 1)]),
        ("too little at the end", vec![Record::Start, open, entry(0, 1), Record::End { pages: 1 }]),
        ("another sum", vec![Record::Start, open, entry(0, 1), Record::Zero { bytes: page }, Record::End { pages: 2 }]),
        ("a pagemap twice", vec![Record::Start, open, open]),
        ("an answer", vec![Record::Start, Record::Stored { pages: 0 }]),
        ("two starts", vec![Record::Start, Record::Start]),
    ] {
        let place = place();
        let error = store(place.path(), u64::MAX, stream(&records)).unwrap_err();
        assert!(chain(&error).contains("the other end sent"), "{what}: {}", chain(&error));
    }
}

#[test]
fn a_limit_counts_zeros_and_entries_too() {
    let page = page_size();
    let many = 1 << 30;
    let zeros = [Record::Start, Record::Open(Task(1)), entry(0, many), Record::Zero { bytes: many * page }];
    let place = place();
    let error = store(place.path(), 1 << 20, stream(&zeros)).unwrap_err();
    assert!(chain(&error).contains("1048576 bytes that are allowed"), "{}", chain(&error));

    let place = super::fixture::place();
    let mut holes = vec![Record::Start, Record::Open(Task(1))];
    holes.resize(40_000, Record::Entry(Run { address: 0, pages: 1, flags: 1 }));
    let error = store(place.path(), 1 << 20, stream(&holes)).unwrap_err();
    assert!(chain(&error).contains("1048576 bytes that are allowed"), "{}", chain(&error));
}

#[test]
fn damage_on_the_way_is_seen_where_there_are_hashes() {
    let hash = Some(crate::pages::block::hash(&content(1, 1, &[])));
    let data = Record::Data { bytes: page_size(), hash };
    let mut bytes = stream(&[Record::Start, Record::Open(Task(1)), entry(0x5000, 1), data]);
    bytes.extend(content(1, 2, &[]));
    let place = place();
    let error = store(place.path(), u64::MAX, bytes).unwrap_err();
    assert!(chain(&error).contains("0x5000 arrived damaged"), "{}", chain(&error));
}

#[test]
fn nothing_that_is_there_is_written_to() {
    for name in ["pagemap-1.img", "pages-65537.img"] {
        let (place, elsewhere) = (place(), tempfile::NamedTempFile::new().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), place.path().join(name)).unwrap();
        let error = store(place.path(), u64::MAX, good()).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(name)), "{}", chain(&error));
        assert_eq!(elsewhere.as_file().metadata().unwrap().len(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_change_of_a_good_stream_is_an_error_or_stays_in_the_directory(
        at in 0..good().len(),
        byte in any::<u8>(),
    ) {
        let place = place();
        let mut bytes = good();
        bytes[at] = byte;
        if let Ok(stored) = store(place.path(), 1 << 20, bytes) {
            prop_assert_eq!(stored.pages, 4);
        }
        for name in names(place.path()) {
            prop_assert!(name.starts_with("pagemap-") || name.starts_with("pages-"), "{}", name);
        }
    }
}
