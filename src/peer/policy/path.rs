//! Whether a path on this host is in an allowed place, and is what may be opened there.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, getxattr, openat2};
use rustix::io::Errno;

use super::values::{Place, is_plain};

/// What there is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    File,
    Directory,
    Socket,
    Nothing,
}

/// Devices that give nothing: null, zero, full, random, urandom.
const HARMLESS: [u32; 5] = [3, 5, 7, 8, 9];

/// Looks at `path`, which must be in one of `places`: nothing on the way from there may be a symbolic link.
///
/// # Errors
/// Why it is not allowed.
pub(super) fn look(places: &[Place], path: &Path) -> Result<Found, String> {
    if !is_plain(path) {
        return Err("it is no absolute path without `.` and `..`".into());
    }
    let place = Place::around(places, path).ok_or("it is not listed")?;
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = match path.strip_prefix(place) {
        Ok(below) if !below.as_os_str().is_empty() => {
            openat2(CWD, place, flags | OFlags::DIRECTORY, Mode::empty(), links)
                .and_then(|directory| openat2(&directory, below, flags, Mode::empty(), links | ResolveFlags::BENEATH))
        }
        _ => openat2(CWD, place, flags, Mode::empty(), links),
    };
    match opened {
        Ok(opened) => judged(&opened),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::LOOP) => Err("a part of it is a symbolic link".into()),
        Err(Errno::XDEV) => Err("it leads out of the place that is listed".into()),
        Err(errno) => Err(format!("it cannot be looked at ({errno})")),
    }
}

/// Looks at the directory that `path` is, or is to be, a name in.
pub(super) fn look_around(places: &[Place], path: &Path) -> Result<(), String> {
    if !is_plain(path) {
        return Err("it is no absolute path without `.` and `..`".into());
    }
    let above = path.parent().ok_or("it has no directory")?;
    match look(places, above)? {
        Found::Directory => Ok(()),
        Found::Nothing => Err("its directory is not there".into()),
        Found::File | Found::Socket => Err("what it should be in is no directory".into()),
    }
}

fn judged(opened: &OwnedFd) -> Result<Found, String> {
    let stat = fstat(opened).map_err(|errno| format!("it cannot be looked at ({errno})"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Ok(Found::Directory),
        FileType::Socket => return Ok(Found::Socket),
        FileType::Fifo => return Ok(Found::File),
        device @ (FileType::CharacterDevice | FileType::BlockDevice) => {
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            let harmless = device == FileType::CharacterDevice && major == 1 && HARMLESS.contains(&minor);
            return if harmless { Ok(Found::File) } else { Err(format!("it is a device ({major}:{minor})")) };
        }
        FileType::RegularFile => {}
        _ => return Err("it is neither a file nor a directory".into()),
    }
    if stat.st_mode & 0o6000 != 0 {
        return Err(format!("it is set-user-ID or set-group-ID (mode {:04o})", stat.st_mode & 0o7777));
    }
    // A descriptor of a path has no attributes of its own.
    let by_descriptor = format!("/proc/self/fd/{}", opened.as_raw_fd());
    match getxattr(by_descriptor, "security.capability", &mut [0_u8; 64][..]) {
        Ok(_) | Err(Errno::RANGE) => Err("it has file capabilities".into()),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(Found::File),
        Err(errno) => Err(format!("its capabilities cannot be looked at ({errno})")),
    }
}
