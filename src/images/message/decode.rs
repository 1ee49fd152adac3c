//! From bytes to a message, with no more than one way to read them.

use std::fmt;

use super::layout::{Field, Label, Layout, Type};
use super::{Message, Value};

/// More fields than this make no record.
const FIELDS_LIMIT: u32 = 1 << 20;
/// No message of CRIU's is nested deeper, but for cgroups in cgroups.
const DEPTH_LIMIT: u32 = 64;

/// Why bytes are not this message, and nothing but it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Cut,
    UnknownField { message: &'static str, number: u64 },
    WireType { message: &'static str, field: &'static str },
    Twice { message: &'static str, field: &'static str },
    Missing { message: &'static str, field: &'static str },
    TooLarge { message: &'static str, field: &'static str },
    Nul { message: &'static str, field: &'static str },
    Long,
    Deep,
    TooMany,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("it ends in the middle of a field"),
            Self::UnknownField { message, number } => {
                write!(f, "{message} has a field {number}, which CRIU 4.2 does not know")
            }
            Self::WireType { message, field } => write!(f, "{field} of {message} is not encoded as its type"),
            Self::Twice { message, field } => write!(f, "{field} of {message} comes twice"),
            Self::Missing { message, field } => write!(f, "{message} lacks {field}"),
            Self::TooLarge { message, field } => write!(f, "{field} of {message} has a number beyond its type"),
            Self::Nul { message, field } => write!(f, "{field} of {message} has a NUL byte in its text"),
            Self::Long => f.write_str("a number takes more bytes than it needs"),
            Self::Deep => write!(f, "messages are nested deeper than {DEPTH_LIMIT}"),
            Self::TooMany => write!(f, "it has more than {FIELDS_LIMIT} fields"),
        }
    }
}

/// Decodes a whole message.
pub(super) fn decode(layout: &'static Layout, bytes: &[u8]) -> Result<Message, Fault> {
    message(layout, bytes, DEPTH_LIMIT, &mut 0)
}

fn message(layout: &'static Layout, mut rest: &[u8], depth: u32, fields: &mut u32) -> Result<Message, Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Deep)?;
    let mut message = Message { layout, fields: Vec::new() };
    let mut seen = Seen::default();
    while !rest.is_empty() {
        *fields += 1;
        if *fields > FIELDS_LIMIT {
            return Err(Fault::TooMany);
        }
        let tag = varint(&mut rest)?;
        let number = tag >> 3;
        let field = u32::try_from(number).ok().and_then(|number| layout.numbered(number));
        let field = field.ok_or(Fault::UnknownField { message: layout.name, number })?;
        if field.label != Label::Repeated && !seen.first(field) {
            return Err(Fault::Twice { message: layout.name, field: field.name });
        }
        seen.first(field);
        let value = value(layout, field, tag & 7, &mut rest, depth, fields)?;
        message.fields.push((field, value));
    }
    match layout.required().find(|field| !seen.has(field)) {
        Some(field) => Err(Fault::Missing { message: layout.name, field: field.name }),
        None => Ok(message),
    }
}

/// Which fields of a message were there. Their numbers are below 64.
#[derive(Default)]
struct Seen(u64);

impl Seen {
    /// Whether it was not there before.
    fn first(&mut self, field: &Field) -> bool {
        let before = self.has(field);
        self.0 |= 1 << field.number;
        !before
    }

    fn has(&self, field: &Field) -> bool {
        self.0 & (1 << field.number) != 0
    }
}

fn value(
    layout: &'static Layout,
    field: &'static Field,
    wire: u64,
    rest: &mut &[u8],
    depth: u32,
    fields: &mut u32,
) -> Result<Value, Fault> {
    let expected = match field.of {
        Type::Fixed64 => 1,
        Type::Bytes | Type::Text | Type::Message(_) => 2,
        _ => 0,
    };
    if wire != expected {
        return Err(Fault::WireType { message: layout.name, field: field.name });
    }
    let too_large = Fault::TooLarge { message: layout.name, field: field.name };
    match field.of {
        Type::Fixed64 => {
            let (bytes, after) = rest.split_first_chunk().ok_or(Fault::Cut)?;
            *rest = after;
            Ok(Value::Number(u64::from_le_bytes(*bytes)))
        }
        Type::Bytes => Ok(Value::Bytes(chunk(rest)?.to_vec())),
        Type::Text => match chunk(rest)? {
            text if text.contains(&0) => Err(Fault::Nul { message: layout.name, field: field.name }),
            text => Ok(Value::Bytes(text.to_vec())),
        },
        Type::Message(name) => Ok(Value::Message(message(Layout::of(name), chunk(rest)?, depth, fields)?)),
        of => number(of, varint(rest)?).map(Value::Number).ok_or(too_large),
    }
}

/// The number that is written as `raw`, its sign extended.
fn number(of: Type, raw: u64) -> Option<u64> {
    let zigzag = |raw: u64| (raw >> 1) ^ (raw & 1).wrapping_neg();
    match of {
        Type::U32 => (raw <= u64::from(u32::MAX)).then_some(raw),
        Type::Bool => (raw <= 1).then_some(raw),
        // A negative number of 32 bits is written with 64.
        Type::I32 => i32::try_from(raw as i64).is_ok().then_some(raw),
        Type::S32 => (raw <= u64::from(u32::MAX)).then(|| zigzag(raw)),
        Type::S64 => Some(zigzag(raw)),
        _ => Some(raw),
    }
}

fn chunk<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let length = usize::try_from(varint(rest)?).map_err(|_| Fault::Cut)?;
    let (chunk, after) = rest.split_at_checked(length).ok_or(Fault::Cut)?;
    *rest = after;
    Ok(chunk)
}

/// A number in groups of seven bits, the lowest first, in as few as can be.
fn varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut number = 0_u64;
    for place in 0..10 {
        let (&byte, after) = rest.split_first().ok_or(Fault::Cut)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if place == 9 && bits > 1 {
            return Err(Fault::Long);
        }
        number |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return if bits == 0 && place > 0 { Err(Fault::Long) } else { Ok(number) };
        }
    }
    Err(Fault::Long)
}
