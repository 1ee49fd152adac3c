//! The root file system of a restored container: the bundle's own, or for a clone one that it shares with nobody.
//!
//! A clone's lies in a directory of its own below [`CLONES`], with the config.json of its bundle. An overlay is mounted in the
//! mount namespaces of CRIU and of the clone only, and goes with the clone; what the clone wrote stays in its directory until
//! `crr rm --container ID` removes it, so that a checkpoint of the clone can be restored from there.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use serde::{Deserialize, Serialize};

use super::Rootfs;
use crate::arena::Plan;
use crate::error::{Error, Result};
use crate::images::Mount;

/// Where the directories of clones are.
const CLONES: &str = "/var/lib/crr/clones";

/// In a clone's directory: what its overlay lies over.
const OVERLAY: &str = "crr-overlay.json";

/// What a clone's overlay lies over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Overlay {
    version: u32,
    lower: PathBuf,
}

/// A root file system that is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// It is there.
    Directory(PathBuf),
    /// An overlay in a clone's directory.
    Overlay { lower: PathBuf, clone: PathBuf },
}

impl Root {
    /// The one of a bundle: that of a clone was mounted in no place that can be seen.
    pub(super) fn of_bundle(bundle: &Path, rootfs: &Path) -> Result<Self> {
        if !bundle.starts_with(CLONES) {
            return Ok(Self::Directory(rootfs.into()));
        }
        let path = bundle.join(OVERLAY);
        match fs::read(&path) {
            Ok(text) => {
                let overlay: Overlay =
                    serde_json::from_slice(&text).map_err(|error| Error::io("read", &path)(error.into()))?;
                Ok(Self::Overlay { lower: overlay.lower, clone: bundle.into() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Directory(rootfs.into())),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// A directory in which it can be looked at what is there without mounting anything: all but what a clone wrote.
    pub(super) fn lower(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Overlay { lower, .. } => lower,
        }
    }

    /// Plans its mount where CRIU is to find it; gives that path.
    pub(super) fn plan(&self, plan: &mut Plan) -> PathBuf {
        match self {
            Self::Directory(path) => plan.root(path),
            Self::Overlay { lower, clone } => {
                let target = crate::arena::place("root");
                plan.directory(&target, 0o755);
                plan.overlay(vec![lower.clone()], clone.join("upper"), clone.join("work"), &target);
                target
            }
        }
    }
}

/// The directory of the clone whose state is at `state`.
pub(crate) fn clone_directory(id: &str, state: &Path) -> PathBuf {
    let digest = blake3::hash(state.as_os_str().as_encoded_bytes()).to_hex();
    Path::new(CLONES).join(format!("{id}-{}", &digest[..8]))
}

/// Makes the directory of a clone with its config.json, and what its root file system needs. The path that the runtime is told
/// as its root file system, and how it is mounted.
pub(super) fn make_clone(directory: &Path, from: &Root, config: &[u8], how: Rootfs) -> Result<(PathBuf, Root)> {
    fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
        Error::io("make the directory", path)
    }
    fs::DirBuilder::new().recursive(true).mode(0o711).create(CLONES).map_err(failed(Path::new(CLONES)))?;
    fs::DirBuilder::new().mode(0o711).create(directory).map_err(failed(directory))?;
    let mut config: serde_json::Value =
        serde_json::from_slice(config).map_err(|error| Error::io("read", directory)(error.into()))?;
    config["root"]["path"] = "rootfs".into();
    let path = directory.join("config.json");
    fs::write(&path, config.to_string()).map_err(Error::io("write", &path))?;
    let rootfs = directory.join("rootfs");
    match how {
        Rootfs::Copy => {
            copy(from, &rootfs)?;
            Ok((rootfs.clone(), Root::Directory(rootfs)))
        }
        Rootfs::Overlay | Rootfs::Shared => {
            let lower = from.lower().to_path_buf();
            let owner = fs::symlink_metadata(&lower).map_err(Error::io("look at", &lower))?;
            for name in ["rootfs", "upper", "work"] {
                let path = directory.join(name);
                fs::DirBuilder::new().mode(owner.mode() & 0o7777).create(&path).map_err(failed(&path))?;
                std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))
                    .map_err(Error::io("change the owner of", &path))?;
            }
            if let Root::Overlay { clone, .. } = from {
                take_over(&clone.join("upper"), &directory.join("upper"))?;
            }
            let path = directory.join(OVERLAY);
            let overlay = serde_json::json!(Overlay { version: 1, lower: lower.clone() });
            fs::write(&path, overlay.to_string()).map_err(Error::io("write", &path))?;
            Ok((rootfs, Root::Overlay { lower, clone: directory.into() }))
        }
    }
}

