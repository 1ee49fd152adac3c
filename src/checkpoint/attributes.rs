//! Extended attributes of a file that is kept in a checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The longest value, and the longest list of names, that Linux allows.
const LIMIT: usize = 64 << 10;

/// Extended attributes: names, and values in hexadecimal digits, since they may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// Those of a file, capabilities and access lists among them; none where the file system has none.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let mut buffer = vec![0; LIMIT];
        let length = match flistxattr(file, &mut buffer[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            listed => listed?,
        };
        let names = String::from_utf8(buffer[..length].to_vec()).map_err(io::Error::other)?;
        let mut all = BTreeMap::new();
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let length = match fgetxattr(file, name, &mut buffer[..]) {
                // It is gone since it was listed.
                Err(Errno::NODATA) => continue,
                read => read?,
            };
            all.insert(name.to_owned(), buffer[..length].iter().map(|byte| format!("{byte:02x}")).collect());
        }
        Ok(Self(all))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives them to a file.
    pub(super) fn apply(&self, file: &File) -> io::Result<()> {
        for (name, digits) in &self.0 {
            let value =
                bytes(digits).ok_or_else(|| io::Error::other(format!("the recorded value of {name} is none")))?;
            fsetxattr(file, name.as_str(), &value, XattrFlags::empty())
                .map_err(|errno| io::Error::other(format!("{name}: {}", io::Error::from(errno))))?;
        }
        Ok(())
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [_, _] => u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_had_another_gets() {
        let (from, to) = (tempfile::tempfile_in(".").unwrap(), tempfile::tempfile_in(".").unwrap());
        let value = [0, 1, 0xfe, b'x'];
        fsetxattr(&from, "user.crr", &value, XattrFlags::empty()).unwrap();
        let kept = Attributes::of(&from).unwrap();
        let kept: Attributes = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        kept.apply(&to).unwrap();
        assert_eq!(Attributes::of(&to).unwrap(), kept);
        let mut buffer = [0; 8];
        assert_eq!(fgetxattr(&to, "user.crr", &mut buffer[..]), Ok(4));
        assert_eq!(buffer[..4], value);
    }

    #[test]
    fn a_damaged_value_is_an_error() {
        let file = tempfile::tempfile_in(".").unwrap();
        for digits in ["0", "0g", "é"] {
            let damaged = Attributes([("user.crr".to_owned(), digits.to_owned())].into());
            assert!(damaged.apply(&file).is_err(), "{digits}");
        }
    }
}
