//! A cgroup made for one tree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::{Hierarchy, Layout};
use super::put;

/// All cgroups of ours are below this one.
pub(super) const PARENT: &str = "crr";

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

    /// Removes the cgroups of ours that have been empty for a while: those of trees that ended when no crr was there to see
    /// it. One that was made less than `age` ago may be about to be entered and is left.
    pub fn sweep(layout: &Layout, age: Duration) {
        for hierarchy in &layout.hierarchies {
            let ours = fs::read_dir(hierarchy.mount.join(PARENT)).into_iter().flatten().flatten();
            for directory in ours.map(|entry| entry.path()).filter(|path| is_older(path, age)) {
                // The kernel refuses while a task is in it; the files in it do not count.
                let _ = fs::remove_dir(directory);
            }
        }
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

/// Whether it is a directory that was made more than `age` ago.
fn is_older(path: &Path, age: Duration) -> bool {
    let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_dir);
    let modified = metadata.and_then(|metadata| metadata.modified().ok());
    modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|elapsed| elapsed >= age)
}

pub(super) fn make(hierarchy: &Hierarchy, name: &str) -> io::Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_cgroups_of_ours_are_swept() {
        // Directories behave like cgroups here: the kernel removes neither while there is something in them.
        let mount = tempfile::tempdir().expect("directory");
        let hierarchy = Hierarchy { name: String::new(), mount: mount.path().into(), root: "/".into() };
        let layout = Layout { hierarchies: vec![hierarchy] };
        let (busy, _) = OwnCgroup::create(&layout, "busy");
        let (idle, _) = OwnCgroup::create(&layout, "idle");
        fs::create_dir(busy.directories()[0].join("task")).expect("something in it");
        fs::create_dir(mount.path().join("foreign")).expect("another's");
        OwnCgroup::sweep(&layout, Duration::from_secs(3600));
        assert!(idle.directories()[0].exists(), "it was made just now");
        OwnCgroup::sweep(&layout, Duration::ZERO);
        assert!(!idle.directories()[0].exists());
        assert!(busy.directories()[0].exists());
        assert!(mount.path().join("foreign").exists());
    }
}
