//! /proc/PID/mountinfo: the mounts a task sees.

use std::path::{Path, PathBuf};

use super::lines::{decimal, words};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's ID, unique while it exists.
    pub id: i32,
    /// The mount it is on.
    pub parent: i32,
    /// The device of the filesystem, as `stat` gives it.
    pub device: u64,
    /// What of the filesystem is mounted.
    pub root: PathBuf,
    /// Where.
    pub mountpoint: PathBuf,
    /// The options of this mount, such as `rw,nosuid,relatime`.
    pub options: String,
    /// Whether it has peers or a master: then mounts made elsewhere may appear on it.
    pub propagates: bool,
    /// The filesystem's type.
    pub filesystem: String,
    /// What was mounted.
    pub source: String,
    /// The filesystem's own options, such as `rw,size=65536k`.
    pub filesystem_options: String,
}

impl Mount {
    /// Parses one line; `None` when it is not of that form.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = words(line);
        let id = decimal(fields.next()?)?;
        let parent = decimal(fields.next()?)?;
        let device = fields.next()?;
        let colon = device.iter().position(|byte| *byte == b':')?;
        let device = device_number(decimal(&device[..colon])?, decimal(&device[colon + 1..])?);
        let root = unescape(fields.next()?);
        let mountpoint = unescape(fields.next()?);
        let options = String::from_utf8_lossy(fields.next()?).into_owned();
        // Any number of optional fields, then a dash alone.
        let mut propagates = false;
        while let Some(field) = Some(fields.next()?).filter(|field| *field != b"-") {
            propagates |= field.starts_with(b"shared:") || field.starts_with(b"master:");
        }
        let filesystem = String::from_utf8_lossy(fields.next()?).into_owned();
        let source = unescape(fields.next().unwrap_or_default()).to_string_lossy().into_owned();
        let filesystem_options = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
        Some(Self { id, parent, device, root, mountpoint, options, propagates, filesystem, source, filesystem_options })
    }

    /// The mounts that process `pid` sees.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if there is no such process.
    pub fn all_of(pid: i32) -> crate::Result<Vec<Self>> {
        let path = format!("/proc/{pid}/mountinfo");
        let text = std::fs::read(&path).map_err(crate::Error::io("read", &path))?;
        Ok(text.split(|byte| *byte == b'\n').filter_map(Self::parse).collect())
    }

    /// The mount of `mounts` that `path` lies on: the last one with the longest mount point above it.
    pub fn of_path<'a>(mounts: &'a [Self], path: &Path) -> Option<&'a Self> {
        let above = mounts.iter().filter(|mount| path.starts_with(&mount.mountpoint));
        above.max_by_key(|mount| mount.mountpoint.as_os_str().len())
    }

    /// Whether `mounts` hide this one: another mount sits on the same place or on a directory above, put there later.
    pub fn is_hidden(&self, mounts: &[Self]) -> bool {
        // The rule of CRIU's mnt_is_overmounted: a child on the very mount point, or a sibling (of it or of a mount it is
        // on) whose mount point is the same or above.
        if mounts
            .iter()
            .any(|other| other.parent == self.id && other.id != self.id && other.mountpoint == self.mountpoint)
        {
            return true;
        }
        let mut current = self;
        // A cycle cannot be real, but the text is read line by line from a changing table.
        for _ in 0..mounts.len() {
            let siblings = mounts.iter().filter(|other| other.parent == current.parent && other.id != current.id);
            // The root of the namespace has a parent that is not listed, and no siblings that matter.
            let Some(parent) = mounts.iter().find(|other| other.id == current.parent && other.id != current.id) else {
                return false;
            };
            if siblings
                .into_iter()
                .any(|other| other.id != parent.id && current.mountpoint.starts_with(&other.mountpoint))
            {
                return true;
            }
            current = parent;
        }
        false
    }
}

/// A device number as `stat` gives it.
pub(super) fn device_number(major: u32, minor: u32) -> u64 {
    nix::sys::stat::makedev(u64::from(major), u64::from(minor))
}

/// Turns `\040` and the like back into the byte.
fn unescape(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match (byte, digits) {
            (b'\\', Some(digits)) => {
                plain.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &tail[3..];
            }
            _ => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mounts(text: &str) -> Vec<Mount> {
        text.lines().map(|line| Mount::parse(line.as_bytes()).expect("a good line")).collect()
    }

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let mount = &mounts(
            "36 35 98:2 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/ro\\134ot rw,errors=continue",
        )[0];
        assert_eq!((mount.id, mount.parent), (36, 35));
        assert_eq!(mount.device, nix::sys::stat::makedev(98, 2));
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.mountpoint, Path::new("/mnt 2"));
        assert_eq!((mount.filesystem.as_str(), mount.source.as_str()), ("ext3", "/dev/ro\\ot"));
        assert_eq!((mount.options.as_str(), mount.filesystem_options.as_str()), ("rw,noatime", "rw,errors=continue"));
        assert!(mount.propagates && !mounts("1 0 8:1 / / rw - ext4 a rw")[0].propagates);
    }

    #[test]
    fn a_mount_is_hidden_by_one_on_top_of_it_and_by_one_above_it() {
        let table = mounts(
            "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /data rw - ext4 b rw\n3 2 8:3 / /data rw - tmpfs c rw\n\
             4 1 8:4 / /srv/x rw - ext4 d rw\n5 1 8:5 / /srv rw - tmpfs e rw",
        );
        let hidden: Vec<i32> = table.iter().filter(|mount| mount.is_hidden(&table)).map(|mount| mount.id).collect();
        assert_eq!(hidden, [2, 4]);
    }

    #[test]
    fn the_longest_mount_point_has_the_path() {
        let table = mounts("1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /data rw - ext4 b rw");
        assert_eq!(Mount::of_path(&table, Path::new("/data/x")).map(|mount| mount.id), Some(2));
        assert_eq!(Mount::of_path(&table, Path::new("/database")).map(|mount| mount.id), Some(1));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Mount::parse(&text);
        }

        #[test]
        fn a_table_that_refers_to_itself_is_walked_to_an_end(ids in proptest::collection::vec((0..6i32, 0..6i32), 0..6)) {
            let table: Vec<Mount> = ids
                .iter()
                .filter_map(|(id, parent)| Mount::parse(format!("{id} {parent} 0:0 / / rw - x x rw").as_bytes()))
                .collect();
            for mount in &table {
                let _ = mount.is_hidden(&table);
            }
        }
    }
}
