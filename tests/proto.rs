//! `proto/` says what the installed CRIU says: names, numbers, types and labels.
//!
//! CRIU's own are looked for in `$CRR_CRIU_PROTOS`, else in /opt/crr/criu/protos, laid out as Debian's libcriu-dev and
//! python3-pycriu unpack. Where they are missing the tests are ignored, unless `$CRR_TEST_REQUIRE` has `protos` or `all`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use protobuf::Message;
use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

const RPC: &str = "usr/include/criu/rpc.proto";
const IMAGES: &str = "usr/lib/python3/dist-packages/pycriu/images";

fn main() -> ExitCode {
    let theirs =
        std::env::var_os("CRR_CRIU_PROTOS").map_or_else(|| PathBuf::from("/opt/crr/criu/protos"), PathBuf::from);
    let trials = [
        ("rpc_proto_is_that_of_criu", RPC, compare_rpc as fn(&Path) -> Result<(), Failed>),
        ("image_messages_are_those_of_criu", IMAGES, compare_images),
        ("image_magics_are_those_of_criu", IMAGES, compare_magics),
    ];
    let trials = trials.map(|(name, needed, compare)| {
        let path = theirs.join(needed);
        let missing = !path.exists();
        let shown = path.display().to_string();
        let trial = Trial::test(name, move || match missing {
            true => Err(format!("{} is missing", path.display()).into()),
            false => compare(&path),
        });
        match missing && !required("protos") {
            true => trial.with_kind(format!("{shown} is missing")).with_ignored_flag(true),
            false => trial,
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// Whether an unmet `need` is a failure.
fn required(need: &str) -> bool {
    let required = std::env::var("CRR_TEST_REQUIRE").unwrap_or_default();
    required.split([',', ' ']).any(|word| word == need || word == "all")
}

fn compare_rpc(theirs: &Path) -> Result<(), Failed> {
    let ours = Schema::new(parse("proto", &["proto/rpc.proto".into()])?);
    let directory = theirs.parent().unwrap_or(Path::new("/"));
    let theirs = Schema::new(parse(directory, &[theirs.into()])?);
    let mut differences = ours.not_in(&theirs, "proto/rpc.proto", false);
    differences.extend(theirs.not_in(&ours, "CRIU's rpc.proto", false));
    said(differences)
}

fn compare_images(theirs: &Path) -> Result<(), Failed> {
    let mut inputs: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir("proto/images")? {
        inputs.push(entry?.path());
    }
    let ours = Schema::new(parse("proto/images", &inputs)?);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(theirs)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("_pb2.py") {
            let source = std::fs::read_to_string(&path)?;
            let bytes = serialized(&source).ok_or_else(|| format!("{} has no serialized file", path.display()))?;
            files.push(FileDescriptorProto::parse_from_bytes(&bytes)?);
        }
    }
    said(ours.not_in(&Schema::new(files), "proto/images", true))
}

fn compare_magics(theirs: &Path) -> Result<(), Failed> {
    let source = std::fs::read_to_string(theirs.join("magic.py"))?;
    let magics: Vec<u32> =
        source.lines().filter_map(|line| line.strip_prefix("by_name[")?.split_once(" = ")?.1.parse().ok()).collect();
    let unknown = crr::images::Kind::ALL.iter().filter(|kind| !magics.contains(&kind.magic()));
    said(unknown.map(|kind| format!("CRIU has no magic {:#010x}, that of {kind:?}", kind.magic())).collect())
}

fn said(differences: Vec<String>) -> Result<(), Failed> {
    match differences.is_empty() {
        true => Ok(()),
        false => Err(differences.join("\n").into()),
    }
}

fn parse(directory: impl AsRef<Path>, inputs: &[PathBuf]) -> Result<Vec<FileDescriptorProto>, Failed> {
    let mut parser = protobuf_parse::Parser::new();
    let parsed = parser.pure().include(directory).inputs(inputs).file_descriptor_set();
    Ok(parsed.map_err(|error| format!("{error:#}"))?.file)
}

/// The bytes literal given to AddSerializedFile in a generated Python module.
fn serialized(source: &str) -> Option<Vec<u8>> {
    let literal = source.split_once("AddSerializedFile(b")?.1;
    let mut bytes = literal.bytes();
    let quote = bytes.next()?;
    let mut decoded = Vec::new();
    loop {
        match bytes.next()? {
            byte if byte == quote => return Some(decoded),
            b'\\' => decoded.push(escaped(&mut bytes)?),
            byte => decoded.push(byte),
        }
    }
}

/// The byte that a backslash and what follows it stand for.
fn escaped(bytes: &mut (impl Iterator<Item = u8> + Clone)) -> Option<u8> {
    match bytes.next()? {
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'x' => {
            let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
            u8::try_from((high << 4) | low).ok()
        }
        first @ b'0'..=b'7' => {
            let mut value = u32::from(first - b'0');
            for _ in 0..2 {
                let Some(digit) = bytes.clone().next().and_then(|next| char::from(next).to_digit(8)) else { break };
                value = (value << 3) | digit;
                bytes.next();
            }
            u8::try_from(value).ok()
        }
        other @ (b'\\' | b'\'' | b'"') => Some(other),
        _ => None,
    }
}

/// Every message's fields and every enum's values by full name.
#[derive(Default)]
struct Schema {
    messages: BTreeMap<String, BTreeMap<String, Field>>,
    enums: BTreeMap<String, BTreeMap<String, i32>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    number: i32,
    label: Label,
    kind: Type,
    /// The message or enum it holds.
    holds: String,
    default: String,
}

impl Schema {
    fn new(files: Vec<FileDescriptorProto>) -> Self {
        let mut schema = Self::default();
        for file in files {
            file.enum_type.iter().for_each(|all| schema.add_enum("", all));
            file.message_type.iter().for_each(|message| schema.add(String::new(), message));
        }
        schema
    }

    fn add(&mut self, above: String, message: &DescriptorProto) {
        let name = format!("{above}{}", message.name());
        let fields = message.field.iter().map(|field| (field.name().to_owned(), Field::from(field)));
        self.messages.insert(name.clone(), fields.collect());
        let below = format!("{name}.");
        message.enum_type.iter().for_each(|all| self.add_enum(&below, all));
        message.nested_type.iter().for_each(|nested| self.add(below.clone(), nested));
    }

    fn add_enum(&mut self, above: &str, all: &EnumDescriptorProto) {
        let values = all.value.iter().map(|value| (value.name().to_owned(), value.number()));
        self.enums.insert(format!("{above}{}", all.name()), values.collect());
    }

    /// What is here and not in `other`, or differs there. Where `text_is_bytes`, bytes here may be a string there: CRIU does
    /// not see to it that its strings are UTF-8.
    fn not_in(&self, other: &Self, here: &str, text_is_bytes: bool) -> Vec<String> {
        let mut differences = Vec::new();
        for (message, fields) in &self.messages {
            let Some(others) = other.messages.get(message) else {
                differences.push(format!("only {here} has the message {message}"));
                continue;
            };
            for (name, field) in fields {
                let mut expected = others.get(name).cloned();
                if let Some(expected) = expected.as_mut().filter(|expected| expected.kind == Type::TYPE_STRING) {
                    if text_is_bytes {
                        expected.kind = Type::TYPE_BYTES;
                    }
                }
                if Some(field) != expected.as_ref() {
                    differences.push(format!("{here} has {message}.{name} as {field:?}, the other {expected:?}"));
                }
            }
        }
        for (name, values) in &self.enums {
            match other.enums.get(name) {
                None => differences.push(format!("only {here} has the enum {name}")),
                Some(others) => differences.extend(
                    values
                        .iter()
                        .filter(|(value, number)| others.get(*value) != Some(number))
                        .map(|(value, number)| format!("only {here} has {name}.{value} = {number}")),
                ),
            }
        }
        differences
    }
}

impl From<&FieldDescriptorProto> for Field {
    fn from(field: &FieldDescriptorProto) -> Self {
        Self {
            number: field.number(),
            label: field.label(),
            kind: field.type_(),
            holds: field.type_name().trim_start_matches('.').to_owned(),
            default: field.default_value().to_owned(),
        }
    }
}
