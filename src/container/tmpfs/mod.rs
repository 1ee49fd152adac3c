//! The tmpfs mounts of a container, left out of its images.
//!
//! CRIU keeps the content of a tmpfs with a `tar` and a `gzip` for each, 3 to 5 ms while the tasks stand still, and as much at
//! the restore: /dev, /dev/shm, every masked directory. Those that hold nothing but directories, links, devices and empty files
//! can be made anew instead: they are given to CRIU as mounts from outside, under a name. Such images need crr to be restored.
//!
//! Left to CRIU are those with content, as tasks may have it mapped or locked, those that share their file system with another
//! mount, and those of containers with a user namespace, whose root is not to own a mount of the host's.

mod entries;
mod options;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::arena::{Arena, Plan, place};
use crate::checkpoint::RecordedTmpfs;
use crate::error::{Error, Result};
use crate::process::Mount;
use options::Options;

/// A tmpfs that need not be in the images.
#[derive(Debug)]
pub struct Tmpfs {
    recorded: RecordedTmpfs,
    /// The file system's root, without what is mounted on it.
    tree: OwnedFd,
}

impl Tmpfs {
    /// Those of the container whose first process is `pid` that need not be in its images now. `is_taken` says which mounts
    /// are external anyway.
    ///
    /// To be called while the tasks run. All of them must be in one mount namespace.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::System`] if the namespace cannot be entered, which a dead process has none of.
    pub fn find(pid: i32, is_taken: impl Fn(&Mount) -> bool) -> Result<Vec<Self>> {
        let mounts = mounts_of(&pid.to_string())?;
        // Of this thread: the process may have another one.
        let host = mounts_of("thread-self")?;
        let own_user = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        if own_user(&pid.to_string()) != own_user("self") {
            return Ok(Vec::new());
        }
        let candidates: Vec<&Mount> = mounts
            .iter()
            .filter(|mount| mount.filesystem == "tmpfs" && mount.root == Path::new("/") && !mount.propagates)
            .filter(|mount| is_plain(&mount.mountpoint) && !is_taken(mount) && !mount.is_hidden(&mounts))
            .filter(|mount| is_alone(mount, &mounts, &host, &is_taken))
            .filter(|mount| Options::parse(&mount.options, &mount.filesystem_options).is_some())
            .collect();
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let trees = open_trees(pid, &candidates)?;
        let mut found: Vec<Self> = Vec::new();
        for (mount, tree) in candidates.into_iter().zip(trees) {
            let Some(tree) = tree else { continue };
            let Some(entries) = entries::list(&tree).filter(|_| entries::are_plain(&tree)) else { continue };
            let mut recorded = RecordedTmpfs {
                name: String::new(),
                destination: mount.mountpoint.clone(),
                flags: mount.options.clone(),
                options: mount.filesystem_options.clone(),
                entries,
            };
            if Options::parse(&recorded.flags, &recorded.options).is_some_and(|options| options.read_only) {
                if recorded.entries.len() > 1 {
                    continue;
                }
                // Nothing can ever be written to it: one will do for all that are masked so.
                let same = found.iter().find(|other| is_same(&other.recorded, &recorded));
                recorded.name = same.map(|other| other.recorded.name.clone()).unwrap_or_default();
            }
            if recorded.name.is_empty() {
                recorded.name = format!("crr-tmpfs-{}", found.len());
            }
            found.push(Self { recorded, tree });
        }
        Ok(found)
    }

    /// For [`DumpOptions::external`](crate::request::DumpOptions::external).
    pub fn external(&self) -> String {
        format!("mnt[{}]:{}", self.recorded.destination.display(), self.recorded.name)
    }

    /// For the checkpoint's record.
    pub fn recorded(&self) -> &RecordedTmpfs {
        &self.recorded
    }

    /// Whether it still holds what was recorded. To be asked while the tasks stand still: 0.1 ms.
    pub fn is_unchanged(&self) -> bool {
        entries::list(&self.tree).as_ref() == Some(&self.recorded.entries)
    }
}

/// Plans a fresh tmpfs for each of them, and gives what is to be told to CRIU, for
/// [`RestoreOptions::external`](crate::request::RestoreOptions::external). [`fill`] is next, in the arena.
///
/// # Errors
/// [`Error::Option`] about a record that this crr would not have written.
pub fn plan(recorded: &[RecordedTmpfs], plan: &mut Plan) -> Result<Vec<String>> {
    let mut external = Vec::new();
    for (name, tmpfs) in by_name(recorded)? {
        let options =
            Options::parse(&tmpfs.flags, &tmpfs.options).ok_or_else(|| unusable(tmpfs, "has unknown options"))?;
        let place = place(name);
        plan.directory(&place, 0o700).tmpfs(&place, options.mounted(tmpfs.entries.first()));
        external.push(format!("mnt[{name}]:{}", place.display()));
    }
    Ok(external)
}

