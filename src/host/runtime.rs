//! crr's directory under /run: small things that are true until the next boot.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// No file of ours comes near this.
const FILE_LIMIT: u64 = 64 << 10;

/// `/run/crr`: JSON files that are true until the next boot, private to root.
///
/// Whoever could write there could have crr run a CRIU of his choice. So nothing is read unless directory and file belong to
/// the effective user and nobody else may write them, and no symbolic link is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDirectory {
    path: PathBuf,
}

impl Default for RuntimeDirectory {
    fn default() -> Self {
        Self { path: PathBuf::from("/run/crr") }
    }
}

impl RuntimeDirectory {
    /// Another place than `/run/crr`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads the JSON file `name`. One that is absent, foreign, too large or damaged counts as absent: nothing here is worth
    /// more than the time to find it out again.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&self.read_bytes(name, FILE_LIMIT)?).ok()
    }

    /// Reads the file `name` as it is, if it is no larger than `limit` and as private as any here. An empty one counts as
    /// absent.
    pub fn read_bytes(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        if !is_private(&self.path.symlink_metadata().ok()?) {
            return None;
        }
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(self.path.join(name)).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || !is_private(&metadata) || metadata.len() > limit {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Writes the JSON file `name`: whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be made or is not private to this user, or the file cannot be written.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let written = serde_json::to_vec(value).map_err(io::Error::from);
        let readable = |bytes: &Vec<u8>| match bytes.len() as u64 <= FILE_LIMIT {
            true => Ok(()),
            false => Err(io::Error::other(format!("it has more than {FILE_LIMIT} bytes, which would not be read"))),
        };
        let bytes = written.and_then(|bytes| readable(&bytes).map(|()| bytes));
        self.write_bytes(name, &bytes.map_err(Error::io("write", self.path.join(name)))?)
    }

    /// Writes the file `name`: whole or not at all.
    ///
    /// # Errors
    /// As [`RuntimeDirectory::write`].
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.make()?;
        let path = self.path.join(name);
        // Two writers of one name each have a file of their own; the last rename wins.
        let partial = self.path.join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&partial, bytes).and_then(|()| std::fs::rename(&partial, &path));
        written.map_err(|source| {
            let _ = std::fs::remove_file(&partial);
            Error::Io { attempt: "write", path, source }
        })
    }

    /// Removes the file `name`, if it is there.
    ///
    /// # Errors
    /// [`Error::Io`] if it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { attempt: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// The names that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect()
    }

    /// Makes the directory, if it is not there.
    pub(crate) fn make(&self) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::Io { attempt: "make the directory", path: self.path.clone(), source });
            }
            _ => {}
        }
        let metadata = self.path.symlink_metadata().map_err(Error::io("look at", &self.path))?;
        match metadata.is_dir() && is_private(&metadata) {
            true => Ok(()),
            false => Err(Error::Io {
                attempt: "use the directory",
                path: self.path.clone(),
                source: io::Error::new(io::ErrorKind::PermissionDenied, "others own it or may write it"),
            }),
        }
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover of a killed process that had our PID would be in the way.
    let _ = std::fs::remove_file(path);
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)?.write_all(bytes)
}

fn is_private(metadata: &std::fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn fresh() -> (tempfile::TempDir, RuntimeDirectory) {
        let parent = tempfile::tempdir().expect("directory");
        let runtime = RuntimeDirectory::at(parent.path().join("crr"));
        (parent, runtime)
    }

    #[test]
    fn what_was_written_is_read_back_and_private() {
        let (parent, runtime) = fresh();
        runtime.write("a.json", &vec![1, 2, 3]).expect("written");
        runtime.write("a.json", &vec![4]).expect("replaced");
        assert_eq!(runtime.read::<Vec<u32>>("a.json"), Some(vec![4]));
        assert_eq!(runtime.names("a"), ["a.json"]);
        assert_eq!(runtime.names("."), Vec::<String>::new(), "no partial file is left");
        let mode = parent.path().join("crr").metadata().expect("directory").mode();
        assert_eq!(mode & 0o777, 0o700);
        runtime.remove("a.json").expect("removed");
        runtime.remove("a.json").expect("removed twice");
        assert_eq!(runtime.read::<Vec<u32>>("a.json"), None);
    }

    #[test]
    fn damaged_foreign_and_linked_files_count_as_absent() {
        let (parent, runtime) = fresh();
        runtime.write("a.json", &1).expect("written");
        let path = parent.path().join("crr/a.json");
        for damage in ["", "{", "1 2", "\u{0}\u{0}"] {
            std::fs::write(&path, damage).expect("damaged");
            assert_eq!(runtime.read::<u32>("a.json"), None, "{damage:?}");
        }
        std::fs::write(&path, "1".repeat(FILE_LIMIT as usize + 1)).expect("too large");
        assert_eq!(runtime.read::<serde_json::Value>("a.json"), None);
        runtime.write("a.json", &1).expect("written");
        assert_eq!(runtime.read::<u32>("a.json"), Some(1));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("mode");
        assert_eq!(runtime.read::<u32>("a.json"), None, "others may write it");
        std::fs::rename(&path, parent.path().join("elsewhere")).expect("moved");
        std::fs::set_permissions(parent.path().join("elsewhere"), std::fs::Permissions::from_mode(0o600))
            .expect("mode");
        std::os::unix::fs::symlink(parent.path().join("elsewhere"), &path).expect("link");
        assert_eq!(runtime.read::<u32>("a.json"), None, "a symbolic link");
    }

    #[test]
    fn a_directory_that_others_may_write_is_neither_read_nor_written() {
        let (parent, runtime) = fresh();
        runtime.write("a.json", &1).expect("written");
        std::fs::set_permissions(parent.path().join("crr"), std::fs::Permissions::from_mode(0o777)).expect("mode");
        assert_eq!(runtime.read::<u32>("a.json"), None);
        assert!(runtime.write("a.json", &2).is_err());
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_an_error() {
        let (parent, runtime) = fresh();
        std::fs::write(parent.path().join("crr"), "").expect("file");
        assert!(runtime.write("a.json", &1).is_err());
    }
}
