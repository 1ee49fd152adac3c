//! What a container is on its host beside its cgroups: its first process, its directory in the runtime's root, the directory of
//! a clone.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use procfs::process::{MMPermissions, Process};
use serde::{Deserialize, Serialize};

use crate::oci::NamespaceKind;

/// In the directory of a container that is being restored: what is in there is of a restore that has not come to its end.
const MARK: &str = "crr-restore";

/// So long may the removal of what a killed restore left take.
const LEAVING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// The first process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Init {
    /// Its PID, as this process sees it.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
}

impl Init {
    /// The process that has this PID now.
    ///
    /// # Errors
    /// [`io::Error`] if there is none.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = Process::new(pid).and_then(|process| process.stat()).map_err(io::Error::other)?;
        Ok(Self { pid, start_ticks: stat.starttime })
    }

    pub(crate) fn is_alive(self) -> bool {
        let stat = Process::new(self.pid).and_then(|process| process.stat());
        stat.is_ok_and(|stat| stat.starttime == self.start_ticks && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Whether it waits in CRIU's restorer for a CRIU that is gone. Its code lies in memory that is anonymous, writable and
    /// executable at once, and waits on a futex; no program of its own is there at this point.
    pub(crate) fn hangs(self) -> bool {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/syscall", self.pid)) else { return false };
        let mut words = text.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<i64>().ok()) else { return false };
        let at = words.next_back().and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        let Some(at) = at.filter(|_| number == libc::SYS_futex) else { return false };
        let maps = Process::new(self.pid).and_then(|process| process.maps());
        let all = MMPermissions::READ | MMPermissions::WRITE | MMPermissions::EXECUTE;
        maps.is_ok_and(|maps| {
            maps.into_iter()
                .any(|map| (map.address.0..map.address.1).contains(&at) && map.perms.contains(all) && map.inode == 0)
        })
    }
}

/// Whether a container can be restored into a namespace of this kind that is there already.
pub(super) fn can_be_joined(kind: NamespaceKind) -> bool {
    !matches!(kind, NamespaceKind::Cgroup | NamespaceKind::Mount | NamespaceKind::User)
}

/// Makes the directory of a container in the runtime's root, which must not be there.
pub(super) fn make_state(directory: &Path) -> io::Result<()> {
    if let Some(root) = directory.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    }
    fs::DirBuilder::new().mode(0o711).create(directory)?;
    fs::write(directory.join(MARK), "")
}

/// Whether the directory is there, and is not about to be gone: another crr may just be removing what a killed restore left,
/// and is waited for.
pub(super) fn is_taken(directory: &Path) -> bool {
    let deadline = Instant::now() + LEAVING;
    let is_unfinished = || {
        let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
        // In the end it is empty.
        directory.join(MARK).exists() || entries.next().is_none()
    };
    loop {
        let is_there = directory.symlink_metadata().is_ok();
        if !is_there || !is_unfinished() || Instant::now() >= deadline {
            return is_there;
        }
        std::thread::sleep(LOOK);
    }
}

/// The container is there to stay.
pub(super) fn release_state(directory: &Path) -> io::Result<()> {
    absent(fs::remove_file(directory.join(MARK)))
}

/// Removes the directory of a container that was never finished. Nothing is removed from one that a restore did not make.
pub(super) fn remove_state(directory: &Path) -> io::Result<()> {
    if directory.join(MARK).exists() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // The mark last: whoever is killed here leaves what the next one finds.
            if entry.file_type()?.is_file() && entry.file_name() != MARK {
                fs::remove_file(entry.path())?;
            }
        }
        release_state(directory)?;
    }
    match fs::remove_dir(directory) {
        // Somebody else's.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => absent(other),
    }
}

/// Removes the directory of a clone with all that is in it, unless something is mounted there.
pub(super) fn remove_clone(directory: &Path) -> io::Result<()> {
    let mounts = Process::myself().and_then(|own| own.mountinfo()).map_err(io::Error::other)?;
    if let Some(mount) = mounts.into_iter().find(|mount| mount.mount_point.starts_with(directory)) {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("`{}` is mounted in it", mount.mount_point.display()),
        ));
    }
    absent(fs::remove_dir_all(directory))
}

/// What is not there need not be removed.
fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
