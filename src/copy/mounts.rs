//! The mounts that a copy sees: those of its host, but what it writes to any of them is its own, and gone with it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::Writes;
use crate::arena::PLACE;
use crate::error::{Error, Result};
use crate::process::Mount;

const NONE: Option<&str> = None;

/// The name of CRIU's working directory in [`PLACE`].
const WORK: &str = "work";

/// A file that is mounted for itself, as container engines do with /etc/hosts, is copied if it is no larger. A larger one can
/// only be read.
const FILE_LIMIT: u64 = 16 << 20;

/// More mounts than any machine has; what is known of them is kept in memory.
const MOUNTS_LIMIT: usize = 100_000;

/// File systems that show the kernel, or name things, and hold no files of anybody's: they are the copy's as they are its host's.
/// Overlays can lie over none of them.
const OF_THE_KERNEL: [&str; 22] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "efivarfs",
    "functionfs",
    "fusectl",
    "hugetlbfs",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sysfs",
    "tracefs",
];

/// What becomes of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Written to as before, but the host sees nothing of it.
    Overlay,
    /// A file of its own, with the same content.
    Copy,
    /// The same.
    Bind,
    /// The one of the new PID namespace.
    Proc,
    /// A fresh one, empty: what is in there belongs to a namespace, or has numbers that the original has taken.
    Fresh,
}

/// What a mount point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Directory,
    File,
    Other,
}

/// A mount that is to be seen, and what the file system itself was told when it was mounted.
struct Seen {
    mount: Mount,
    options: String,
}

/// Makes the mounts. In a mount namespace of the calling thread's own, where nothing is shared and a tmpfs lies over [`PLACE`]
/// with the new `proc` mounted in it; `net` and IPC namespace are the copy's already.
///
/// Then [`work`] is there: a directory in a tmpfs, or `given`.
pub(super) fn make(writes: Writes, given: Option<&Path>) -> Result<()> {
    let seen = seen()?;
    match writes {
        Writes::ThrownAway => overlaid(&seen, given),
        Writes::Shared => shared(&seen, given),
    }
}

/// Only what belongs to the new namespaces is mounted anew.
fn shared(seen: &[Seen], given: Option<&Path>) -> Result<()> {
    for Seen { mount, options } in seen {
        let target = &mount.mountpoint;
        match treatment(&mount.filesystem, &mount.root, Point::Directory, true) {
            Treatment::Proc => bind(&proc(), target)?,
            Treatment::Fresh => fresh(mount, options, target)?,
            _ => {}
        }
    }
    umount2(&proc(), MntFlags::MNT_DETACH).map_err(|errno| Error::io("unmount", proc())(errno.into()))?;
    make_work(&work(), given)
}

/// Makes CRIU's working directory. It mounts below it, so this must be a directory of the same mount namespace.
fn make_work(path: &Path, given: Option<&Path>) -> Result<()> {
    directory(path)?;
    given.map_or(Ok(()), |given| bind(given, path))
}

fn overlaid(seen: &[Seen], given: Option<&Path>) -> Result<()> {
    let root = in_place("root");
    directory(&root)?;
    for (number, Seen { mount, options }) in seen.iter().enumerate() {
        let from = &mount.mountpoint;
        let target = root.join(from.strip_prefix("/").unwrap_or(from));
        match treatment(&mount.filesystem, &mount.root, point(from), is_writable(from)) {
            Treatment::Overlay => overlay(number, mount, &target)?,
            Treatment::Copy => copy(number, from, &target)?,
            Treatment::Bind => bind(from, &target)?,
            Treatment::Proc => bind(&proc(), &target)?,
            Treatment::Fresh => fresh(mount, options, &target)?,
        }
    }
    // As at the beginning, and for as long as the copy lives.
    let place = root.join(PLACE.trim_start_matches('/'));
    tmpfs(&place)?;
    make_work(&place.join(WORK), given)?;
    let failed = |errno: Errno| Error::system("make the overlays the root of the copy", errno);
    chdir(&root).map_err(failed)?;
    // The old root comes to lie over the new one, and is taken away from there.
    pivot_root(".", ".").map_err(failed)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed)?;
    chdir("/").map_err(failed)
}

