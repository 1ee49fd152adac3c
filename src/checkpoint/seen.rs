//! A file outside the checkpoint as it was at the dump, and making one like it again.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::UNIX_EPOCH;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchown, lseek};
use serde::{Deserialize, Serialize};

/// What stat(2) said. Times are nanoseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The device of its filesystem.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// As `st_mode`: type and permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When its content last changed.
    pub mtime_ns: i64,
    /// When it was made, where the filesystem knows: an inode number is used again, this time is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born_ns: Option<i64>,
}

impl Seen {
    /// What is known of a file.
    pub(super) fn of(metadata: &Metadata) -> Self {
        let since_1970 = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            born_ns: since_1970.and_then(|time| i64::try_from(time.as_nanos()).ok()),
        }
    }

    /// What kind of file it is.
    pub(super) fn kind(&self) -> SFlag {
        kind_of(self.mode)
    }

    /// Whether it is the same file, whatever has been written to it.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        let born = self.born_ns.is_none() || other.born_ns.is_none() || self.born_ns == other.born_ns;
        (self.device, self.inode) == (other.device, other.inode) && self.kind() == other.kind() && born
    }

    /// Whether it is the same file and, as far as stat(2) tells, with the same content.
    pub(super) fn is_unchanged(&self, other: &Self) -> bool {
        self.is_same_file(other) && (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)
    }

    /// Gives a file the owner, mode and times that were seen.
    pub(super) fn apply(&self, file: &File) -> io::Result<()> {
        // The owner first: changing it takes set-user-ID bits away.
        fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        fchmod(file, Mode::from_bits_truncate(self.mode))?;
        let time = TimeSpec::new(self.mtime_ns.div_euclid(1_000_000_000), self.mtime_ns.rem_euclid(1_000_000_000));
        futimens(file, &time, &time)?;
        Ok(())
    }
}

/// The file type bits of a mode.
pub(super) fn kind_of(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

/// Copies a file into an empty one: holes stay holes, and blocks are shared where the filesystem can (the copy_file_range(2)
/// of [`io::copy`] does both the cloning and, elsewhere, the copying). Moves the position of both.
pub(super) fn copy_content(from: &File, to: &File) -> io::Result<()> {
    let length = i64::try_from(from.metadata()?.len()).map_err(io::Error::other)?;
    to.set_len(length.unsigned_abs())?;
    let mut at = 0;
    while at < length {
        let start = match lseek(from, at, Whence::SeekData) {
            Ok(start) => start,
            // The rest is a hole.
            Err(Errno::ENXIO) => break,
            // This filesystem knows no holes.
            Err(Errno::EINVAL) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = lseek(from, start, Whence::SeekHole).unwrap_or(length).clamp(start, length);
        lseek(from, start, Whence::SeekSet)?;
        lseek(to, start, Whence::SeekSet)?;
        io::copy(&mut from.take((end - start).unsigned_abs()), &mut &*to)?;
        at = end.max(start + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

    #[test]
    fn a_copy_has_the_content_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let from = File::create_new(path("from")).unwrap();
        from.write_all_at(b"start", 0).unwrap();
        from.write_all_at(b"middle", 40 << 20).unwrap();
        from.set_len(80 << 20).unwrap();
        let to = File::create_new(path("to")).unwrap();
        copy_content(&File::open(path("from")).unwrap(), &to).unwrap();
        let mut content = std::fs::read(path("to")).unwrap();
        assert_eq!(content.len(), 80 << 20);
        assert_eq!((&content[..5], &content[40 << 20..][..6]), (&b"start"[..], &b"middle"[..]));
        content.retain(|&byte| byte != 0);
        assert_eq!(content.len(), 11);
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "the holes were filled");
    }

    #[test]
    fn a_copy_between_filesystems_is_the_same() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        std::fs::write(here.path().join("a"), vec![9; 300_000]).unwrap();
        let to = File::create_new(there.path().join("a")).unwrap();
        copy_content(&File::open(here.path().join("a")).unwrap(), &to).unwrap();
        assert_eq!(std::fs::read(there.path().join("a")).unwrap(), vec![9; 300_000]);
    }

    #[test]
    fn mode_and_time_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let original = File::create_new(dir.path().join("a")).unwrap();
        original.set_permissions(std::fs::Permissions::from_mode(0o4751)).unwrap();
        let seen = Seen { mtime_ns: 1_234_567_890_123_456_789, ..Seen::of(&original.metadata().unwrap()) };
        let copy = File::create_new(dir.path().join("b")).unwrap();
        seen.apply(&copy).unwrap();
        let now = Seen::of(&copy.metadata().unwrap());
        assert_eq!((now.mode, now.mtime_ns, now.uid), (seen.mode, seen.mtime_ns, seen.uid));
        assert!(!now.is_same_file(&seen));
    }
}
