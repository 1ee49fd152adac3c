//! Transfers that fail: CRIU sees the end of its socket, each end knows why, and the link is of use where it was not the link.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use super::fixture::{Criu, QUICK, chain, content, is_of_use, links, place, transfer, unix};
use crate::Error;
use crate::images::PagemapOf::Task;
use crate::pages::protocol::Width;
use crate::pages::run::page_size;
use crate::pages::{Expected, Plain, Problem, Store};

/// A dump of 64 MiB, which is more than all sockets and pipes on the way hold.
fn large(criu: &mut Criu) -> std::io::Result<i32> {
    let block = content(256, 1, &[]);
    criu.open(Task(7))?;
    for address in (0..64).map(|block| block << 20) {
        criu.add(address, &block)?;
    }
    criu.close()
}

#[test]
fn what_the_far_end_says_reaches_the_source_and_criu_is_let_go() {
    for (name, ends) in links() {
        let place = place();
        let store = Store::new(place.path()).unwrap().limit(10 << 20);
        let mut outcome = transfer(Criu::pair(Width::Long), store, ends, large);
        assert!(outcome.criu.is_err(), "{name}: CRIU was told that all was well");
        let (sent, stored) = (outcome.sent.unwrap_err(), outcome.stored.unwrap_err());
        assert!(
            matches!(&stored, Error::Pages { source: Problem::TooLarge { limit_bytes } } if *limit_bytes == 10 << 20)
        );
        let Error::Pages { source: Problem::Far { reason } } = &sent else { panic!("{name}: {}", chain(&sent)) };
        assert!(reason.contains("10485760 bytes that are allowed"), "{name}: {reason}");
        assert!(is_of_use(&mut outcome.ends), "{name} is of no use afterwards");
    }
}

#[test]
fn a_criu_that_ends_in_mid_run_leaves_two_ends_that_know_where_they_are() {
    for (name, ends) in links() {
        let place = place();
        let says = |criu: &mut Criu| {
            criu.open(Task(7)).unwrap();
            criu.add(0, &content(4, 1, &[])).unwrap();
            // Three pages are announced and one and a half sent.
            criu.say(super::fixture::ADD, 4, 3, 0x10_0000).unwrap();
            std::io::Write::write_all(&mut criu.socket, &content(2, 1, &[])[..page_size() as usize * 3 / 2]).unwrap();
            criu.socket.shutdown(std::net::Shutdown::Both).unwrap();
        };
        let mut outcome = transfer(Criu::pair(Width::Long), Store::new(place.path()).unwrap(), ends, says);
        assert!(matches!(outcome.sent, Err(Error::Pages { source: Problem::CriuGone })), "{name}");
        let Err(Error::Pages { source: Problem::Far { reason } }) = &outcome.stored else { panic!("{name}") };
        assert!(reason.contains("CRIU ended"), "{name}: {reason}");
        assert!(is_of_use(&mut outcome.ends), "{name} is of no use afterwards");
    }
}

#[test]
fn nonsense_of_criu_fails_with_what_it_was() {
    let place = place();
    let says = |criu: &mut Criu| {
        criu.open(Task(7)).unwrap();
        criu.say(7, 0, 1, 0).unwrap();
        criu.status()
    };
    let outcome = transfer(Criu::pair(Width::Long), Store::new(place.path()).unwrap(), unix(), says);
    assert!(outcome.criu.is_err());
    assert!(chain(&outcome.sent.unwrap_err()).contains("the command 0x7"));
}

#[test]
fn a_cut_link_fails_both_ends() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let (relay, mut criu) = Criu::pair(Width::Long);
    let dumping = thread::spawn(move || large(&mut criu));
    let relaying = thread::spawn(move || relay.run(Plain::socket(near).unwrap()).1);
    far.read_exact(&mut vec![0; 1 << 20]).unwrap();
    drop(far);
    assert!(dumping.join().unwrap().is_err());
    let error = relaying.join().unwrap().unwrap_err();
    assert!(matches!(&error, Error::Pages { source } if source.has_broken_the_link()), "{}", chain(&error));

    let (place, (near, far)) = (place(), UnixStream::pair().unwrap());
    drop(near);
    let (_, stored) = Store::new(place.path()).unwrap().run(Plain::socket(far).unwrap());
    assert!(matches!(stored, Err(Error::Pages { source: Problem::Cut | Problem::Link { .. } })));
}

