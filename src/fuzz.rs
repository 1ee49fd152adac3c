//! What the fuzz targets call: each takes any bytes and must neither panic nor run away. Not part of the interface.
//!
//! `fuzz/fuzz_targets/NAME.rs` feeds one function; `tests/corpus.rs` runs all of them over `fuzz/corpus/NAME` on stable.

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every function by the name of its target and corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("image", image),
    ("journal", journal),
    ("log", log),
    ("oci", oci),
    ("pages", pages),
    ("record", record),
    ("reply", reply),
    ("wire", wire),
];

/// An image file of the kind that its magic words say.
pub fn image(data: &[u8]) {
    crate::images::fuzz_image(data);
}

/// A record of a migration. What is understood is written and understood again.
pub fn journal(data: &[u8]) {
    use crate::migrate::journal::Entry;

    if let Ok(entry) = Entry::parse(data) {
        let again = entry.to_bytes().and_then(|bytes| Entry::parse(&bytes));
        assert_eq!(again.as_ref(), Ok(&entry));
    }
}

/// A log of CRIU's. What is printed of it holds no control characters, in memory as from a stream.
pub fn log(data: &[u8]) {
    let explanation = crate::log::explain(data);
    assert_eq!(crate::log::explain_reader(data).ok().as_ref(), Some(&explanation));
    assert!(explanation.to_string().chars().all(|c| c == '\n' || !c.is_control()));
}

/// A state.json, status, config.json or descriptors.json. What is understood is written and understood again, and every
/// error has a cure.
pub fn oci(data: &[u8]) {
    use std::path::Path;

    use crate::oci::{Descriptors, Spec, State, Status};

    let path = Path::new("a file");
    let state = State::parse(data, path);
    if let Ok(state) = &state {
        let again = State::parse(state.to_json().as_bytes(), path);
        assert_eq!(again.ok().map(|again| again.configuration()), Some(state.configuration()));
    }
    let status = Status::parse(data, path);
    if let Ok(status) = &status {
        let again = Status::parse(status.to_json().as_bytes(), path);
        assert_eq!(again.ok().map(|again| again.rootfs()), Some(status.rootfs()));
    }
    let spec = Spec::parse(data.to_vec(), path).map(|spec| (spec.configuration(path), spec.hooks()));
    let descriptors = Descriptors::parse(data, path);
    let errors = [state.err(), status.err(), spec.err(), descriptors.err()];
    assert!(errors.iter().flatten().all(|error| error.hint().is_some()));
}

/// What CRIU says to a page server, and what the two ends of a transfer say to each other.
pub fn pages(data: &[u8]) {
    crate::pages::fuzz(data);
}

/// A crr.json. What is understood is written and understood again.
pub fn record(data: &[u8]) {
    use crate::checkpoint::Record;

    if let Ok(record) = Record::parse(data) {
        let again = record.to_bytes().and_then(|bytes| Record::parse(&bytes));
        assert_eq!(again.as_ref(), Ok(&record));
    }
}

/// A packet from CRIU.
pub fn reply(data: &[u8]) {
    crate::operation::fuzz_reply(data);
}

/// What comes over a connection. It is understood alike in one piece and byte by byte, and a message that is understood is
/// one that can be said.
pub fn wire(data: &[u8]) {
    use crate::wire::{Decoder, Fault, Item};

    fn items(decoder: &mut Decoder, found: &mut Vec<Item>) -> Result<(), Fault> {
        loop {
            while let Some(mut payload) = decoder.payload() {
                let count = payload.bytes().len();
                if count == 0 {
                    return Ok(());
                }
                payload.consume(count)?;
            }
            match decoder.next()? {
                Some(item) => found.push(item),
                None => return Ok(()),
            }
        }
    }

    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::new();
    decoder.feed(data);
    let first = items(&mut decoder, &mut whole).is_ok();
    let mut decoder = Decoder::new();
    let second = data.iter().all(|byte| {
        decoder.feed(&[*byte]);
        items(&mut decoder, &mut pieces).is_ok()
    });
    assert_eq!((first, &whole), (second, &pieces));
    for item in whole {
        if let Item::Message(envelope) = item {
            let again = envelope.to_frame().expect("a message that was said");
            assert_eq!(crate::wire::Envelope::parse(&again[8..]).ok().as_ref(), Some(&*envelope));
        }
    }
}
