//! Tests in a mount namespace of their own with another layout of cgroups in /sys/fs/cgroup than the machine has.

use std::fs;
use std::path::Path;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::{Outcome, ensure};

use super::snapshot::enable_controllers;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Where crun keeps its containers unless told; each test in a unified hierarchy has its own.
pub(crate) const CRUN_ROOT: &str = "/run/crun";

/// Why there can be no unified hierarchy.
pub(crate) fn unmet() -> Option<String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    (!known.contains("cgroup2")).then(|| "it needs a kernel with cgroup2".into())
}

/// Runs a test where /sys/fs/cgroup is the unified hierarchy: crun refuses a hybrid layout. All that the test's thread starts
/// is there, too, and the namespace ends with the last of it. /proc/self is still the whole program's; /proc/thread-self is
/// of the namespace.
pub(crate) fn unified(test: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    enable_controllers();
    apart(|| {
        // crun 1.28 names a directory of its default root in images, wherever its root is.
        fs::create_dir_all(CRUN_ROOT)?;
        mount(Some("tmpfs"), CRUN_ROOT, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?;
        // Not only hidden: mounts below it would still be listed.
        if Path::new(CGROUPS).join("cgroup.controllers").exists() {
            return test();
        }
        umount2(CGROUPS, MntFlags::MNT_DETACH)?;
        mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
        test()
    })
}

/// Runs a test where /sys/fs/cgroup has the hierarchies of v1 only, as [`unified`] does.
pub(crate) fn v1(test: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    apart(|| {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let unified = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
        for point in unified.filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(CGROUPS)) {
            umount2(point, MntFlags::MNT_DETACH)?;
        }
        ensure!(mounts.contains(" - cgroup "), "this machine has no hierarchy of v1");
        test()
    })
}

fn apart(test: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        test()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
