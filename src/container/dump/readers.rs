//! Who reads the images at a restore.
//!
//! CRIU opens them in the tasks that it restores, and within a user namespace these are of the namespace's root: images that
//! only the host's root may read cannot be restored there, by runc neither. They are given to the group of that root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use crate::error::{Error, Result};

/// The group, as this process sees it, of the root of a container's user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readers {
    group: u32,
}

impl Readers {
    /// Those of the container whose first process this is; `None` if it is in this process's user namespace, and for one whose
    /// root has no number here.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let theirs = namespace(&pid.to_string())?;
        if namespace("self")? == theirs {
            return None;
        }
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/gid_map")).ok()?)
    }

    /// The first number of the range outside that begins with 0 inside.
    fn parse(map: &str) -> Option<Self> {
        let mut lines = map.lines().map(|line| line.split_whitespace());
        let group =
            lines.find_map(|mut words| (words.next() == Some("0")).then(|| words.next()?.parse().ok()).flatten())?;
        Some(Self { group })
    }

    /// Lets them read the files of a directory, and nobody else who could not before.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn let_in(self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
            let entry = entry.map_err(Error::io("read", directory))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                self.give(&entry.path(), 0o640)?;
            }
        }
        self.give(directory, 0o750)
    }

    fn give(self, path: &Path, mode: u32) -> Result<()> {
        chown(path, None, Some(self.group))
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(Error::io("let the root of the user namespace read", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_root_is_found_in_a_map() {
        let group = |map| Readers::parse(map).map(|readers| readers.group);
        assert_eq!(group("         0     100000      65536\n"), Some(100_000));
        assert_eq!(group("1 7 1\n0 200000 1\n"), Some(200_000));
        assert_eq!(group("1 7 1\n"), None);
        assert_eq!(group(""), None);
        assert_eq!(group("0 x 1"), None);
    }

    #[test]
    fn this_process_needs_nobody_let_in() {
        assert_eq!(Readers::of(i32::try_from(std::process::id()).expect("a PID")), None);
    }
}