/// Gives a clone of a clone what the first one wrote: two overlays with one upper directory would be each other's undoing.
/// The extended attributes come along, by which an overlay knows what was removed.
fn take_over(upper: &Path, to: &Path) -> Result<()> {
    copy_tree(&upper.join("."), to)?;
    // What names this overlay to the kernel is not the other's.
    match rustix::fs::removexattr(to, "trusted.overlay.uuid") {
        Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::io("remove an extended attribute of", to)(errno.into())),
    }
}

fn copy(from: &Root, to: &Path) -> Result<()> {
    match from {
        Root::Directory(source) => copy_tree(source, to),
        Root::Overlay { lower, .. } => {
            let what =
                "a clone's is an overlay, which is mounted in the clone only; `--rootfs overlay` copies what it wrote";
            Err(Error::io("copy the root file system over", lower)(io::Error::other(what)))
        }
    }
}

/// By the program of that name: it knows extended attributes, holes and shared extents.
fn copy_tree(source: &Path, to: &Path) -> Result<()> {
    let attempt = || Error::io("copy", source);
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto", "--one-file-system", "--"]).arg(source).arg(to);
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().map_err(attempt())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(attempt()(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))),
    }
}

/// Makes the mount points that are missing in a root file system, for what is mounted on it directly. `is_file` tells whether
/// a mount is of a file.
///
/// Symbolic links are followed inside only.
pub(super) fn make_mountpoints(root: OwnedFd, mounts: &[Mount], is_file: impl Fn(&Mount) -> bool) -> Result<()> {
    let Some(top) = mounts.iter().find(|mount| mount.is_root()) else { return Ok(()) };
    for mount in mounts.iter().filter(|mount| mount.parent == top.id && mount.id != top.id) {
        make_inside(&root, &mount.mountpoint, is_file(mount))
            .map_err(Error::io("make the mount point", &mount.mountpoint))?;
    }
    Ok(())
}

fn make_inside(root: &OwnedFd, path: &Path, is_file: bool) -> io::Result<()> {
    let find = |path: &Path, flags| openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    match find(path, OFlags::PATH) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return Ok(other.map(drop)?),
    }
    let parts: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let mut at = PathBuf::from("/");
    for (number, part) in parts.iter().enumerate() {
        let parent = find(&at, OFlags::PATH | OFlags::DIRECTORY)?;
        at.push(part);
        match find(&at, OFlags::PATH) {
            Err(rustix::io::Errno::NOENT) => {}
            other => {
                other?;
                continue;
            }
        }
        if is_file && number + 1 == parts.len() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&parent, Path::new(part), flags, Mode::from_raw_mode(0o644))?;
        } else {
            mkdirat(&parent, Path::new(part), Mode::from_raw_mode(0o755))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn missing_mount_points_are_made_inside() {
        let home = tempfile::tempdir().unwrap();
        let (root, outside) = (home.path().join("rootfs"), home.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::os::unix::fs::symlink("/real", root.join("inner")).unwrap();
        fs::create_dir(root.join("real")).unwrap();
        make_inside(&open(&root), Path::new("/a/b/c"), false).unwrap();
        make_inside(&open(&root), Path::new("/etc/hosts"), true).unwrap();
        make_inside(&open(&root), Path::new("/inner/data"), false).unwrap();
        assert!(root.join("a/b/c").is_dir());
        assert!(root.join("etc/hosts").is_file());
        assert!(root.join("real/data").is_dir());
        // The link leads nowhere inside.
        assert!(make_inside(&open(&root), Path::new("/link/data"), false).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
