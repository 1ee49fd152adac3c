//! A test in a mount namespace of its own where /sys/fs/cgroup is the unified hierarchy: crun refuses a hybrid layout.

use std::fs;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Outcome;

use super::snapshot::enable_controllers;

/// Where crun keeps its containers unless told; each test in a unified hierarchy has its own.
pub(crate) const CRUN_ROOT: &str = "/run/crun";

/// Why there can be none.
pub(crate) fn unmet() -> Option<String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    (!known.contains("cgroup2")).then(|| "it needs a kernel with cgroup2".into())
}

/// Runs a test there, in a thread: all that the thread starts is there, too, and the namespace ends with the last of it.
/// /proc/self is still the whole program's; /proc/thread-self is of the namespace.
pub(crate) fn unified(test: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    enable_controllers();
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        // crun 1.28 names a directory of its default root in images, wherever its root is.
        fs::create_dir_all(CRUN_ROOT)?;
        mount(Some("tmpfs"), CRUN_ROOT, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?;
        mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
        test()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
