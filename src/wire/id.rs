//! The name of a migration.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The name of a migration on both hosts: 128 random bits, in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 16]);

impl Id {
    /// A new one, which no other migration has.
    ///
    /// # Panics
    /// Where the kernel has no random numbers, which is before it has booted.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let mut bytes = [0; 16];
        while bytes == [0; 16] {
            let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
            assert_eq!(filled, Ok(bytes.len()), "the kernel gives no random numbers");
        }
        Self(bytes)
    }

    /// The bytes of one; all zero is none.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Its first half, for names that are limited in length: of tables, cgroups, interfaces.
    pub fn short(self) -> String {
        self.to_string()[..16].into()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u128::from_str_radix(text, 16).ok() } else { None };
        let bytes = number.map(u128::to_be_bytes).and_then(Self::from_bytes);
        bytes.ok_or_else(|| Error::Option { option: "ID", value: text.into(), reason: "must be 32 hexadecimal digits" })
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_nothing_else_is() {
        let id = Id::new();
        assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        assert_eq!(id.short().len(), 16);
        assert_ne!(id, Id::new());
        for text in [
            "",
            "0",
            &"0".repeat(32),
            &"g".repeat(32),
            &"A".repeat(32),
            &"1".repeat(33),
            "../../../../../../../../../../etc",
        ] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
