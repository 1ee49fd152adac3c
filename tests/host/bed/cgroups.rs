//! The cgroups of one host: all that its processes see of the machine's hierarchies.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crr::host::cgroup::Layout;
use libtest_mimic::Failed;

use crate::container::MARK;
use crate::until::{SOON, until};

/// One directory in each hierarchy that allows it.
pub(super) struct Cgroups {
    pub(super) directories: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes them for a host of the bed whose keeper is `keeper`.
    pub(super) fn make(keeper: u32, host: &str) -> Result<Self, Failed> {
        let mut directories = Vec::new();
        for hierarchy in Layout::read()?.hierarchies {
            let directory = hierarchy.mount.join(format!("{host}{MARK}-hosts{keeper}"));
            // Where it cannot be made the host has the machine's.
            if fs::create_dir(&directory).is_ok() {
                directories.push(directory.clone());
                // A new cgroup of version 1's cpuset takes no task until it has processors and memory.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if directory.join("cpuset.sched_load_balance").exists() {
                        fs::write(directory.join(file), fs::read_to_string(hierarchy.mount.join(file))?.trim())?;
                    }
                }
            }
        }
        Ok(Self { directories })
    }

    /// The files by which a process enters them.
    pub(super) fn entries(directories: &[PathBuf]) -> Vec<CString> {
        let file = |directory: &PathBuf| CString::new(directory.join("cgroup.procs").as_os_str().as_bytes()).ok();
        directories.iter().filter_map(file).collect()
    }

    /// Waits until the host's processes, which are being killed, are gone, and removes the cgroups with all below them. A task
    /// that is frozen by version 1 dies only when it is thawed.
    pub(super) fn remove(self) -> Result<(), Failed> {
        until("the processes and cgroups of a host to be gone", SOON, || {
            for directory in &self.directories {
                for below in below(directory).iter().rev() {
                    // Only one of the two is there, and only in some hierarchies.
                    let _ = fs::write(below.join("freezer.state"), "THAWED");
                    let _ = fs::write(below.join("cgroup.freeze"), "0");
                    // The kernel refuses while there is anything in it.
                    let _ = fs::remove_dir(below);
                }
            }
            self.directories.iter().all(|directory| !directory.exists()).then_some(())
        })
    }
}

/// A cgroup and all below it, parents first.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.extend(entries.filter(is_directory).map(|entry| entry.path()));
    }
    found
}
