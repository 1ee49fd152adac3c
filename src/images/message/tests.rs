use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::decode::Fault;
use super::*;
use crate::images::record::Reader;

#[test]
fn every_line_of_the_table_is_understood() {
    let text = include_str!("criu-4.2.txt");
    let fields = text.lines().filter(|line| line.starts_with(' ')).count();
    assert_eq!(Layout::all().map(|layout| layout.fields().len()).sum::<usize>(), fields);
    let messages = text.lines().filter(|line| !line.starts_with([' ', '#'])).count();
    assert_eq!(Layout::all().count(), messages);
    for layout in Layout::all() {
        assert!(layout.fields().is_sorted_by(|a, b| a.number < b.number), "{}", layout.name);
        for field in layout.fields() {
            assert!(field.number < 64, "{} {}", layout.name, field.name);
            if let Type::Message(name) = field.of {
                assert_eq!(Layout::of(name).name, name, "{} {}", layout.name, field.name);
            }
        }
    }
}

/// The descriptors that the build made of proto/images, which has what the typed readers use.
#[test]
fn the_table_has_every_field_of_the_typed_readers() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/images");
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(source).expect("part of the source") {
        let text = std::fs::read_to_string(entry.expect("readable").path()).expect("readable");
        let mut message = "";
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["message", name, "{"] => message = name,
                ["required" | "optional" | "repeated", of, name, "=", number, ..] => {
                    let number: u32 = number.trim_end_matches(';').parse().expect("a number");
                    let field = Layout::of(message).numbered(number);
                    let field = field.unwrap_or_else(|| panic!("{message} {number}"));
                    assert_eq!(field.name, name, "{message} {number}");
                    let text = of == "bytes" && field.of == Type::Text;
                    let same = match field.of {
                        Type::U32 => of == "uint32",
                        Type::U64 => of == "uint64",
                        Type::Bool => of == "bool",
                        Type::S32 => of == "sint32",
                        Type::S64 => of == "sint64",
                        Type::I64 => of == "int64",
                        Type::Bytes => of == "bytes",
                        Type::Message(name) => of == name,
                        Type::I32 => {
                            of == "int32"
                                || !of.starts_with(char::is_lowercase)
                                || of.contains('_')
                                || of == "lsmtype"
                                || of == "march"
                        }
                        Type::Text | Type::Fixed64 => text,
                    };
                    assert!(same || text, "{message} {name}: {of} and {:?}", field.of);
                    seen.insert(message.to_owned());
                }
                _ => {}
            }
        }
    }
    assert!(seen.len() > 50, "{}", seen.len());
}

fn tree() -> Images {
    Images::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/tree")).expect("part of the source")
}

#[test]
fn every_image_that_criu_made_is_understood_whole() {
    let mut kinds = BTreeSet::new();
    for entry in std::fs::read_dir(tree().path()).expect("readable") {
        let name = entry.expect("readable").file_name().into_string().expect("ASCII");
        let Some((kind, id)) = Kind::of(&name) else { continue };
        for message in tree().messages(kind, id).expect("readable") {
            let message = message.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
            kinds.insert(message.name());
        }
    }
    assert!(kinds.len() >= 19, "{kinds:?}");
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[test]
fn fields_are_had_by_name() {
    let root = tree().tasks().expect("readable").remove(0);
    let typed = tree().core(root.pid).expect("readable");
    let core = tree().messages(Kind::Core, root.pid).expect("readable").next().expect("one").expect("whole");
    let creds = core.every("creds_entry");
    let credentials = typed.thread.expect("a thread").credentials.expect("credentials");
    assert_eq!(creds.len(), 1);
    assert_eq!(creds[0].number("euid"), Some(credentials.euid.into()));
    assert_eq!(creds[0].numbers("groups").count(), credentials.groups.len());
    let comm = core.message("tc").and_then(|task| task.bytes("comm")).expect("a name");
    assert_eq!(comm, typed.task.expect("a task").comm.as_encoded_bytes());
    assert_eq!(core.message("ti_aarch64").map(Message::name), None);
}

/// A pid of 1, a ppid of 0, a pgid and a sid of 1.
const TASK: &[u8] = &[8, 1, 16, 0, 24, 1, 32, 1];

fn fault(name: &str, bytes: &[u8]) -> Fault {
    decode(Layout::of(name), bytes).expect_err("bad")
}

#[test]
fn nothing_is_passed_over() {
    let with = |more: &[u8]| [TASK, more].concat();
    assert_eq!(decode(Layout::of("pstree_entry"), &with(&[40, 1, 40, 2])).unwrap().numbers("threads").count(), 2);
    let message = "pstree_entry";
    assert_eq!(fault(message, &with(&[48, 1])), Fault::UnknownField { message, number: 6 });
    assert_eq!(
        fault(message, &with(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 1])),
        Fault::UnknownField { message, number: 0x1fff_ffff }
    );
    assert_eq!(fault(message, &with(&[8, 1])), Fault::Twice { message, field: "pid" });
    assert_eq!(fault(message, &TASK[2..]), Fault::Missing { message, field: "pid" });
    // Packed, as CRIU never writes them.
    assert_eq!(fault(message, &with(&[42, 2, 1, 2])), Fault::WireType { message, field: "threads" });
    assert_eq!(
        fault(message, &with(&[40, 0x80, 0x80, 0x80, 0x80, 0x10])),
        Fault::TooLarge { message, field: "threads" }
    );
    assert_eq!(fault(message, &with(&[40, 0x81, 0])), Fault::Long);
    assert_eq!(fault(message, &with(&[40])), Fault::Cut);
    assert_eq!(
        fault("plugins_entry", &[98, 3, b'a', 0, b'b']),
        Fault::Nul { message: "plugins_entry", field: "plugins" }
    );
    assert_eq!(fault("plugins_entry", &[98, 4, b'a']), Fault::Cut);
    let mut deep = vec![10, 0];
    for _ in 0..100 {
        deep = [&[18, u8::try_from(deep.len()).unwrap_or(127)][..], &deep].concat();
        deep.truncate(120);
    }
    assert!(decode(Layout::of("cgroup_dir_entry"), &deep).is_err());
}

#[test]
fn numbers_have_their_signs() {
    // A file_lock_entry: pid -1, start -2.
    let minus = |number: i64| {
        let mut bytes = Vec::new();
        let mut rest = number as u64;
        while rest >= 0x80 {
            bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    };
    let lock = [&[8, 1, 16, 1, 24][..], &minus(-1), &[32, 3, 40], &minus(-2), &[48, 0]].concat();
    let lock = decode(Layout::of("file_lock_entry"), &lock).unwrap();
    assert_eq!(lock.number("pid").map(|number| number as i64), Some(-1));
    assert_eq!(lock.number("start").map(|number| number as i64), Some(-2));
    // sint32: a nice value of -20.
    let thread = decode(Layout::of("thread_core_entry"), &[8, 0, 16, 0, 24, 39]).unwrap();
    assert_eq!(thread.number("sched_nice").map(|number| number as i64), Some(-20));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), place in 0_usize..40) {
        let kind = Kind::ALL[place % Kind::ALL.len()];
        let mut image: Vec<u8> = kind.header().into_iter().flatten().flat_map(u32::to_le_bytes).collect();
        image.extend((bytes.len() as u32).to_le_bytes());
        image.extend(&bytes);
        let reader = Reader::new(image.as_slice(), image.len() as u64, PathBuf::from("image"), kind).expect("magic words");
        let _ = Messages::new(reader, kind).count();
    }
}
