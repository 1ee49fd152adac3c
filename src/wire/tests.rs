//! What holds for any message and any bytes, and each limit.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use protobuf::Message as _;

use super::*;
use crate::proto::wire as proto;

fn id() -> Id {
    Id::from_bytes([7; 16]).unwrap()
}

fn text() -> impl Strategy<Value = Text> {
    "\\PC{0,40}".prop_map(Text::new)
}

fn said() -> impl Strategy<Value = Text> {
    "\\PC{1,40}".prop_map(Text::new)
}

fn word() -> impl Strategy<Value = String> {
    "[a-z0-9.-]{1,15}"
}

fn reason() -> impl Strategy<Value = Reason> {
    (select(Cause::ALL), said(), text()).prop_map(|(cause, text, hint)| Reason { cause, text, hint })
}

fn finding() -> impl Strategy<Value = Finding> {
    (word(), text(), text()).prop_map(|(kind, what, cure)| Finding { kind, what, cure })
}

fn moved() -> impl Strategy<Value = Move> {
    let address = prop_oneof![
        (1..u32::MAX, 1..=32_u8).prop_map(|(bits, prefix)| (std::net::Ipv4Addr::from(bits).into(), prefix)),
        (1..u128::MAX, 1..=128_u8).prop_map(|(bits, prefix)| (std::net::Ipv6Addr::from(bits).into(), prefix)),
    ];
    (address, "[a-z0-9]{1,15}", "[a-z0-9]{1,15}").prop_map(|((address, prefix), device, target_device)| Move {
        address,
        prefix,
        device,
        target_device,
    })
}

fn offer() -> impl Strategy<Value = Offer> {
    let criu = (1..9_u32, any::<u32>(), any::<u32>(), select(PageHeader::ALL))
        .prop_map(|(major, minor, sublevel, page_header)| Criu { version: (major, minor, sublevel), page_header });
    let credentials =
        vec(any::<(u32, u32, u64)>().prop_map(|(uid, gid, capabilities)| Credentials { uid, gid, capabilities }), 0..4);
    let cgroups = vec(
        (word(), "(/[a-z]{1,9}){1,4}").prop_map(|(controllers, path)| Cgroup { controllers, path: path.into() }),
        0..4,
    );
    let first = (vec(any::<u8>(), 1..300), 1..i32::MAX, word(), 1..u32::MAX, credentials, criu);
    let second = (vec(word(), 0..4), vec(word(), 0..4), vec(moved(), 0..4), any::<(u64, u64)>(), cgroups);
    let third = (vec((word(), word()), 0..4), select(Missing::ALL), vec(select(Compression::ALL), 0..4));
    (first, second, third).prop_map(|(first, second, third)| {
        let (tree, root, name, tasks, credentials, criu) = first;
        let (kernel_features, file_systems, moves, (memory_bytes, images_bytes), cgroups) = second;
        let (options, missing, compressions) = third;
        Offer {
            tree,
            root,
            name,
            tasks,
            credentials,
            criu,
            kernel_features,
            file_systems,
            moves,
            memory_bytes,
            images_bytes,
            cgroups,
            options,
            missing,
            compressions,
        }
    })
}

fn object() -> impl Strategy<Value = Object> {
    let name = prop_oneof![
        "[a-z0-9-]{1,20}\\.img".prop_map(|name| (ObjectKind::Image, name)),
        "[a-z0-9-]{1,20}".prop_map(|name| (ObjectKind::Pages, name)),
        "(/[a-z]{1,9}){1,4}".prop_map(|name| (ObjectKind::File, name)),
    ];
    let length = proptest::option::of(0..i64::MAX as u64);
    (1..u64::MAX, name, 0..=0o777_u32, select(Compression::ALL), length).prop_map(
        |(number, (kind, name), mode, compression, length_bytes)| Object {
            number,
            kind,
            name: name.into(),
            mode,
            compression,
            length_bytes,
        },
    )
}

