//! Paths in JSON, of whatever bytes: `\` is written `\\`, and a byte that is no UTF-8 `\xHH`. For serde's `with`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(path))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    decode(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not a path as crr writes it")))
}

/// The same for a path that may be absent.
pub(super) mod option {
    use super::{Deserializer, Path, PathBuf, Serializer, decode, encode};
    use serde::{Deserialize as _, de::Error as _};

    pub(in super::super) fn serialize<S, P>(path: &Option<P>, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        P: AsRef<Path>,
    {
        match path {
            Some(path) => serializer.serialize_some(&encode(path.as_ref())),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        decode(&text).map(Some).ok_or_else(|| D::Error::custom(format!("`{text}` is not a path as crr writes it")))
    }
}

fn encode(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn decode(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        rest = if let Some(rest) = escaped.strip_prefix('\\') {
            bytes.push(b'\\');
            rest
        } else {
            let digits = escaped.strip_prefix('x')?;
            bytes.push(u8::from_str_radix(digits.get(..2)?, 16).ok()?);
            &digits[2..]
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    (!bytes.contains(&0)).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_path_comes_back(bytes in proptest::collection::vec(1u8.., 0..60)) {
            let path = PathBuf::from(OsString::from_vec(bytes));
            prop_assert_eq!(decode(&encode(&path)), Some(path));
        }

        #[test]
        fn any_text_is_a_path_or_refused(text in ".*") {
            if let Some(path) = decode(&text) {
                prop_assert_eq!(decode(&encode(&path)), Some(path));
            }
        }
    }

    #[test]
    fn a_usual_path_is_written_as_it_is() {
        assert_eq!(encode(Path::new("/usr/lib/größe")), "/usr/lib/größe");
        assert_eq!(encode(Path::new(r"a\b")), r"a\\b");
        assert_eq!(decode(r"a\xff").unwrap().as_os_str().as_bytes(), b"a\xff");
        assert_eq!(decode(r"a\x00"), None);
        assert_eq!(decode("\\x\u{e9}"), None);
    }
}
