//! What travels as data: announced by a message, sent in frames, ended by a message, and acknowledged.

use std::path::PathBuf;

use super::fault::{Fault, Wrong};
use super::fields::{absent, enumeration, path, path_bytes, range};
use super::offer::Compression;
use crate::proto::wire as proto;

enumeration! {
    /// What an object is.
    ObjectKind of proto::object::Kind, "kind of object":
    /// An image file: a name without a directory.
    Image = IMAGE,
    /// What CRIU sends to a page server. It has no name of a file.
    Pages = PAGES,
    /// A file of the manifest: an absolute path.
    File = FILE,
}

/// An object is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its number on this connection, not 0.
    pub number: u64,
    /// What it is.
    pub kind: ObjectKind,
    /// Its name: of an image plain, of a file absolute, both without `.` and `..`.
    pub name: PathBuf,
    /// Permissions, without set-user-ID and the like.
    pub mode: u32,
    /// How payloads are packed. Offsets and lengths are those of what is packed.
    pub compression: Compression,
    /// Its length in bytes, where it is known beforehand.
    pub length_bytes: Option<u64>,
}

/// All of an object has been sent; or has been received and is safe in memory or on disk, nothing of it borrowed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEnd {
    /// Its number.
    pub number: u64,
    /// Its length in bytes.
    pub length_bytes: u64,
    /// Its sum.
    pub sum: Sum,
}

/// The sum of an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// The kernel moved them, nobody has read them.
    Absent,
    /// BLAKE3.
    Blake3([u8; 32]),
    /// XXH3, 128 bits.
    Xxh3([u8; 16]),
}

impl Object {
    pub(super) fn to_proto(&self) -> proto::Object {
        let Self { number, kind, name, mode, compression, length_bytes } = self;
        let mut object = proto::Object::new();
        object.number = *number;
        object.kind = kind.to_proto();
        object.name = path_bytes(name);
        object.mode = *mode;
        object.compression = compression.to_proto();
        object.length_bytes = *length_bytes;
        object
    }

    pub(super) fn parse(object: proto::Object) -> Result<Self, Fault> {
        let kind = ObjectKind::parse(object.kind)?;
        if object.mode & !0o777 != 0 {
            return Err(range("mode"));
        }
        if object.length_bytes.is_some_and(|length| i64::try_from(length).is_err()) {
            return Err(range("length"));
        }
        Ok(Self {
            number: number(object.number)?,
            kind,
            name: object_name(kind, path("name of an object", object.name)?)?,
            mode: object.mode,
            compression: Compression::parse(object.compression)?,
            length_bytes: object.length_bytes,
        })
    }
}

fn number(number: u64) -> Result<u64, Fault> {
    if number == 0 { Err(absent("number of an object")) } else { Ok(number) }
}

/// A name that leads nowhere else. Who opens it must not follow links all the same.
fn object_name(kind: ObjectKind, name: PathBuf) -> Result<PathBuf, Fault> {
    let bytes = path_bytes(&name);
    let mut parts = bytes.split(|byte| *byte == b'/');
    let rooted = kind == ObjectKind::File;
    let begins = !rooted || (bytes.len() > 1 && parts.next() == Some(b""));
    let sound = parts.clone().all(|part| !matches!(part, b"" | b"." | b".."));
    let plain = rooted || (parts.count() == 1 && bytes.len() <= 255);
    match begins && sound && plain {
        true => Ok(name),
        false => Err(Fault::Invalid { field: "name of an object", reason: Wrong::Name }),
    }
}

impl ObjectEnd {
    pub(super) fn to_proto(&self) -> proto::ObjectEnd {
        let Self { number, length_bytes, sum } = self;
        let mut end = proto::ObjectEnd::new();
        end.number = *number;
        end.length_bytes = *length_bytes;
        end.sum = Some(sum.to_proto()).into();
        end
    }

    pub(super) fn parse(end: proto::ObjectEnd) -> Result<Self, Fault> {
        let sum = end.sum.into_option().ok_or_else(|| absent("sum"))?;
        if i64::try_from(end.length_bytes).is_err() {
            return Err(range("length"));
        }
        Ok(Self { number: number(end.number)?, length_bytes: end.length_bytes, sum: Sum::parse(sum)? })
    }
}

impl Sum {
    fn to_proto(self) -> proto::Sum {
        use proto::sum::Kind;
        let (kind, value) = match self {
            Self::Absent => (Kind::ABSENT, Vec::new()),
            Self::Blake3(value) => (Kind::BLAKE3, value.to_vec()),
            Self::Xxh3(value) => (Kind::XXH3_128, value.to_vec()),
        };
        let mut sum = proto::Sum::new();
        sum.kind = kind.into();
        sum.value = value;
        sum
    }

    fn parse(sum: proto::Sum) -> Result<Self, Fault> {
        use proto::sum::Kind;
        let wrong = |value: Vec<u8>| Fault::Invalid { field: "sum", reason: Wrong::Length(value.len()) };
        match sum.kind.enum_value() {
            Ok(Kind::ABSENT) if sum.value.is_empty() => Ok(Self::Absent),
            Ok(Kind::ABSENT) => Err(wrong(sum.value)),
            Ok(Kind::BLAKE3) => sum.value.try_into().map(Self::Blake3).map_err(wrong),
            Ok(Kind::XXH3_128) => sum.value.try_into().map(Self::Xxh3).map_err(wrong),
            _ => Err(absent("kind of sum")),
        }
    }
}
