//! All cgroups of the machine and their limits, to be compared before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use libtest_mimic::Failed;

use crate::ensure;
use crate::until::{SOON, until};

use super::bed::MARK;

/// The hierarchies as the whole program sees them, wherever the asking thread is: /proc/self is not the thread.
const HIERARCHIES: &str = "/proc/self/root/sys/fs/cgroup";

/// Stands for the directory among its settings.
const ITSELF: &str = "(the directory)";

/// Files that can be written to but count or list what happens.
const VOLATILE: [&str; 9] = [
    "cgroup.procs",
    "cgroup.threads",
    "tasks",
    "usage",
    "failcnt",
    "pressure",
    "memory.peak",
    "memory.swap.peak",
    "memory.force_empty",
];

/// Of restored trees that are no containers, and of podman's containers.
const OTHERS: [&str; 2] = ["/crr/", "/libpod"];

/// The content of each setting, by its path.
#[derive(Debug)]
pub(crate) struct Snapshot {
    settings: BTreeMap<PathBuf, String>,
    /// Cgroups with this in their names are left out.
    without: String,
}

impl Snapshot {
    /// What is there, without cgroups whose name has `without` in it (a bed's tag), and without those of other beds and of
    /// other tests beside this one.
    pub(crate) fn take(without: &str) -> Self {
        enable_controllers();
        let mut settings = BTreeMap::new();
        for directory in directories() {
            let name = directory.to_string_lossy();
            if !name.contains(without)
                && !name.contains(MARK)
                && !OTHERS.iter().any(|other| format!("{name}/").contains(other))
            {
                settings.insert(directory.join(ITSELF), "is there".to_owned());
                settings.extend(read_settings(&directory));
            }
        }
        Self { settings, without: without.to_owned() }
    }

    /// Fails when something is different now, and stays so: other programs make and remove cgroups, too.
    pub(crate) fn must_be_unchanged(&self) -> Result<(), Failed> {
        let mut lasting = differences(&self.settings, &Self::take(&self.without).settings);
        let _ = until("the cgroups to be as before", SOON, || {
            let now = differences(&self.settings, &Self::take(&self.without).settings);
            lasting.retain(|path, _| now.contains_key(path) && !Self::is_of_others(path));
            lasting.is_empty().then_some(())
        });
        ensure!(lasting.is_empty(), "cgroups have changed: {lasting:#?}");
        Ok(())
    }

    /// Whether a difference is none of the test's doing: the cgroup came after the tests began, and is gone or in use.
    fn is_of_others(path: &Path) -> bool {
        let directory = path.parent().unwrap_or(path);
        !first().contains(directory) && (!directory.exists() || is_in_use(directory))
    }
}

/// Enables all controllers of the unified hierarchy for the cgroups below its root, once, as every runtime does before its
/// first container there: it would be a difference whenever another test comes to it.
pub(crate) fn enable_controllers() {
    static ENABLED: Once = Once::new();
    ENABLED.call_once(|| {
        for root in [HIERARCHIES.to_owned(), format!("{HIERARCHIES}/unified")] {
            let controllers = fs::read_to_string(format!("{root}/cgroup.controllers")).unwrap_or_default();
            for controller in controllers.split_whitespace() {
                // What cannot be enabled, no runtime enables.
                let _ = fs::write(format!("{root}/cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    });
}

/// Whether a cgroup, or one below it, has a process, and none of CRIU's: then it is somebody else's, not a leftover.
fn is_in_use(directory: &Path) -> bool {
    let mut processes = Vec::new();
    for below in below(directory) {
        let members = fs::read_to_string(below.join("cgroup.procs")).unwrap_or_default();
        processes
            .extend(members.lines().map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()));
    }
    !processes.is_empty() && !processes.iter().any(|name| name.trim() == "criu")
}

/// The cgroups that were there when this was first called: before any test began.
pub(crate) fn first() -> &'static BTreeSet<PathBuf> {
    static FIRST: OnceLock<BTreeSet<PathBuf>> = OnceLock::new();
    FIRST.get_or_init(|| directories().into_iter().collect())
}

/// The cgroups with this in their path, parents first.
pub(crate) fn cgroups_of(name: &str) -> Vec<PathBuf> {
    directories().into_iter().filter(|directory| directory.to_string_lossy().contains(name)).collect()
}

/// The settings of the cgroups with this in their path.
pub(crate) fn settings_of(name: &str) -> BTreeMap<PathBuf, String> {
    cgroups_of(name).iter().flat_map(|directory| read_settings(directory)).collect()
}

/// What is different between two of these.
pub(crate) fn differences(
    before: &BTreeMap<PathBuf, String>,
    after: &BTreeMap<PathBuf, String>,
) -> BTreeMap<PathBuf, String> {
    let both = before.keys().chain(after.keys()).map(|path| (path, before.get(path), after.get(path)));
    both.filter(|(_, before, now)| before != now)
        .map(|(path, before, now)| (path.clone(), format!("{before:?} became {now:?}")))
        .collect()
}

/// All cgroups, parents first.
fn directories() -> Vec<PathBuf> {
    below(Path::new(HIERARCHIES))
}

/// A cgroup and all below it, parents first.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        // It may be gone since it was listed.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let mut below: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        below.sort();
        found.extend(below);
    }
    found
}

fn read_settings(directory: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let settings = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let is_volatile = VOLATILE.iter().any(|volatile| name.to_string_lossy().contains(volatile));
        let can_be_set = entry.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o200 != 0);
        can_be_set && !is_volatile
    });
    // Some can only be written to.
    settings.filter_map(|entry| Some((entry.path(), fs::read_to_string(entry.path()).ok()?))).collect()
}
