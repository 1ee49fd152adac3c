//! Reading with a limit, writing whole or not at all.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::de::{Deserialize, Deserializer};
use serde_json::Value;

use super::Problem;
use crate::error::{Error, Result};

/// The largest file that is read, in bytes. runc's state of a container with every seccomp rule of Docker's has 60 KiB.
pub const FILE_LIMIT: u64 = 4 << 20;

/// The content of the plain file `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    // A fifo with that name must not hold us.
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(Error::io("read", path))?;
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    if !metadata.is_file() {
        return Err(wrong(path, Problem::NotPlain));
    }
    let mut content = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut content).map_err(Error::io("read", path))?;
    if content.len() as u64 > FILE_LIMIT {
        return Err(wrong(path, Problem::TooLarge(FILE_LIMIT)));
    }
    Ok(content)
}

/// `content` as JSON; `path` is where it came from.
pub(super) fn json(content: &[u8], path: &Path) -> Result<Value> {
    if content.len() as u64 > FILE_LIMIT {
        return Err(wrong(path, Problem::TooLarge(FILE_LIMIT)));
    }
    serde_json::from_slice(content).map_err(|error| wrong(path, Problem::Malformed(error.to_string())))
}

/// Replaces `path`, readable for its owner only, as runc's and crun's own are. Not synced: a state file is worth nothing
/// after a reboot.
///
/// If we die here, the directory holds `.NAME.PID.crr` beside the old file, which no runtime reads and `runc delete` removes.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.{}.crr", std::process::id()));
    let written = write_new(&partial, content).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&partial);
        Error::Io { attempt: "write", path: path.to_path_buf(), source }
    })
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    // A leftover of a former process of this number.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

/// An [`Error::Container`].
pub(super) fn wrong(path: &Path, problem: Problem) -> Error {
    Error::Container { path: path.to_path_buf(), problem }
}

/// Go's decoder takes `null` for any type's zero value, and its encoder writes it for an empty list.
pub(super) fn null_is_default<'de, D, T>(from: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}
