//! Transfers that pass.

use super::fixture::{ADD, Criu, PARENT, content, is_of_use, links, names, place, read, transfer, unix};
use crate::images::PagemapOf::{Shared, Task};
use crate::images::Place::{Parent, Stored};
use crate::pages::protocol::Width;
use crate::pages::run::page_size;
use crate::pages::{Expected, Store};

/// Two tasks and shared memory.
fn dump(criu: &mut Criu) -> std::io::Result<i32> {
    criu.open(Task(7))?;
    criu.add(0x1000, &content(3, 1, &[]))?;
    // More than a pipe holds.
    criu.add(0x10_0000, &content(600, 2, &[0, 5, 6, 7, 599]))?;
    criu.say(PARENT, 0, 0, 0)?;
    assert_eq!(criu.status()?, 0);
    criu.say(ADD, 1, 9, 0x1000_0000)?;
    criu.add(0x2000_0000, &content(1, 3, &[0]))?;
    criu.open(Task(8))?;
    criu.open(Shared(99))?;
    criu.add(0, &content(2, 4, &[1]))?;
    criu.close()
}

fn is_whole(directory: &std::path::Path) {
    let (ranges, pages) = read(directory, Task(7));
    let parts = [(0x1000, 3, Stored), (0x10_0000, 600, Stored), (0x1000_0000, 9, Parent), (0x2000_0000, 1, Stored)];
    assert_eq!(ranges, parts);
    assert!(pages == [content(3, 1, &[]), content(600, 2, &[0, 5, 6, 7, 599]), content(1, 3, &[0])].concat());
    assert_eq!(read(directory, Task(8)), (vec![], vec![]));
    let (ranges, pages) = read(directory, Shared(99));
    assert_eq!(ranges, [(0, 2, Stored)]);
    assert!(pages == content(2, 4, &[1]));
    let expected = [
        "pagemap-7.img",
        "pagemap-8.img",
        "pagemap-shmem-99.img",
        "pages-65537.img",
        "pages-65538.img",
        "pages-65539.img",
    ];
    assert_eq!(names(directory), expected);
}

#[test]
fn memory_arrives_as_it_was_sent_over_every_link_from_every_criu() {
    for width in [Width::Short, Width::Long] {
        for hashes in [false, true] {
            for (name, ends) in links() {
                let place = place();
                let (relay, criu) = Criu::pair(width);
                let relay = if hashes { relay.with_hashes() } else { relay };
                let mut outcome = transfer((relay, criu), Store::new(place.path()).unwrap(), ends, dump);
                assert_eq!(outcome.criu.unwrap(), 0, "{name} {width:?} hashes {hashes}");
                let (sent, stored) = (outcome.sent.unwrap(), outcome.stored.unwrap());
                assert_eq!((sent.pagemaps, sent.pages), (3, 606));
                assert_eq!((stored.pagemaps, stored.pages, stored.zero_pages), (3, 606, sent.zero_pages));
                let zeros = if hashes || name == "tls" { 7 } else { 0 };
                assert_eq!(sent.zero_pages, zeros, "{name} {width:?} hashes {hashes}");
                is_whole(place.path());
                assert!(is_of_use(&mut outcome.ends), "{name} is of no use afterwards");
            }
        }
    }
}

#[test]
fn touched_files_that_are_too_long_too_short_or_for_nothing_end_as_the_others() {
    let page = page_size();
    let long = Expected { of: Some(Task(7)), bytes: 900 * page };
    let short = Expected { of: Some(Task(7)), bytes: 5 * page };
    let other = Expected { of: None, bytes: 50 * page };
    let none = Expected { of: Some(Task(1234)), bytes: page };
    for expected in [vec![long], vec![short], vec![other], vec![short, other, other, none], vec![none]] {
        for hashes in [false, true] {
            let place = place();
            let mut store = Store::new(place.path()).unwrap();
            store.touch(&expected).unwrap();
            let (relay, criu) = Criu::pair(Width::Long);
            let relay = if hashes { relay.with_hashes() } else { relay };
            let outcome = transfer((relay, criu), store, unix(), dump);
            assert_eq!(outcome.criu.unwrap(), 0);
            outcome.stored.unwrap();
            is_whole(place.path());
        }
    }
}

#[test]
fn a_dump_of_no_memory_at_all_is_closed_as_any_other() {
    for (width, version) in [(Width::Short, "4.1.1"), (Width::Long, "4.2")] {
        let place = place();
        let (relay, criu) = Criu::pair(width);
        let relay = relay.version(version.parse().unwrap());
        let outcome = transfer((relay, criu), Store::new(place.path()).unwrap(), unix(), Criu::close);
        assert_eq!(outcome.criu.unwrap(), 0);
        assert_eq!(outcome.stored.unwrap().pages, 0);
        assert_eq!(names(place.path()), [""; 0]);
    }
}
