//! What is true of a restored container and of no checkpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Descriptors, Id};

/// A container's first process. Both numbers must match, or the runtime calls the container stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// The PID, as the host sees it.
    pub pid: i32,
    /// The start time: field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start: u64,
}

/// A container that has just been restored, as its state file has to tell of it.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its id.
    pub id: Id,
    /// Its first process.
    pub init: Init,
    /// When it was made; runc takes the time of the restore.
    pub created: SystemTime,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute and without symbolic links.
    pub rootfs: PathBuf,
    /// The full path of its cgroup in each hierarchy: by controller (`freezer`, `name=systemd`) for v1, with the key `""` for
    /// the unified one. runc only.
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// The cgroup below its hierarchy's mount point, such as `/c5`. crun only.
    pub cgroup: PathBuf,
    /// Whether `/proc/PID/ns/time` exists.
    pub time_namespace: bool,
    /// What descriptors 0 to 2 are, for the next checkpoint.
    pub descriptors: Descriptors,
}
