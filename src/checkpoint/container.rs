//! What crr.json says about a tree that was a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A container, as its runtime had it when it was dumped. Its config.json, state.json and descriptors.json are files of the
/// checkpoint beside the images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedContainer {
    /// Its name.
    pub id: String,
    /// The program that made it, `runc` or `crun`: which of the two wrote its state.
    pub runtime: String,
    /// The version of the OCI specification that its state names; runtimes do not record their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_version: Option<String>,
    /// The directory that held its state directory, such as `/run/runc`.
    pub runtime_root: PathBuf,
    /// The bundle it was made from.
    pub bundle: PathBuf,
    /// Its root file system. Absolute.
    pub rootfs: PathBuf,
    /// When it was made, as the runtime wrote it (RFC 3339).
    pub created: String,
    /// Where its descriptors 0 to 2 led when it was made, such as `pipe:[4711]`: as in descriptors.json.
    #[serde(default)]
    pub stdio: Vec<String>,
    /// Its descriptors 0 to 2 that are plain files outside its mount namespace: the key in the images for each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stdio_files: BTreeMap<u32, RecordedFile>,
    /// The namespaces that its configuration names.
    #[serde(default)]
    pub namespaces: Vec<RecordedNamespace>,
    /// Its cgroups as the runtime has them: by controller for version 1, under "" for version 2. Absolute paths.
    #[serde(default)]
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// What of the network is in the images.
    #[serde(default)]
    pub network: NetworkKind,
    /// The interfaces of its own network namespace besides the loopback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<RecordedInterface>,
    /// Who can restore the images.
    #[serde(default)]
    pub images: ImagesKind,
    /// Mounts that the images leave to whoever restores them ([`ImagesKind::Crr`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<RecordedTmpfs>,
    /// Whether it was paused.
    #[serde(default)]
    pub paused: bool,
}

/// Who can restore the images of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImagesKind {
    /// Its runtime as well as crr.
    #[default]
    Runtime,
    /// crr only: it makes the tmpfs mounts anew, which saves a tar process for each.
    Crr,
}

/// What of the network of a container is in its images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// It was in the network namespace of the host.
    #[default]
    Host,
    /// Its network namespace was given by a path, and comes from outside again: `net[…]:extRootNetNS`.
    External,
    /// It had one of its own with nothing but the loopback, which is restored empty.
    Empty,
    /// It had one of its own, which is in the images with addresses and routes.
    Dumped,
}

/// A namespace that the configuration of a container names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedNamespace {
    /// Its type in the words of config.json: pid, network, mount, ipc, uts, user, cgroup, time.
    pub kind: String,
    /// The path it was taken from; `None` for one made for the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The inode of the namespace at the dump; 0 if it was not known.
    #[serde(default)]
    pub inode: u64,
}

/// A network interface of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedInterface {
    /// Its name in the container.
    pub name: String,
    /// Its kind, such as veth; empty if it is not known.
    pub kind: String,
    /// The hardware address.
    pub mac: String,
    /// The addresses with their prefix lengths, such as `10.0.0.2/24`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The name of the other end of a veth in the host's namespace, where it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The bridge that the other end was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
}

/// A plain file outside, open as a standard stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFile {
    /// CRIU's name for it, such as `file[3f:1a2b]`: the key for inherit_fd.
    pub key: String,
    /// Its path on the host.
    pub path: PathBuf,
    /// The flags it was opened with, O_APPEND and the like.
    pub flags: u32,
}

/// A tmpfs that is not in the images: to be made anew and given to CRIU under its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedTmpfs {
    /// The name in the images: to be given as `mnt[NAME]:PATH`.
    pub name: String,
    /// Where it was mounted in the container.
    pub destination: PathBuf,
    /// Mount options as in mountinfo, such as `rw,nosuid,relatime`.
    pub flags: String,
    /// The file system's options, such as `rw,size=65536k,mode=755`.
    pub options: String,
    /// What it held, parents before what is in them. The first is its root, with an empty path.
    pub entries: Vec<RecordedEntry>,
}

/// A directory, link, device, fifo or empty file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedEntry {
    /// Relative to the mount.
    pub path: PathBuf,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device's number, as `st_rdev`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device: u64,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathBuf>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
