//! The id of a container.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::Error;

/// The id of a container: a file name that runc accepts, so never a path out of the runtime's root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

/// A file name has at most so many bytes.
const LENGTH_LIMIT: usize = 255;

impl Id {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = Error;

    /// # Errors
    /// [`Error::Option`] for what runc refuses too (libcontainer's `validateID`): empty, `.`, `..`, or with a character that
    /// is no ASCII letter, digit or one of `_+-.`; and for what is longer than a file name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        let reason = match text {
            "" => "is empty",
            "." | ".." => "is a directory's name",
            _ if text.len() > LENGTH_LIMIT => "is longer than 255 characters",
            _ if !text.chars().all(known) => "may have only letters, digits and the characters _ + - .",
            _ => return Ok(Self(text.to_owned())),
        };
        Err(Error::Option { option: "container", value: text.to_owned(), reason })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for Id {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runc_takes_is_taken() {
        for id in ["a", "c1", "A_b+c-d.e", "...", "-x", &"x".repeat(255)] {
            assert_eq!(id.parse::<Id>().expect(id).as_str(), id);
        }
    }

    #[test]
    fn no_id_leads_out_of_the_root() {
        for id in ["", ".", "..", "../x", "a/b", "/", "a\0b", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert!(id.parse::<Id>().is_err(), "{id:?}");
        }
    }
}
