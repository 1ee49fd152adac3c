//! Which fields a message has.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One message a paragraph: its name, then its fields by number.
const TEXT: &str = include_str!("criu-4.2.txt");

static LAYOUTS: LazyLock<HashMap<&'static str, Layout>> = LazyLock::new(|| parse(TEXT));

/// A kind of message.
#[derive(Debug)]
pub struct Layout {
    /// CRIU's name for it.
    pub name: &'static str,
    fields: Vec<Field>,
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// How often it comes.
    pub label: Label,
    /// What it holds.
    pub of: Type,
    /// CRIU's name for it.
    pub name: &'static str,
}

/// How often a field comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Once.
    Required,
    /// Once or not at all.
    Optional,
    /// Any number of times.
    Repeated,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Up to 32 bits.
    U32,
    /// Up to 64 bits.
    U64,
    /// 32 bits with a sign, or an enum.
    I32,
    /// 64 bits with a sign.
    I64,
    /// 32 bits, the sign in the lowest.
    S32,
    /// 64 bits, the sign in the lowest.
    S64,
    /// 0 or 1.
    Bool,
    /// Eight bytes.
    Fixed64,
    /// Any bytes.
    Bytes,
    /// Text without NUL bytes: of whatever encoding, as file names are.
    Text,
    /// Another message.
    Message(&'static str),
}

impl Layout {
    /// The layout of a message that CRIU has; one without fields for a name that it has not.
    pub(super) fn of(name: &str) -> &'static Self {
        static NONE: Layout = Layout { name: "no message of CRIU's", fields: Vec::new() };
        LAYOUTS.get(name).unwrap_or(&NONE)
    }

    pub(super) fn numbered(&self, number: u32) -> Option<&Field> {
        let place = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(place)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    pub(super) fn required(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.label == Label::Required)
    }

    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = &'static Layout> {
        LAYOUTS.values()
    }

    #[cfg(test)]
    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// Reads the table. What it cannot read it leaves out, so that such a field counts as unknown; the tests see that there is
/// none.
fn parse(text: &'static str) -> HashMap<&'static str, Layout> {
    let mut layouts = HashMap::new();
    let mut current: Option<Layout> = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ') {
            Some(line) => {
                if let Some(layout) = current.as_mut() {
                    layout.fields.extend(field(line));
                }
            }
            None => {
                let next = Layout { name: line, fields: Vec::new() };
                layouts.extend(current.replace(next).map(|layout| (layout.name, layout)));
            }
        }
    }
    layouts.extend(current.map(|layout| (layout.name, layout)));
    layouts
}

fn field(line: &'static str) -> Option<Field> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let label = match words.next()? {
        "required" => Label::Required,
        "optional" => Label::Optional,
        "repeated" => Label::Repeated,
        _ => return None,
    };
    let of = match words.next()? {
        "uint32" => Type::U32,
        "uint64" => Type::U64,
        "int32" => Type::I32,
        "int64" => Type::I64,
        "sint32" => Type::S32,
        "sint64" => Type::S64,
        "bool" => Type::Bool,
        "fixed64" => Type::Fixed64,
        "bytes" => Type::Bytes,
        "string" => Type::Text,
        message => Type::Message(message),
    };
    Some(Field { number, label, of, name: words.next()? })
}