/// The mounts that are not hidden by others, each after the one that it is on.
fn seen() -> Result<Vec<Seen>> {
    const TABLE: &str = "/proc/thread-self/mountinfo";
    let text = fs::read(TABLE).map_err(Error::io("read", TABLE))?;
    let lines = text.split(|byte| *byte == b'\n').take(MOUNTS_LIMIT);
    let of_line = |line: &[u8]| {
        let options = String::from_utf8_lossy(line.rsplit(|byte| *byte == b' ').next()?).into_owned();
        Some(Seen { mount: Mount::parse(line)?, options })
    };
    let mut seen: Vec<Seen> = lines.filter_map(of_line).filter(|seen| is_visible(&seen.mount)).collect();
    seen.sort_by(|one, other| one.mount.mountpoint.cmp(&other.mount.mountpoint));
    Ok(seen)
}

/// Whether its mount point leads to it, and it is none of ours.
fn is_visible(mount: &Mount) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, &mount.mountpoint, flags, StatxFlags::MNT_ID);
    let is_there = found.is_ok_and(|found| i32::try_from(found.stx_mnt_id) == Ok(mount.id));
    is_there && !mount.mountpoint.starts_with(PLACE)
}

/// What becomes of a mount of this file system, of which `root` is mounted.
fn treatment(filesystem: &str, root: &Path, point: Point, is_writable: bool) -> Treatment {
    match filesystem {
        "proc" if root == Path::new("/") => Treatment::Proc,
        "devpts" | "mqueue" => Treatment::Fresh,
        _ if !is_writable || OF_THE_KERNEL.contains(&filesystem) => Treatment::Bind,
        _ => match point {
            Point::Directory => Treatment::Overlay,
            Point::File => Treatment::Copy,
            Point::Other => Treatment::Bind,
        },
    }
}

fn point(path: &Path) -> Point {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Point::Directory,
        Ok(metadata) if metadata.is_file() => Point::File,
        _ => Point::Other,
    }
}

fn is_writable(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| !found.flags().contains(FsFlags::ST_RDONLY))
}

fn in_place(name: &str) -> PathBuf {
    Path::new(PLACE).join(name)
}

/// CRIU's working directory, as it is seen from within.
pub(super) fn work() -> PathBuf {
    in_place(WORK)
}

/// Mounts a tmpfs for directories of ours. Tasks of any user walk through it before the overlays are their root.
pub(super) fn tmpfs(at: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=711"))
        .map_err(|errno| Error::io("mount a tmpfs at", at)(errno.into()))
}

/// Where init mounts the proc of its namespace.
pub(super) fn proc() -> PathBuf {
    in_place("proc")
}

pub(super) fn directory(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o755).create(path).map_err(Error::io("make the directory", path))
}

fn bind(from: &Path, target: &Path) -> Result<()> {
    match mount(Some(from), target, NONE, MsFlags::MS_BIND, NONE) {
        // It has gone since: mounts come and go.
        Err(Errno::ENOENT) => Ok(()),
        made => made.map_err(|errno| Error::io("bind to another place", from)(errno.into())),
    }
}

fn overlay(number: usize, under: &Mount, target: &Path) -> Result<()> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| in_place(&format!("{name}{number}")));
    for path in [&lower, &upper, &work] {
        directory(path)?;
    }
    let from = &under.mountpoint;
    let failed = |source| Error::Overlay { path: from.clone(), filesystem: under.filesystem.clone(), source };
    let flags = flags_of(from).map_err(Error::io("look at", from))?;
    bind(from, &lower)?;
    // The top directory has the attributes of this one.
    like(&fs::metadata(&lower).map_err(failed)?, &upper).map_err(failed)?;
    // Without redirection a directory of the host's could not be renamed.
    let data =
        format!("lowerdir={},upperdir={},workdir={},redirect_dir=on", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), target, Some("overlay"), flags, Some(data.as_str()))
        .map_err(|errno| failed(io::Error::from(errno)))
}

