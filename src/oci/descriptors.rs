//! `descriptors.json`: what the container's standard streams were.

use std::path::Path;

use serde_json::Value;

use super::file::{self, wrong};
use super::problem::Problem;
use crate::error::Result;

/// What descriptors 0, 1 and 2 of a container's first process were when it started, as `readlink /proc/PID/fd/N` tells it:
/// `/dev/null`, `pipe:[8830279]`, `/dev/pts/3`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors(pub [String; 3]);

impl Descriptors {
    /// The file's name, beside CRIU's images.
    pub const NAME: &str = "descriptors.json";

    /// Reads `directory/descriptors.json`.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Container`].
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(Self::NAME);
        Self::parse(&file::read(&path)?, &path)
    }

    /// Understands the content of a `descriptors.json`; `path` is for the error.
    ///
    /// # Errors
    /// [`crate::Error::Container`] if it is not an array of three strings.
    pub fn parse(content: &[u8], path: &Path) -> Result<Self> {
        Self::from_value(&file::json(content, path)?).map_err(|problem| wrong(path, problem))
    }

    /// Writes `directory/descriptors.json`, whole or not at all.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn write(&self, directory: &Path) -> Result<()> {
        file::write(&directory.join(Self::NAME), self.to_json().as_bytes())
    }

    /// The content of the file.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The inode of a stream that was a pipe.
    pub fn pipe(&self, stream: usize) -> Option<u64> {
        self.0.get(stream)?.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
    }

    pub(super) fn to_value(&self) -> Value {
        Value::from(self.0.to_vec())
    }

    pub(super) fn from_value(value: &Value) -> Result<Self, Problem> {
        let bad = || Problem::Malformed("not an array of three strings".into());
        let list = value.as_array().filter(|list| list.len() == 3).ok_or_else(bad)?;
        let mut streams: [String; 3] = Default::default();
        for (stream, value) in streams.iter_mut().zip(list) {
            *stream = value.as_str().ok_or_else(bad)?.to_owned();
        }
        Ok(Self(streams))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_as_runc_writes_it() {
        let home = tempfile::tempdir().expect("a directory");
        let text = r#"["/dev/null","pipe:[32157]","pipe:[32158]"]"#;
        std::fs::write(home.path().join("descriptors.json"), text).expect("written");
        let read = Descriptors::read(home.path()).expect("read");
        assert_eq!([read.pipe(0), read.pipe(1), read.pipe(2), read.pipe(3)], [None, Some(32157), Some(32158), None]);
        read.write(home.path()).expect("written");
        assert_eq!(std::fs::read_to_string(home.path().join("descriptors.json")).expect("read"), text);
        assert_eq!(std::fs::read_dir(home.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn anything_but_three_strings_is_refused() {
        for text in ["", "[]", "null", "{}", r#"["a","b"]"#, r#"["a","b","c","d"]"#, r#"["a","b",3]"#, "[[[["] {
            let error = Descriptors::parse(text.as_bytes(), Path::new("d/descriptors.json")).expect_err(text);
            assert!(error.to_string().contains("`d/descriptors.json`"), "{error}");
        }
    }
}