#[test]
fn a_silent_far_end_is_given_up_in_time() {
    let (near, far) = UnixStream::pair().unwrap();
    let (relay, mut criu) = Criu::pair(Width::Long);
    let dumping = thread::spawn(move || large(&mut criu));
    let began = Instant::now();
    let (_, sent) = relay.patience(QUICK).run(Plain::socket(near).unwrap());
    assert!(matches!(sent, Err(Error::Pages { source: Problem::Silence { .. } })));
    assert!(began.elapsed() < QUICK.silence * 10);
    assert!(dumping.join().unwrap().is_err());
    drop(far);

    // While CRIU has nothing to say too.
    let (near, far) = UnixStream::pair().unwrap();
    let (relay, criu) = Criu::pair(Width::Long);
    let (_, sent) = relay.patience(QUICK).run(Plain::socket(near).unwrap());
    assert!(matches!(sent, Err(Error::Pages { source: Problem::Silence { .. } })));
    drop((criu, far));
}

#[test]
fn a_silent_source_is_given_up_in_time() {
    let (place, (near, far)) = (place(), UnixStream::pair().unwrap());
    let (_, stored) = Store::new(place.path()).unwrap().patience(QUICK).run(Plain::socket(far).unwrap());
    assert!(matches!(stored, Err(Error::Pages { source: Problem::Silence { .. } })));
    drop(near);
}

#[test]
fn a_criu_that_takes_its_time_is_waited_for() {
    let place = place();
    let (relay, criu) = Criu::pair(Width::Long);
    let says = |criu: &mut Criu| {
        criu.open(Task(7)).unwrap();
        // Longer than the link may be silent.
        thread::sleep(QUICK.silence * 3);
        criu.add(0, &content(1, 1, &[])).unwrap();
        criu.close()
    };
    let store = Store::new(place.path()).unwrap().patience(QUICK);
    let outcome = transfer((relay.patience(QUICK), criu), store, unix(), says);
    assert_eq!(outcome.criu.unwrap(), 0);
    outcome.stored.unwrap();
}

#[test]
fn either_end_can_be_stopped() {
    for is_source in [true, false] {
        let place = place();
        let (relay, criu) = Criu::pair(Width::Long);
        let store = Store::new(place.path()).unwrap();
        let stop = if is_source { relay.stop() } else { store.stop() };
        let says = move |criu: &mut Criu| {
            criu.open(Task(7)).unwrap();
            criu.add(0, &content(1, 1, &[])).unwrap();
            stop.stop();
            criu.status()
        };
        let mut outcome = transfer((relay, criu), store, unix(), says);
        assert!(outcome.criu.is_err());
        let (stopped, other) = match is_source {
            true => (outcome.sent.unwrap_err(), outcome.stored.unwrap_err()),
            false => (outcome.stored.unwrap_err(), outcome.sent.unwrap_err()),
        };
        assert!(matches!(stopped, Error::Pages { source: Problem::Stopped }));
        assert!(chain(&other).contains("it was stopped"), "{}", chain(&other));
        assert!(is_of_use(&mut outcome.ends));
    }
}

#[test]
fn what_cannot_be_touched_is_refused_before_anything_is_made() {
    let place = place();
    let mut store = Store::new(place.path()).unwrap().limit(1 << 20);
    let expected = Expected { of: None, bytes: 1 << 19 };
    assert!(store.touch(&[expected, expected, expected]).is_err());
    assert!(store.touch(&[Expected { of: None, bytes: u64::MAX }, expected]).is_err());
    assert_eq!(super::fixture::names(place.path()), [""; 0]);
    store.stop().stop();
    assert!(matches!(store.touch(&[expected]), Err(Error::Pages { source: Problem::Stopped })));
}

#[test]
fn two_transfers_at_once_do_not_meet() {
    let ends: Vec<_> = (0..4_u8).map(|seed| (seed, place(), unix())).collect();
    thread::scope(|scope| {
        for (seed, place, ends) in ends {
            scope.spawn(move || {
                let says = |criu: &mut Criu| {
                    criu.open(Task(1))?;
                    criu.add(0, &content(300, seed, &[]))?;
                    criu.close()
                };
                let outcome = transfer(Criu::pair(Width::Long), Store::new(place.path()).unwrap(), ends, says);
                assert_eq!(outcome.criu.unwrap(), 0);
                assert!(super::fixture::read(place.path(), Task(1)).1 == content(300, seed, &[]));
            });
        }
    });
}
