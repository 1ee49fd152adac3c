//! The cgroup that a restored tree lives in.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::problem::Remarks;
use crate::error::Result;
use crate::host::cgroup::{Layout, Membership, OwnCgroup, Place, put, settle};

/// CRIU leaves a cgroup within milliseconds of being told to end.
const LEAVING: Duration = Duration::from_secs(5);

/// Where a tree shall live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Home {
    /// In the cgroups recorded, if they exist, else in one of its own.
    #[default]
    Recorded,
    /// In the cgroup of this path, in every hierarchy that has it.
    Named(String),
    /// Where the restorer is, or where CRIU's own `--manage-cgroups` puts it.
    Restorer,
}

/// A cgroup that CRIU's worker was moved into. Unless it is kept, one made for it is removed when dropped.
#[derive(Debug)]
pub(super) struct Settled {
    own: Option<OwnCgroup>,
    /// Where it is, for a person.
    pub(super) place: Option<String>,
}

impl Settled {
    /// Moves `criu` there. Blocks for some 10 ms. The error says why the cgroup that was asked for cannot be used.
    pub(super) fn settle(
        home: &Home,
        recorded: Option<Membership>,
        criu: i32,
        remarks: &mut Remarks,
    ) -> Result<Self, String> {
        let unmoved = Self { own: None, place: None };
        let layout = match (home, Layout::read()) {
            (Home::Restorer, _) => return Ok(unmoved),
            (_, Ok(layout)) => layout,
            (_, Err(error)) => {
                remarks.warn(format!("the tree is in crr's own cgroup: {error}"));
                return Ok(unmoved);
            }
        };
        let recorded = match home {
            Home::Named(path) => Some(named(&layout, path)?),
            _ => recorded,
        };
        let wanted = recorded.clone();
        let settled = settle(&layout, criu, recorded.as_ref(), &format!("restore-{}", std::process::id()));
        let failures = settled.failures.join("; ");
        let place = |directory: &Path| Some(directory.display().to_string());
        let (own, place) = match settled.place {
            Place::Recorded => (None, wanted.as_ref().and_then(main_path)),
            Place::Own(own) => {
                let at = own.directories().first().and_then(|directory| place(directory));
                (Some(own), at)
            }
            Place::Scope(scope) => (None, Some(scope.unit)),
            Place::Unmoved => {
                remarks.warn(format!("the tree is in crr's own cgroup, and ends with it: {failures}"));
                return Ok(unmoved);
            }
        };
        let settled = Self { own, place };
        if let (Home::Named(_), Some(_)) = (home, &settled.own) {
            return Err(failures);
        }
        if let (Some(_), Some(place)) = (wanted.filter(|_| !failures.is_empty()), &settled.place) {
            remarks.note(format!("the tree is in the cgroup {place}: {failures}"));
        }
        Ok(settled)
    }

    /// Moves `criu` into each of these cgroups, which are somebody else's to remove.
    pub(super) fn enter(directories: &[PathBuf], criu: i32) -> Result<Self, String> {
        for directory in directories {
            put(criu, directory)
                .map_err(|error| format!("cannot enter the cgroup `{}`: {error}", directory.display()))?;
        }
        let place = directories.first().map(|directory| directory.display().to_string());
        Ok(Self { own: None, place })
    }

    /// The tree lives there: it stays. Gives what removes it after the tree.
    pub(super) fn keep(mut self) -> Option<OwnCgroup> {
        self.own.take()
    }

    /// Removes it, when all that was in it has been killed.
    fn remove(own: OwnCgroup) {
        let deadline = Instant::now() + LEAVING;
        let is_used = |directory: &std::path::PathBuf| {
            std::fs::read(directory.join("cgroup.procs")).is_ok_and(|members| !members.is_empty())
        };
        while own.directories().iter().any(is_used) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        own.remove_if_empty();
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            // CRIU may be in it for a moment yet, and nobody else waits for that.
            let _ = std::thread::Builder::new().name("crr-cgroup".into()).spawn(move || Self::remove(own));
        }
    }
}

/// Removes it now. Blocks until CRIU has left it.
pub(super) fn remove(mut settled: Settled) {
    if let Some(own) = settled.own.take() {
        Settled::remove(own);
    }
}

/// The cgroups of that path, where it exists.
fn named(layout: &Layout, path: &str) -> Result<Membership, String> {
    let exists = |hierarchy: &crate::host::cgroup::Hierarchy| {
        hierarchy.directory(path).is_some_and(|directory| directory.join("cgroup.procs").exists())
    };
    let found = layout.hierarchies.iter().filter(|hierarchy| exists(hierarchy));
    let membership = Membership(found.map(|hierarchy| (hierarchy.name.clone(), path.to_owned())).collect());
    match membership.0.is_empty() {
        true => Err(format!("there is no cgroup `{path}`")),
        false => Ok(membership),
    }
}

/// The path that says most: the unified hierarchy's, else the first that is not the root.
fn main_path(membership: &Membership) -> Option<String> {
    let paths = || membership.0.values().filter(|path| *path != "/");
    membership.0.get("").filter(|path| *path != "/").or_else(|| paths().next()).or(Some(&"/".to_owned())).cloned()
}