/// What was asked for when it was mounted.
fn flags_of(path: &Path) -> io::Result<MsFlags> {
    let known = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let found = statvfs(path)?.flags();
    Ok(known.iter().filter(|(is, _)| found.contains(*is)).map(|(_, flag)| *flag).collect())
}

fn like(metadata: &fs::Metadata, path: &Path) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

/// A file that is mounted for itself.
fn copy(number: usize, from: &Path, target: &Path) -> Result<()> {
    let failed = Error::io("copy", from);
    let metadata = fs::metadata(from).map_err(Error::io("look at", from))?;
    if metadata.len() > FILE_LIMIT {
        bind(from, target)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        return mount(NONE, target, NONE, flags, NONE).map_err(|errno| failed(errno.into()));
    }
    let own = in_place(&format!("file{number}"));
    let made = fs::copy(from, &own).and_then(|_| like(&metadata, &own)).and_then(|()| {
        let times = fs::FileTimes::new().set_accessed(metadata.accessed()?).set_modified(metadata.modified()?);
        File::options().write(true).open(&own)?.set_times(times)
    });
    made.map_err(failed)?;
    bind(&own, target)
}

/// A fresh file system of that kind, with the same options.
fn fresh(like: &Mount, options: &str, target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = options.split(',').filter(|option| !["rw", "ro"].contains(option)).collect::<Vec<_>>().join(",");
    let kind = like.filesystem.as_str();
    mount(Some(kind), target, Some(kind), flags, Some(OsString::from_vec(options.into_bytes()).as_os_str()))
        .map_err(|errno| Error::io("mount a fresh file system at", &like.mountpoint)(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_written_is_overlaid_and_what_belongs_to_a_namespace_is_fresh() {
        use Point::{Directory, File, Other};
        let table = [
            // file system, root, point, writable, treatment
            ("ext4", "/", Directory, true, Treatment::Overlay),
            ("tmpfs", "/", Directory, true, Treatment::Overlay),
            ("devtmpfs", "/", Directory, true, Treatment::Overlay),
            ("overlay", "/", Directory, true, Treatment::Overlay),
            ("ext4", "/var/lib/x", Directory, true, Treatment::Overlay),
            ("squashfs", "/", Directory, false, Treatment::Bind),
            ("ext4", "/", Directory, false, Treatment::Bind),
            ("ext4", "/hosts", File, true, Treatment::Copy),
            ("ext4", "/hosts", File, false, Treatment::Bind),
            ("devtmpfs", "/null", Other, true, Treatment::Bind),
            ("proc", "/", Directory, true, Treatment::Proc),
            ("proc", "/sys", Directory, false, Treatment::Bind),
            ("devpts", "/", Directory, true, Treatment::Fresh),
            ("mqueue", "/", Directory, true, Treatment::Fresh),
            ("sysfs", "/", Directory, true, Treatment::Bind),
            ("cgroup2", "/", Directory, true, Treatment::Bind),
        ];
        for (filesystem, root, point, is_writable, expected) in table {
            let found = treatment(filesystem, Path::new(root), point, is_writable);
            assert_eq!(found, expected, "{filesystem} {root} {point:?} {is_writable}");
        }
    }

    #[test]
    fn the_mounts_that_are_seen_come_after_those_they_are_on() {
        let seen = seen().unwrap();
        assert_eq!(seen.first().map(|seen| seen.mount.mountpoint.as_path()), Some(Path::new("/")));
        for (number, one) in seen.iter().enumerate() {
            let below = seen[..number].iter().filter(|other| other.mount.mountpoint.starts_with(&one.mount.mountpoint));
            assert_eq!(below.count(), 0, "{}", one.mount.mountpoint.display());
        }
    }
}
