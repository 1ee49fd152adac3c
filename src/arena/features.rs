//! CRIU's own cache of what the kernel can do, where `/run` is no tmpfs.

use std::fs::{self, DirEntry, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, umount2};
use rustix::fs::{Mode, OFlags};

use super::{PLACE, TmpfsOptions, mount};
use crate::error::{Error, Result};
use crate::host::RuntimeDirectory;

/// Where CRIU has it.
const RUN: &str = "/run";

/// Its name there.
const FILE: &str = "criu.kdat";

/// `f_type` of a tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// CRIU 4.2 writes 350 bytes.
const FILE_LIMIT: u64 = 64 << 10;

/// Each costs 10 µs: with more of them it is not worth it.
const ENTRIES_LIMIT: usize = 200;

/// What one CRIU knows about this kernel, kept in `/run/crr` until the next boot.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    directory: RuntimeDirectory,
    name: String,
    about: [u8; 32],
}

impl FeatureCache {
    /// The cache in the file of that name, which must be about this: a digest of the CRIU, the kernel and the boot. See
    /// [`Identity::features`](crate::criu::Identity::features).
    pub fn new(directory: RuntimeDirectory, name: impl Into<String>, about: [u8; 32]) -> Self {
        Self { directory, name: name.into(), about }
    }

    /// What was kept; nothing if it is about something else.
    fn kept(&self) -> Option<Vec<u8>> {
        let mut bytes = self.directory.read_bytes(&self.name, FILE_LIMIT + self.about.len() as u64)?;
        if !bytes.starts_with(&self.about) {
            return None;
        }
        bytes.drain(..self.about.len());
        (!bytes.is_empty()).then_some(bytes)
    }

    fn store(&self, bytes: &[u8]) -> Result<()> {
        self.directory.write_bytes(&self.name, &[&self.about, bytes].concat())
    }

    /// Mounts a tmpfs over `/run` with the cache in it, and all that is in `/run`. `None` where that is not needed, or where
    /// it cannot be done: it is about time only.
    pub(super) fn load(self) -> Result<Option<Loaded>> {
        let is_tmpfs = rustix::fs::statfs(RUN).is_ok_and(|found| found.f_type as u64 == TMPFS_MAGIC);
        if is_tmpfs {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(old) = rustix::fs::open(RUN, flags, Mode::empty()) else { return Ok(None) };
        // Before the mount hides it.
        let known = self.kept();
        let options = TmpfsOptions { data: "mode=755,size=4m".into(), ..TmpfsOptions::default() };
        mount::tmpfs(Path::new(RUN), &options)?;
        match fill(&old, known.as_deref()) {
            Ok(run) => Ok(Some(Loaded { cache: self, run, was_known: known.is_some(), known })),
            Err(_) => {
                // A /run as it is not known here. The operation takes longer, that is all.
                umount2(RUN, MntFlags::MNT_DETACH).map_err(|errno| Error::io("unmount", RUN)(errno.into()))?;
                Ok(None)
            }
        }
    }
}

/// A cache that CRIU finds in its arena.
#[derive(Debug)]
pub(super) struct Loaded {
    cache: FeatureCache,
    /// The tmpfs.
    run: OwnedFd,
    known: Option<Vec<u8>>,
    was_known: bool,
}

impl Loaded {
    pub(super) fn was_known(&self) -> bool {
        self.was_known
    }

    /// Keeps what CRIU has written, if that is something else than what it was given.
    pub(super) fn keep(&mut self) -> Result<()> {
        let Some(written) = read(&self.run) else { return Ok(()) };
        if self.known.as_ref() != Some(&written) {
            // Not in the arena's own /run/crr: this thread is outside.
            self.cache.store(&written)?;
            self.known = Some(written);
        }
        Ok(())
    }
}

/// The file as CRIU left it; nothing if it is none of its.
fn read(run: &OwnedFd) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(run, FILE, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    let is_sound = metadata.is_file() && metadata.uid() == 0 && metadata.size() > 0 && metadata.size() <= FILE_LIMIT;
    let mut bytes = Vec::new();
    (is_sound && file.take(FILE_LIMIT).read_to_end(&mut bytes).is_ok()).then_some(bytes)
}

/// Makes the new `/run` what the old one is.
fn fill(old: &OwnedFd, known: Option<&[u8]>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let run = rustix::fs::open(RUN, flags, Mode::empty())?;
    if let Some(known) = known {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        options.open(Path::new(RUN).join(FILE))?.write_all(known)?;
    }
    // Of the arena itself; nothing in there uses crr's.
    let own = Path::new(PLACE);
    mount::directory(own, 0o711).map_err(io::Error::other)?;
    let below = PathBuf::from(format!("/proc/thread-self/fd/{}", old.as_raw_fd()));
    let entries = fs::read_dir(&below)?.collect::<io::Result<Vec<DirEntry>>>()?;
    if entries.len() > ENTRIES_LIMIT {
        return Err(io::ErrorKind::Unsupported.into());
    }
    for entry in entries {
        let name = entry.file_name();
        let is_cache = name.to_string_lossy().starts_with(FILE);
        let target = Path::new(RUN).join(&name);
        if !is_cache && target != own {
            show(&entry, &target)?;
        }
    }
    Ok(run)
}

/// Shows an entry of the old `/run` at its place in the new one.
fn show(entry: &DirEntry, target: &Path) -> io::Result<()> {
    let kind = entry.file_type()?;
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(entry.path())?, target);
    }
    match kind.is_dir() {
        true => fs::create_dir(target)?,
        false => drop(File::create_new(target)?),
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    match nix::mount::mount(Some(&entry.path()), target, None::<&str>, flags, None::<&str>) {
        // It is gone by now, as such files are.
        Err(nix::errno::Errno::ENOENT) => Ok(()),
        other => Ok(other?),
    }
}
