//! A cgroup made for one tree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{Hierarchy, Layout};
use super::put;

/// All cgroups of ours are below this one.
const PARENT: &str = "crr";

/// A cgroup of one name, made in every hierarchy that allows it, below the root of what is mounted there.
///
/// It is not removed by dropping this: the restored tree outlives us. [`OwnCgroup::remove_if_empty`] does it.
#[derive(Debug)]
pub struct OwnCgroup {
    directories: Vec<PathBuf>,
}

impl OwnCgroup {
    /// Makes the cgroup, and says where it could not be made. A cgroup of that name that is there already is used.
    pub fn create(layout: &Layout, name: &str) -> (Self, Vec<String>) {
        let mut failures = Vec::new();
        let mut directories = Vec::new();
        for hierarchy in &layout.hierarchies {
            match make(hierarchy, name) {
                Ok(directory) => directories.push(directory),
                Err(error) => {
                    failures.push(format!("cannot make a cgroup in `{}`: {error}", hierarchy.mount.display()))
                }
            }
        }
        (Self { directories }, failures)
    }

    /// The cgroup of that name made by another run.
    pub fn existing(layout: &Layout, name: &str) -> Self {
        let directories = layout.hierarchies.iter().map(|hierarchy| hierarchy.mount.join(PARENT).join(name));
        Self { directories: directories.filter(|directory| directory.is_dir()).collect() }
    }

    /// Where it is.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Whether it could be made nowhere.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Moves `pid` into it, and says where that failed.
    pub fn enter(&self, pid: i32) -> Vec<String> {
        let refused = |directory: &PathBuf| {
            let error = put(pid, directory).err()?;
            Some(format!("cannot move PID {pid} into the cgroup `{}`: {error}", directory.display()))
        };
        self.directories.iter().filter_map(refused).collect()
    }

    /// Removes it where no task is in it, and the directory above it where that was the last.
    pub fn remove_if_empty(self) {
        for directory in self.directories {
            // The kernel refuses both while there is anything in them.
            if fs::remove_dir(&directory).is_ok() {
                if let Some(parent) = directory.parent() {
                    let _ = fs::remove_dir(parent);
                }
            }
        }
    }
}

fn make(hierarchy: &Hierarchy, name: &str) -> io::Result<PathBuf> {
    let parent = hierarchy.mount.join(PARENT);
    let directory = parent.join(name);
    for (made, above) in [(&parent, &hierarchy.mount), (&directory, &parent)] {
        match fs::create_dir(made) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => inherit_cpuset(above, made)?,
        }
    }
    Ok(directory)
}

/// A new cgroup of version 1's cpuset has no processor and no memory, and takes no task until it has.
fn inherit_cpuset(above: &Path, made: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = made.join(file);
        // Version 2 has the files too, but an empty one means "as above" there, and there is no cpuset.sched_load_balance.
        if !made.join("cpuset.sched_load_balance").exists() || !fs::read_to_string(&own)?.trim().is_empty() {
            continue;
        }
        fs::write(&own, fs::read_to_string(above.join(file))?.trim())?;
    }
    Ok(())
}
