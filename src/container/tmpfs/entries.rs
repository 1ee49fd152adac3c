//! What is in a tmpfs that holds no data.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, chmodat, chownat, fchmod, fchown, fstat, mkdirat, mknodat,
    openat, openat2, readlinkat, statat, symlinkat,
};
use rustix::process::{Gid, Uid};

use crate::checkpoint::RecordedEntry;

/// With more it is not quick any more. A runtime's /dev has 16.
const ENTRIES_LIMIT: usize = 512;

/// No deeper than this.
const DEPTH_LIMIT: usize = 8;

/// An SELinux label, which the policy gives anew.
const LABEL: &str = "security.selinux";

/// All that is in the file system: its root first, with an empty path, parents before what is in them, in order. `None` if it
/// holds something that cannot be made again from this.
pub(super) fn list(tree: &OwnedFd) -> Option<Vec<RecordedEntry>> {
    let mut entries = vec![entry(tree.as_fd(), Path::new(""), Path::new(""))?];
    walk(tree.as_fd(), Path::new(""), 0, &mut entries)?;
    Some(entries)
}

fn walk(parent: BorrowedFd<'_>, path: &Path, depth: usize, entries: &mut Vec<RecordedEntry>) -> Option<()> {
    if depth > DEPTH_LIMIT {
        return None;
    }
    let opened = openat(parent, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut names: Vec<PathBuf> = Vec::new();
    for found in Dir::read_from(&opened).ok()? {
        let found = found.ok()?;
        let name = found.file_name().to_str().ok()?;
        if name != "." && name != ".." {
            names.push(name.into());
        }
        if entries.len() + names.len() > ENTRIES_LIMIT {
            return None;
        }
    }
    names.sort();
    for name in names {
        let path = path.join(&name);
        let entry = entry(opened.as_fd(), &name, &path)?;
        let is_directory = kind(entry.mode) == FileType::Directory;
        entries.push(entry);
        if is_directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            walk(openat(&opened, &name, flags, Mode::empty()).ok()?.as_fd(), &path, depth + 1, entries)?;
        }
    }
    Some(())
}

/// One of them; `None` for one with data or a second name.
fn entry(parent: BorrowedFd<'_>, name: &Path, path: &Path) -> Option<RecordedEntry> {
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH).ok()?;
    let mut entry = RecordedEntry {
        path: path.to_path_buf(),
        mode: found.st_mode,
        uid: found.st_uid,
        gid: found.st_gid,
        ..RecordedEntry::default()
    };
    match kind(found.st_mode) {
        FileType::Directory => return Some(entry),
        FileType::RegularFile if found.st_size > 0 || found.st_blocks > 0 => return None,
        FileType::RegularFile | FileType::Fifo | FileType::Socket => {}
        FileType::CharacterDevice | FileType::BlockDevice => entry.device = found.st_rdev,
        FileType::Symlink => {
            entry.target = Some(readlinkat(parent, name, Vec::new()).ok()?.into_string().ok()?.into());
        }
        FileType::Unknown => return None,
    }
    (found.st_nlink == 1).then_some(entry)
}

/// Whether nothing in it has attributes beyond those recorded: access lists, capabilities.
pub(super) fn are_plain(tree: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd as _;

    let Some(entries) = list(tree) else { return false };
    let root = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    entries.iter().all(|entry| {
        // The root is reached through a link.
        let path = root.join(".").join(&entry.path);
        let mut names = [0_u8; 256];
        let length = rustix::fs::llistxattr(&path, &mut names);
        length.is_ok_and(|length| {
            names[..length].split(|byte| *byte == 0).all(|name| name.is_empty() || name == LABEL.as_bytes())
        })
    })
}

/// Makes them in an empty tmpfs, whose root becomes the first of them.
pub(super) fn make(directory: &OwnedFd, entries: &[RecordedEntry]) -> io::Result<()> {
    if entries.len() > ENTRIES_LIMIT {
        return Err(invalid("there are too many"));
    }
    if let Some(root) = entries.first().filter(|root| root.path.as_os_str().is_empty()) {
        let now = fstat(directory)?;
        if (now.st_mode, now.st_uid, now.st_gid) != (root.mode, root.uid, root.gid) {
            fchown(directory, Some(Uid::from_raw(root.uid)), Some(Gid::from_raw(root.gid)))?;
            fchmod(directory, Mode::from_raw_mode(root.mode & 0o7777))?;
        }
    }
    for entry in entries.iter().filter(|entry| !entry.path.as_os_str().is_empty()) {
        let is_plain = entry.path.components().all(|part| matches!(part, Component::Normal(_)));
        let Some(name) = entry.path.file_name().filter(|_| is_plain) else {
            return Err(invalid("a path leads out of it"));
        };
        let parent = entry.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat2(directory, parent, flags, Mode::empty(), within)?;
        make_one(&parent, Path::new(name), entry)?;
    }
    Ok(())
}

fn make_one(parent: &OwnedFd, name: &Path, entry: &RecordedEntry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let private = Mode::from_raw_mode(0o600);
    match kind(entry.mode) {
        FileType::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o700))?,
        FileType::Symlink => {
            let target = entry.target.as_ref().ok_or_else(|| invalid("a symbolic link leads nowhere"))?;
            symlinkat(target, parent, name)?;
            return Ok(chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?);
        }
        FileType::Unknown => return Err(invalid("a file is of no kind")),
        kind => mknodat(parent, name, kind, private, entry.device)?,
    }
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // After the owner, whose change takes the set-user-ID bit away. Not a link: it has just been made.
    Ok(chmodat(parent, name, Mode::from_raw_mode(entry.mode & 0o7777), AtFlags::empty())?)
}

fn kind(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
