//! `mountpoints-ID.img`: the mounts of a mount namespace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::name;
use super::record::Record;
use crate::proto::images::mnt as proto;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// Its number at the dump.
    pub id: u32,
    /// The number of what it is mounted on.
    pub parent: u32,
    /// Where it is mounted, as the tasks see it. Absolute.
    pub mountpoint: PathBuf,
    /// What of the file system is mounted there.
    pub root: PathBuf,
    /// CRIU's number for the kind of file system.
    pub kind: u32,
    /// What stands for it where it comes from outside: a restore must give a path for this key.
    pub external: Option<OsString>,
}

impl Mount {
    /// CRIU's number for cgroup v1.
    pub const CGROUP: u32 = 12;
    /// CRIU's number for cgroup v2.
    pub const CGROUP2: u32 = 23;
    /// CRIU's number for tmpfs.
    pub const TMPFS: u32 = 5;

    /// Whether it is the root of the namespace.
    pub fn is_root(&self) -> bool {
        self.mountpoint == Path::new("/")
    }

    #[cfg(test)]
    pub(crate) fn external_at(mountpoint: &str, key: &str) -> Self {
        let (mountpoint, root) = (mountpoint.into(), "/".into());
        Self { id: 1, parent: 0, mountpoint, root, kind: 0, external: Some(key.into()) }
    }
}

impl Record for Mount {
    type Message = proto::Mnt_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        // Images have it relative to the root, as in `./proc`.
        let mountpoint = PathBuf::from(name(message.mountpoint));
        let below = mountpoint.strip_prefix(".").or_else(|_| mountpoint.strip_prefix("/")).unwrap_or(&mountpoint);
        let external = message.ext_key.map(|key| name(Some(key)));
        Ok(Self {
            id: message.mnt_id.unwrap_or_default(),
            parent: message.parent_mnt_id.unwrap_or_default(),
            mountpoint: Path::new("/").join(below),
            root: name(message.root).into(),
            kind: message.fstype.unwrap_or_default(),
            // A mount that was found to be external by itself has no key but its number.
            external: external.or_else(|| message.ext_mount.unwrap_or_default().then(OsString::new)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(mountpoint: &str, key: Option<&str>) -> Mount {
        let mut message = proto::Mnt_entry::new();
        message.set_mountpoint(mountpoint.into());
        message.ext_key = key.map(|key| key.into());
        Mount::from_message(message).expect("a mount")
    }

    #[test]
    fn a_mountpoint_is_absolute_however_it_is_written() {
        for written in ["./proc/keys", "/proc/keys", "proc/keys"] {
            assert_eq!(mount(written, None).mountpoint, Path::new("/proc/keys"));
        }
        assert!(mount("./", None).is_root());
        assert!(mount("/", None).is_root());
    }

    #[test]
    fn an_external_mount_has_its_key() {
        assert_eq!(mount("./a", Some("/dev/null")).external.as_deref(), Some("/dev/null".as_ref()));
        assert_eq!(mount("./a", None).external, None);
    }
}
