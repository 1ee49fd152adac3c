//! The kernel: its release, and whether it was built for checkpoint and restore.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// The release of a kernel, such as `6.18.44-cloud-amd64`.
///
/// Equality compares the whole text, since two builds of one version may differ in what they can; [`KernelRelease::at_least`]
/// compares numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelRelease {
    text: String,
    major: u32,
    minor: u32,
}

impl KernelRelease {
    /// The kernel that runs.
    ///
    /// # Errors
    /// [`Error::Io`] if /proc is not mounted or names no release.
    pub fn running() -> Result<Self> {
        let text = std::fs::read_to_string(RELEASE).map_err(Error::io("read", RELEASE))?;
        text.trim().parse().map_err(|what: String| {
            Error::io("understand", RELEASE)(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
        })
    }

    /// Whether it is `major.minor` or later.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for KernelRelease {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a kernel release such as 6.12.0");
        let mut words = text.splitn(3, '.');
        let major = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
        let minor: String = words.next().ok_or_else(bad)?.chars().take_while(char::is_ascii_digit).collect();
        Ok(Self { text: text.to_owned(), major, minor: minor.parse().map_err(|_| bad())? })
    }
}

impl Serialize for KernelRelease {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for KernelRelease {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether the kernel was built with `CONFIG_CHECKPOINT_RESTORE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointRestore {
    /// It was.
    BuiltIn,
    /// It was not: neither of the two files exists that only such a kernel has.
    Missing,
}

impl CheckpointRestore {
    /// Looks for `/proc/sys/kernel/ns_last_pid` and `/proc/self/timers`. Either one is proof; a container may hide the first.
    pub fn look() -> Self {
        Self::look_below(Path::new("/proc"))
    }

    fn look_below(proc: &Path) -> Self {
        match proc.join("sys/kernel/ns_last_pid").exists() || proc.join("self/timers").exists() {
            true => Self::BuiltIn,
            false => Self::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_number_and_not_by_text() {
        let release = |text: &str| text.parse::<KernelRelease>().expect(text);
        assert!(release("6.16.0").at_least(6, 16));
        assert!(release("6.18.44-fc").at_least(6, 9));
        assert!(release("10.0-rc1").at_least(6, 16));
        assert!(!release("6.9.12").at_least(6, 16));
        assert!(!release("5.15.167.4-microsoft-standard-WSL2").at_least(6, 0));
        assert!(release("6.16-rc3").at_least(6, 16));
        assert_ne!(release("6.1.0-13-amd64"), release("6.1.0-14-amd64"));
        for bad in ["", "6", "linux", "6.x", "6."] {
            assert!(bad.parse::<KernelRelease>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_kernel_without_either_file_lacks_checkpoint_restore() {
        let proc = tempfile::tempdir().expect("directory");
        assert_eq!(CheckpointRestore::look_below(proc.path()), CheckpointRestore::Missing);
        std::fs::create_dir(proc.path().join("self")).expect("directory");
        std::fs::write(proc.path().join("self/timers"), "").expect("file");
        assert_eq!(CheckpointRestore::look_below(proc.path()), CheckpointRestore::BuiltIn);
    }
}
