//! Containers of runc and crun, without runc, crun or a daemon.

pub(crate) mod cgroup;
pub mod dump;
pub(crate) mod hooks;
pub(crate) mod journal;
pub mod restore;
pub(crate) mod scene;
pub mod tmpfs;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use self::hooks::Poststop;
use self::journal::{Fate, Journal};
use crate::error::{Error, Result};
use crate::oci::{Id, State};

/// Removes what killed restores of containers have left, and brings to an end what killed dumps have begun. Gives what was
/// found and what became of it.
pub fn sweep() -> Vec<String> {
    let mut said = dump::sweep();
    for abandoned in Journal::abandoned() {
        let (id, fate) = (abandoned.id().to_owned(), abandoned.fate());
        let left = abandoned.undo();
        match (fate, left.is_empty()) {
            (Fate::Unfinished, true) => {
                said.push(format!("removed what a killed restore of the container `{id}` had left"))
            }
            (Fate::Runs, true) => {}
            (_, false) => said.extend(left),
        }
    }
    said
}

/// Removes a container that has ended: its cgroups, its state, and the directory of its own that a clone has; then its
/// `poststop` hooks are run. As its runtime's delete does, but that this keeps to what a restore makes. Does nothing where that
/// was there first. Gives what went wrong with the hooks.
///
/// # Errors
/// [`Error::Io`] for what cannot be removed.
pub fn remove(runtime_root: &Path, id: &Id) -> Result<Vec<String>> {
    let directory = std::path::absolute(runtime_root).map_err(Error::io("find", runtime_root))?.join(id);
    let path = directory.join(State::NAME);
    let state = match State::read(&path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    for cgroup in state.cgroup_paths().values() {
        cgroup::remove(cgroup).map_err(Error::io("remove the cgroup", cgroup))?;
    }
    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    std::fs::remove_dir(&directory).map_err(Error::io("remove", &directory))?;
    let clone = restore::clone_directory(id.as_str(), &directory);
    if directory.parent().and_then(|root| user_of(root, &clone)).is_none() {
        scene::remove_clone(&clone).map_err(Error::io("remove", &clone))?;
    }
    Ok(Poststop::of_runc(&state).iter().flat_map(Poststop::run).collect())
}

/// Removes the directory of a clone that is gone, with all that the clone wrote to its root file system. Gives its path.
///
/// # Errors
/// [`Error::Io`] if the container is there, or there is no such directory.
pub fn remove_clone(runtime_root: &Path, id: &Id) -> Result<PathBuf> {
    let root = std::path::absolute(runtime_root).map_err(Error::io("find", runtime_root))?;
    let state = root.join(id);
    if state.symlink_metadata().is_ok() {
        let source = io::Error::new(io::ErrorKind::ResourceBusy, "the container is there: delete it first");
        return Err(Error::io("remove the root file system of", &state)(source));
    }
    let clone = restore::clone_directory(id.as_str(), &state);
    clone.symlink_metadata().map_err(Error::io("find the directory of the clone", &clone))?;
    if let Some(other) = user_of(&root, &clone) {
        let source = io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("it is the root file system of the container `{other}`, too: delete that first"),
        );
        return Err(Error::io("remove", &clone)(source));
    }
    scene::remove_clone(&clone).map_err(Error::io("remove", &clone))?;
    Ok(clone)
}

/// A container that has its root file system in the directory of a clone: a clone's checkpoint was restored under that name.
fn user_of(runtime_root: &Path, clone: &Path) -> Option<String> {
    let states = std::fs::read_dir(runtime_root).into_iter().flatten().flatten();
    let mut states = states.filter_map(|entry| State::read(&entry.path().join(State::NAME)).ok());
    states.find(|state| state.rootfs().starts_with(clone)).map(|state| state.id().to_string())
}

/// What killed dumps and restores of containers have left, for [`sweep`] to remove.
pub fn leftovers() -> Vec<String> {
    let mut left = dump::leftovers();
    let unfinished = Journal::abandoned().into_iter().filter(|abandoned| abandoned.fate() == Fate::Unfinished);
    left.extend(unfinished.map(|abandoned| format!("a killed restore of the container `{}`", abandoned.id())));
    left
}
