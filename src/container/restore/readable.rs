//! Images that the root of a user namespace may read.
//!
//! Inside the container's user namespace CRIU opens images with no more rights than a user of the host has: a checkpoint that
//! only root may read is closed to it. So it is given a copy that anybody may read, in a file system of its own mount
//! namespace, where nobody else can get at it. The checkpoint itself stays as it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode, OFlags, fchmod, openat};

use crate::arena::{Arena, Plan, TmpfsOptions, place};
use crate::error::{Error, Result};

/// Where the copy is.
fn copies() -> PathBuf {
    place("images")
}

/// Plans the file system for the copy.
pub(super) fn plan(plan: &mut Plan) {
    plan.directory(copies(), 0o755);
    plan.tmpfs(copies(), TmpfsOptions { data: "mode=755".into(), ..TmpfsOptions::default() });
}

/// Copies all files of `images` there. `None` if the images have others below them, which are looked for by a relative path.
pub(super) fn copy(images: BorrowedFd<'_>, arena: &Arena) -> Result<Option<OwnedFd>> {
    let target = arena.open(copies(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    match copy_all(images, target.as_fd()) {
        Ok(true) => Ok(Some(target)),
        Ok(false) => Ok(None),
        Err(source) => Err(Error::system("copy the images for the root of the container's user namespace", source)),
    }
}

fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<bool> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        if entry.file_name() == c"parent" {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Directories are crr's own.
        if !matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown) {
            continue;
        }
        let mut source = File::from(openat(from, entry.file_name(), flags, Mode::empty())?);
        if !source.metadata()?.is_file() {
            continue;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut target = File::from(openat(to, entry.file_name(), flags, Mode::from_raw_mode(0o644))?);
        io::copy(&mut source, &mut target)?;
        // The umask had its say.
        fchmod(&target, Mode::from_raw_mode(0o644))?;
    }
    Ok(true)
}
