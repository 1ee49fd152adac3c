//! How fields are checked: what a peer says is limited, and zero is nothing.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::fault::{Fault, Wrong};
use crate::escape::escape;

/// Words, names of hosts and versions.
pub(super) const NAME_LIMIT: usize = 256;
/// A path, as in Linux.
pub(super) const PATH_LIMIT: usize = 4096;
/// A sentence, a line of a log.
pub(super) const TEXT_LIMIT: usize = 8192;
/// The JSON of a tree.
pub(super) const TREE_LIMIT: usize = 3 << 20;

/// A sentence of one side for the people of the other: at most 8 KiB, what is longer is cut, and control characters are shown as
/// such.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(String);

impl Text {
    /// The text, cut where it is too long.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > TEXT_LIMIT {
            let end = (0..=TEXT_LIMIT - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        Self(text)
    }

    /// As it was said: not to be shown to anybody.
    pub fn as_raw(&self) -> &str {
        &self.0
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn parse(field: &'static str, text: String) -> Result<Self, Fault> {
        limited(field, text.len(), TEXT_LIMIT)?;
        Ok(Self(text))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

pub(super) fn limited(field: &'static str, length: usize, limit: usize) -> Result<(), Fault> {
    match length > limit {
        true => Err(Fault::Invalid { field, reason: Wrong::Long(limit) }),
        false => Ok(()),
    }
}

pub(super) fn absent(field: &'static str) -> Fault {
    Fault::Invalid { field, reason: Wrong::Absent }
}

pub(super) fn range(field: &'static str) -> Fault {
    Fault::Invalid { field, reason: Wrong::Range }
}

/// A word for programs, which may also be shown.
pub(super) fn name(field: &'static str, text: String) -> Result<String, Fault> {
    limited(field, text.len(), NAME_LIMIT)?;
    match text.chars().any(char::is_control) {
        true => Err(Fault::Invalid { field, reason: Wrong::Name }),
        false => Ok(text),
    }
}

/// A name that is there.
pub(super) fn given(field: &'static str, text: String) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(absent(field));
    }
    name(field, text)
}

pub(super) fn path(field: &'static str, bytes: Vec<u8>) -> Result<PathBuf, Fault> {
    limited(field, bytes.len(), PATH_LIMIT)?;
    if bytes.is_empty() {
        return Err(absent(field));
    }
    match bytes.contains(&0) {
        true => Err(Fault::Invalid { field, reason: Wrong::Name }),
        false => Ok(OsString::from_vec(bytes).into()),
    }
}

pub(super) fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// A list of at most `limit`, each of which is checked.
pub(super) fn list<T, U>(
    field: &'static str,
    limit: usize,
    values: Vec<T>,
    check: impl Fn(T) -> Result<U, Fault>,
) -> Result<Vec<U>, Fault> {
    limited(field, values.len(), limit)?;
    values.into_iter().map(check).collect()
}

/// An enumeration of the wire, in which zero and what is unknown are nothing.
macro_rules! enumeration {
    ($(#[$doc:meta])* $name:ident of $proto:path, $field:literal: $($(#[$one:meta])* $variant:ident = $theirs:ident,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$one])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(super) fn to_proto(self) -> protobuf::EnumOrUnknown<$proto> {
                use $proto as Theirs;
                match self {
                    $(Self::$variant => Theirs::$theirs,)*
                }
                .into()
            }

            pub(super) fn parse(value: protobuf::EnumOrUnknown<$proto>) -> Result<Self, $crate::wire::Fault> {
                use $proto as Theirs;
                match value.enum_value() {
                    $(Ok(Theirs::$theirs) => Ok(Self::$variant),)*
                    _ => Err($crate::wire::fields::absent($field)),
                }
            }
        }
    };
}
pub(super) use enumeration;