fn object_end() -> impl Strategy<Value = ObjectEnd> {
    let sum =
        prop_oneof![Just(Sum::Absent), any::<[u8; 32]>().prop_map(Sum::Blake3), any::<[u8; 16]>().prop_map(Sum::Xxh3),];
    (1..u64::MAX, 0..i64::MAX as u64, sum).prop_map(|(number, length_bytes, sum)| ObjectEnd {
        number,
        length_bytes,
        sum,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let hello = (word(), word(), word(), vec(word(), 0..4))
        .prop_map(|(crr, host, boot_id, abilities)| Message::Hello(Hello { crr, host, boot_id, abilities }));
    let ready =
        (vec("(/[a-z]{1,9}){1,4}", 0..4), select(PageHeader::ALL), select(Compression::ALL), vec(finding(), 0..3))
            .prop_map(|(wanted, page_header, compression, remarks)| {
                let wanted = wanted.into_iter().map(Into::into).collect();
                Message::Ready(Ready { wanted, page_header, compression, remarks })
            });
    let plain =
        select(vec![Message::Commit, Message::Running, Message::Lost, Message::Unknown, Message::Ask, Message::Forget]);
    prop_oneof![
        hello,
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        (select(Level::ALL), text()).prop_map(|(level, line)| Message::Log(LogLine { level, line })),
        (select(Phase::ALL), any::<(u64, u64)>()).prop_map(|(phase, (done_bytes, total_bytes))| {
            Message::Progress(Progress { phase, done_bytes, total_bytes })
        }),
        (select(Phase::ALL), reason()).prop_map(|(phase, reason)| Message::Failure(Failure { phase, reason })),
        offer().prop_map(|offer| Message::Offer(Box::new(offer))),
        ready,
        vec(finding(), 1..4).prop_map(|findings| Message::Refused(Refused { findings })),
        any::<u32>().prop_map(|objects| Message::Go { objects }),
        (1..i32::MAX, 1..u32::MAX, any::<u64>())
            .prop_map(|(root, tasks, restore_us)| { Message::Prepared(Prepared { root, tasks, restore_us }) }),
        reason().prop_map(Message::Abort),
        reason().prop_map(Message::Aborted),
        reason().prop_map(Message::Returned),
        plain,
        object().prop_map(Message::Object),
        object_end().prop_map(Message::ObjectEnd),
        object_end().prop_map(Message::ObjectReceived),
    ]
}

/// Everything that a connection of these bytes gives, each payload put together.
fn items(decoder: &mut Decoder) -> Result<Vec<(Item, Vec<u8>)>, Fault> {
    let mut found: Vec<(Item, Vec<u8>)> = Vec::new();
    loop {
        while let Some(mut payload) = decoder.payload() {
            let bytes = payload.bytes().to_vec();
            if bytes.is_empty() {
                return Ok(found);
            }
            found.last_mut().expect("a header").1.extend(&bytes);
            payload.consume(bytes.len())?;
        }
        match decoder.next()? {
            Some(item) => found.push((item, Vec::new())),
            None => return Ok(found),
        }
    }
}

fn conversation(messages: &[Message]) -> Vec<u8> {
    let mut bytes = greeting().to_vec();
    for (number, message) in messages.iter().enumerate() {
        bytes.extend(Envelope { id: id(), message: message.clone() }.to_frame().unwrap());
        let payload = vec![number as u8; number * 7 + 1];
        let header = DataHeader { object: 3, offset: number as u64, length: payload.len() as u32 };
        bytes.extend(header.to_bytes().unwrap());
        bytes.extend(payload);
    }
    bytes
}

proptest! {
    #[test]
    fn what_is_said_is_heard_however_it_is_cut(messages in vec(message(), 0..4), cuts in vec(1..90_usize, 1..50)) {
        let bytes = conversation(&messages);
        let mut decoder = Decoder::new();
        let mut heard: Vec<(Item, Vec<u8>)> = Vec::new();
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = after;
            decoder.feed(piece);
            // A payload that has begun goes on with the next piece.
            while let Some(mut payload) = decoder.payload() {
                let bytes = payload.bytes().to_vec();
                if bytes.is_empty() {
                    break;
                }
                heard.last_mut().unwrap().1.extend(&bytes);
                payload.consume(bytes.len()).unwrap();
            }
            heard.extend(items(&mut decoder).unwrap());
        }
        prop_assert!(decoder.end().is_ok());
        prop_assert_eq!(&heard[0].0, &Item::Greeting(1));
        prop_assert_eq!(heard.len(), 1 + 2 * messages.len());
        for (number, message) in messages.into_iter().enumerate() {
            let said = Envelope { id: id(), message };
            prop_assert_eq!(&heard[1 + 2 * number].0, &Item::Message(Box::new(said)));
            prop_assert_eq!(heard[2 + 2 * number].1.len(), number * 7 + 1);
        }
    }

    #[test]
    fn who_reads_what_is_wanted_leaves_payloads_on_the_connection(messages in vec(message(), 1..4)) {
        let bytes = conversation(&messages);
        let mut decoder = Decoder::new();
        let (mut at, mut spliced) = (0, 0);
        while at < bytes.len() {
            if let Some(mut payload) = decoder.payload() {
                prop_assert!(payload.bytes().is_empty());
                let left = payload.left();
                // Not all at once, as the kernel does it.
                let some = left.div_ceil(2);
                payload.spliced(some).unwrap();
                at += some as usize;
                spliced += some as usize;
                continue;
            }
            if decoder.next().unwrap().is_none() {
                let wanted = decoder.wanted();
                prop_assert!(wanted > 0);
                decoder.feed(&bytes[at..at + wanted]);
                at += wanted;
            }
        }
        prop_assert_eq!(spliced, (0..messages.len()).map(|number| number * 7 + 1).sum::<usize>());
    }

    #[test]
    fn every_prefix_ends_within_something(messages in vec(message(), 1..3), part in 0.0..1.0) {
        let bytes = conversation(&messages);
        let whole = items(&mut fed(&bytes)).unwrap().len();
        let cut = (bytes.len() as f64 * part) as usize;
        let mut decoder = fed(&bytes[..cut]);
        let found = items(&mut decoder).unwrap().len();
        prop_assert!(found < whole || decoder.end().is_err());
    }

    #[test]
    fn any_bytes_are_understood_or_refused(bytes in vec(any::<u8>(), 0..400), greeted in any::<bool>()) {
        let mut all = if greeted { greeting().to_vec() } else { Vec::new() };
        all.extend(&bytes);
        let _ = items(&mut fed(&all));
        let _ = Envelope::parse(&bytes);
    }

    #[test]
    fn a_changed_byte_is_understood_or_refused(message in message(), at in any::<usize>(), by in 1..=255_u8) {
        let mut bytes = conversation(&[message]);
        let at = at % bytes.len();
        bytes[at] ^= by;
        let _ = items(&mut fed(&bytes));
    }
}

fn fed(bytes: &[u8]) -> Decoder {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    decoder
}

fn greeted(bytes: &[u8]) -> Decoder {
    let mut all = greeting().to_vec();
    all.extend(bytes);
    let mut decoder = fed(&all);
    assert_eq!(decoder.next().unwrap(), Some(Item::Greeting(1)));
    decoder
}

#[test]
fn a_length_beyond_the_limit_is_refused_when_only_the_header_is_there() {
    for (kind, limit) in [(1, MESSAGE_LIMIT), (2, PAYLOAD_LIMIT)] {
        for length in [limit + 1, u32::MAX] {
            let mut header = vec![kind, 0, 0, 0];
            header.extend(length.to_le_bytes());
            let mut decoder = greeted(&header);
            assert!(matches!(decoder.next(), Err(Fault::TooLong { length: found, .. }) if found == u64::from(length)));
            // Nothing more is read, and nothing kept.
            assert!(matches!(decoder.next(), Err(Fault::Misuse { .. })));
            assert_eq!(decoder.wanted(), 0);
        }
        let mut header = vec![kind, 0, 0, 0];
        header.extend(limit.to_le_bytes());
        assert!(matches!(greeted(&header).next(), Ok(None)));
    }
}

#[test]
fn kinds_and_zeros_are_checked() {
    for kind in [0, 3, 255] {
        assert!(
            matches!(greeted(&[kind, 0, 0, 0, 0, 0, 0, 0]).next(), Err(Fault::Kind { kind: found }) if found == kind)
        );
    }
    for at in 1..4 {
        let mut header = [1, 0, 0, 0, 0, 0, 0, 0];
        header[at] = 1;
        assert!(matches!(greeted(&header).next(), Err(Fault::Reserved { .. })));
    }
}

#[test]
fn data_has_an_object_a_length_and_a_place_within_a_file() {
    let good = DataHeader { object: 1, offset: i64::MAX as u64 - 1, length: 1 };
    assert!(good.to_bytes().is_ok());
    for bad in [
        DataHeader { object: 0, ..good },
        DataHeader { length: 0, ..good },
        DataHeader { length: 2, ..good },
        DataHeader { offset: u64::MAX, ..good },
        DataHeader { length: PAYLOAD_LIMIT + 1, offset: 0, ..good },
    ] {
        assert!(bad.to_bytes().is_err(), "{bad:?}");
        let mut bytes = good.to_bytes().unwrap();
        bytes[4..8].copy_from_slice(&bad.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&bad.object.to_le_bytes());
        bytes[16..].copy_from_slice(&bad.offset.to_le_bytes());
        assert!(greeted(&bytes).next().is_err(), "{bad:?}");
    }
}

#[test]
fn a_payload_is_taken_in_its_order_or_not_at_all() {
    let mut bytes = DataHeader { object: 1, offset: 0, length: 10 }.to_bytes().unwrap().to_vec();
    bytes.extend([5; 4]);
    let mut decoder = greeted(&bytes);
    assert!(matches!(decoder.next(), Ok(Some(Item::Data(_)))));
    let mut payload = decoder.payload().unwrap();
    assert!(payload.spliced(1).is_err(), "the fed ones come first");
    assert!(payload.consume(5).is_err());
    payload.consume(4).unwrap();
    assert!(payload.spliced(7).is_err());
    payload.spliced(6).unwrap();
    assert!(decoder.payload().is_none());
    assert!(decoder.end().is_ok());
}

#[test]
fn what_is_not_crr_is_refused_with_its_first_byte_and_shown() {
    assert!(matches!(fed(b"S").next(), Err(Fault::NotCrr { .. })));
    let fault = fed(b"\x1b[31mbash: crr: command not found\n").next().unwrap_err();
    assert!(fault.to_string().contains(r"\x1b[31mbash: crr: command not found\n"), "{fault}");
    assert!(matches!(fed(b"crr-w").next(), Ok(None)));
}

#[test]
fn a_message_of_more_fields_than_any_is_not_decoded() {
    // An empty log line each.
    let bytes = b"\x2a\0".repeat(FIELDS_LIMIT + 1);
    assert!(matches!(Envelope::parse(&bytes), Err(Fault::TooManyFields { .. })));
}

#[test]
fn groups_in_groups_do_not_exhaust_the_stack() {
    let _ = Envelope::parse(&vec![0x0b; MESSAGE_LIMIT as usize]);
    // Messages in messages, as far as there are any.
    let _ = Envelope::parse(&[0x52, 0x7f].repeat(1 << 16));
}

type Change<'a> = &'a dyn Fn(&mut proto::Envelope);

#[test]
fn zero_and_nothing_are_refused_wherever_something_must_be() {
    let envelope = |change: Change<'_>| {
        let mut envelope = proto::Envelope::new();
        envelope.migration = vec![7; 16];
        change(&mut envelope);
        Envelope::parse(&envelope.write_to_bytes().unwrap()).map_err(|fault| fault.to_string())
    };
    use proto::envelope::Body;
    assert_eq!(envelope(&|it| it.body = Some(Body::Commit(proto::Empty::new()))).unwrap().message, Message::Commit);
    let cases: &[(&str, Change<'_>)] = &[
        ("body", &|_| {}),
        ("migration", &|it| {
            it.migration = vec![0; 16];
            it.body = Some(Body::Commit(proto::Empty::new()));
        }),
        ("migration", &|it| {
            it.migration.pop();
            it.body = Some(Body::Commit(proto::Empty::new()));
        }),
        ("reason", &|it| it.body = Some(Body::Abort(proto::Reason::new()))),
        ("level", &|it| it.body = Some(Body::Log(proto::LogLine::new()))),
        ("phase", &|it| it.body = Some(Body::Progress(proto::Progress::new()))),
        ("reason", &|it| it.body = Some(Body::Failure(proto::Failure::new()))),
        ("tree", &|it| it.body = Some(Body::Offer(proto::Offer::new()))),
        ("page header", &|it| it.body = Some(Body::Ready(proto::Ready::new()))),
        ("finding", &|it| it.body = Some(Body::Refused(proto::Refused::new()))),
        ("restored tree", &|it| it.body = Some(Body::Prepared(proto::Prepared::new()))),
        ("kind of object", &|it| it.body = Some(Body::Object(proto::Object::new()))),
        ("sum", &|it| it.body = Some(Body::ObjectEnd(proto::ObjectEnd::new()))),
        ("version of crr", &|it| it.body = Some(Body::Hello(proto::Hello::new()))),
    ];
    for (field, change) in cases {
        let fault = envelope(change).unwrap_err();
        assert!(fault.contains(field), "{field}: {fault}");
    }
}

/// What a peer would refuse is not sent either.
fn refused(message: Message) -> bool {
    Envelope { id: id(), message }.to_frame().is_err()
}

#[test]
fn names_of_objects_lead_nowhere_else() {
    let object = |kind, name: &str| {
        let name = name.into();
        Message::Object(Object {
            number: 1,
            kind,
            name,
            mode: 0o644,
            compression: Compression::None,
            length_bytes: None,
        })
    };
    assert!(!refused(object(ObjectKind::Image, "pages-1.img")));
    assert!(!refused(object(ObjectKind::File, "/usr/lib/x.so")));
    for name in ["", ".", "..", "/x", "a/b", "../x", "x/", &"x".repeat(256)] {
        assert!(refused(object(ObjectKind::Image, name)), "{name}");
    }
    for name in ["", "/", "x", "/x/../y", "/x//y", "/x/./y", "/x/", &format!("/{}", "x".repeat(4096))] {
        assert!(refused(object(ObjectKind::File, name)), "{name}");
    }
    let Message::Object(mut setuid) = object(ObjectKind::File, "/x") else { unreachable!() };
    setuid.mode = 0o4755;
    assert!(refused(Message::Object(setuid)));
}

#[test]
fn lists_and_texts_are_limited() {
    let finding = Finding { kind: "x".into(), what: "y".into(), cure: Text::default() };
    assert!(!refused(Message::Refused(Refused { findings: vec![finding.clone(); LIST_LIMIT] })));
    assert!(refused(Message::Refused(Refused { findings: vec![finding; LIST_LIMIT + 1] })));
    let hello = |crr: String| Message::Hello(Hello { crr, host: "h".into(), boot_id: "b".into(), abilities: vec![] });
    assert!(!refused(hello("1".repeat(256))));
    assert!(refused(hello("1".repeat(257))));
    assert!(refused(hello("1\n2".into())));
    // A text is cut by whoever says it, and one that was not is refused.
    let long = Text::new("ä".repeat(9000));
    assert!(long.as_raw().len() <= 8192 && long.as_raw().ends_with("ä…"));
    let mut log = proto::LogLine::new();
    log.level = proto::log_line::Level::INFO.into();
    log.line = "x".repeat(8193);
    let mut envelope = proto::Envelope::new();
    envelope.migration = vec![7; 16];
    envelope.body = Some(proto::envelope::Body::Log(log));
    let fault = Envelope::parse(&envelope.write_to_bytes().unwrap()).unwrap_err();
    assert_eq!(fault.to_string(), "a message whose line is longer than 8192");
}

#[test]
fn what_a_peer_says_is_shown_without_its_control_characters() {
    let reason = Reason::new(Cause::Failed, "no \x1b[2Jroom\n");
    assert_eq!(reason.to_string(), r"no \x1b[2Jroom\n");
}
