//! The mounts of an arena.

use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{PLACE, TmpfsOptions};
use crate::error::{Error, Result};
use crate::host::RuntimeDirectory;

const NONE: Option<&str> = None;

/// Makes the directory that every arena is mounted over.
pub(crate) fn make_place() -> Result<()> {
    RuntimeDirectory::at(PLACE).make()
}

/// Nothing that is mounted from here on is seen elsewhere, and nothing that others mount is seen here.
pub(crate) fn make_private() -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|errno| Error::io("make the mounts private below", "/")(errno.into()))
}

/// Nothing that is mounted from here on is seen elsewhere; what others mount and unmount is, here.
pub(super) fn follow() -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .map_err(|errno| Error::io("let the mounts follow those outside below", "/")(errno.into()))
}

/// Makes a directory and those above it.
pub(super) fn directory(path: &Path, mode: u32) -> Result<()> {
    let made = match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o755).create(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        other => other,
    };
    // The umask had its say.
    made.and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(Error::io("make the directory", path))
}

/// Mounts a fresh tmpfs.
pub(super) fn tmpfs(target: &Path, options: &TmpfsOptions) -> Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), options.flags, Some(options.data.as_str()))
        .map_err(|errno| Error::io("mount a tmpfs at", target)(errno.into()))
}

/// Mounts a tree of mounts at a second place.
pub(super) fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(|errno| Error::io("bind to another place", source)(errno.into()))
}

/// Mounts an overlay.
pub(super) fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    let mut data = OsString::from("lowerdir=");
    for (index, path) in lower.iter().enumerate() {
        data.push(if index == 0 { "" } else { ":" });
        data.push(escaped(path, b"\\:,"));
    }
    data.push(",upperdir=");
    data.push(escaped(upper, b"\\,"));
    data.push(",workdir=");
    data.push(escaped(work, b"\\,"));
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(data.as_os_str()))
        .map_err(|errno| Error::io("mount an overlay at", target)(errno.into()))
}

/// The file system takes these bytes of a path for its own unless a backslash says otherwise.
fn escaped(path: &Path, special: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if special.contains(byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    OsString::from_vec(out)
}