/// Makes what they held in an arena of that plan, before CRIU is asked to restore.
///
/// # Errors
/// [`Error::Io`], and [`Error::Option`] about a record that this crr would not have written.
pub fn fill(recorded: &[RecordedTmpfs], arena: &Arena) -> Result<()> {
    for (name, tmpfs) in by_name(recorded)? {
        // One that cannot be written to is complete.
        if Options::parse(&tmpfs.flags, &tmpfs.options).is_some_and(|options| !options.read_only) {
            let directory = arena.open(place(name), OFlags::RDONLY | OFlags::DIRECTORY)?;
            entries::make(&directory, &tmpfs.entries)
                .map_err(Error::io("make again what was in", &tmpfs.destination))?;
        }
    }
    Ok(())
}

/// Each name once. A name becomes a path.
fn by_name(recorded: &[RecordedTmpfs]) -> Result<BTreeMap<&str, &RecordedTmpfs>> {
    let mut named: BTreeMap<&str, &RecordedTmpfs> = BTreeMap::new();
    for tmpfs in recorded {
        let number = tmpfs.name.strip_prefix("crr-tmpfs-").unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unusable(tmpfs, "has a name that crr does not give"));
        }
        if named.insert(&tmpfs.name, tmpfs).is_some_and(|other| !is_same(other, tmpfs)) {
            return Err(unusable(tmpfs, "has the name of another one"));
        }
    }
    Ok(named)
}

fn is_same(one: &RecordedTmpfs, other: &RecordedTmpfs) -> bool {
    (&one.flags, &one.options, &one.entries) == (&other.flags, &other.options, &other.entries)
}

fn unusable(tmpfs: &RecordedTmpfs, reason: &'static str) -> Error {
    Error::Option { option: "tmpfs", value: format!("{} at {}", tmpfs.name, tmpfs.destination.display()), reason }
}

/// Whether CRIU can be told of a mount point: it cuts `mnt[KEY]:VALUE` at the first bracket.
fn is_plain(path: &Path) -> bool {
    path != Path::new("/") && path.to_str().is_some_and(|path| !path.contains(['[', ']', '\\', '\n']))
}

/// Whether no other mount shows its file system, but those that are external: the masked files are what the container's
/// /dev/null is. One that is read-only may be mounted again: later runcs mask all directories with one.
fn is_alone(mount: &Mount, mounts: &[Mount], host: &[Mount], is_taken: impl Fn(&Mount) -> bool) -> bool {
    let is_read_only = mount.filesystem_options.split(',').any(|option| option == "ro");
    let may_share = |other: &Mount| is_read_only && other.root == mount.root && !other.is_hidden(mounts);
    let mut others = mounts.iter().filter(|other| other.id != mount.id && other.device == mount.device);
    others.all(|other| is_taken(other) || may_share(other)) && host.iter().all(|other| other.device != mount.device)
}

fn mounts_of(pid: &str) -> Result<Vec<Mount>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read(&path).map_err(Error::io("read", path))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
}

/// Opens each file system as it is below what is mounted on it; nothing for one that has changed meanwhile. Only in the
/// namespace of the mounts can they be opened so.
fn open_trees(pid: i32, mounts: &[&Mount]) -> Result<Vec<Option<OwnedFd>>> {
    let open = |path: String, flags: OFlags| {
        let opened = rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty());
        opened.map_err(|errno| Error::io("open", path)(errno.into()))
    };
    let root = open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY)?;
    let namespace = open(format!("/proc/{pid}/ns/mnt"), OFlags::RDONLY)?;
    let paths: Vec<(PathBuf, u64)> = mounts.iter().map(|mount| (mount.mountpoint.clone(), mount.device)).collect();
    let enter = move || {
        unshare(CloneFlags::CLONE_FS)
            .and_then(|()| setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS))
            .map_err(|errno| Error::system("enter the mount namespace of the container", errno))?;
        let one = |(path, device): &(PathBuf, u64)| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let at =
                openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS).ok()?;
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let tree = open_tree(&at, "", flags).ok()?;
            rustix::fs::fstat(&tree).is_ok_and(|found| found.st_dev == *device).then_some(tree)
        };
        Ok(paths.iter().map(one).collect())
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("crr-tmpfs".into()).spawn_scoped(scope, enter);
        let thread = thread.map_err(|source| Error::system("start a thread", source))?;
        thread.join().map_err(|_| Error::Bug { what: "the thread in the container's namespace panicked" })?
    })
}
