//! The mounts of a container that come from outside: which host path answers each key of the images.
//!
//! A runtime chooses at the dump under which key a mount is in the images, and the ways of runtimes differ: runc has the
//! masked files of /proc under `/dev/null`, crun each under its own path. So the keys are read from the images, and each is
//! answered by what the bundle says about the place where it is mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::arena::place;
use crate::checkpoint::RecordedTmpfs;
use crate::images::Mount;
use crate::restore::ContainerProblem;

/// The name of an empty directory in the arena, for masked ones. Later cruns bind one of this name, kept in their root, over
/// them: it is in the images under its path (crun), or under that of what is masked (crr).
pub(super) const EMPTY: &str = ".empty-directory";

/// What the bundle says about mounts.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Host paths by mount point. Mount points are without symbolic links, as the images have them.
    pub(super) binds: BTreeMap<PathBuf, PathBuf>,
    /// Files that are masked.
    pub(super) masked: BTreeSet<PathBuf>,
    /// Devices that are mounted from the host where they could not be made.
    pub(super) devices: BTreeSet<PathBuf>,
    /// The directories of the container's cgroups, by the last part of where the hierarchy is mounted.
    pub(super) cgroups: BTreeMap<String, PathBuf>,
    /// The caller's, by key.
    pub(super) given: BTreeSet<String>,
    /// Those that are made anew, by name.
    pub(super) tmpfs: Vec<RecordedTmpfs>,
}

/// The answers, as CRIU wants them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// `mnt[KEY]:PATH`.
    pub(super) external: BTreeSet<String>,
    /// What nobody could answer, and sources that are not there.
    pub(super) problems: Vec<ContainerProblem>,
}

/// Answers each mount that came from outside, but for those that are made anew.
pub(super) fn answer(mounts: &[Mount], sources: &Sources) -> Answers {
    let mut answers = Answers::default();
    for mount in mounts.iter().filter(|mount| !mount.is_root()) {
        let Some(key) = &mount.external else { continue };
        let key = key.to_string_lossy().into_owned();
        if sources.given.contains(&key) || sources.tmpfs.iter().any(|tmpfs| tmpfs.name == key) {
            continue;
        }
        match source_of(mount, &key, sources) {
            Some(Source::Made(path)) => {
                answers.external.insert(format!("mnt[{key}]:{}", path.display()));
            }
            Some(Source::Host(source)) if source.symlink_metadata().is_ok() => {
                answers.external.insert(format!("mnt[{key}]:{}", source.display()));
            }
            Some(Source::Host(source)) => {
                answers.problems.push(ContainerProblem::Source { destination: mount.mountpoint.clone(), source });
            }
            None => answers.problems.push(ContainerProblem::Mount { destination: mount.mountpoint.clone(), key }),
        }
    }
    answers
}

enum Source {
    Host(PathBuf),
    /// It is made for the container, later.
    Made(PathBuf),
}

fn source_of(mount: &Mount, key: &str, sources: &Sources) -> Option<Source> {
    let at = &mount.mountpoint;
    if let Some(source) = sources.binds.get(at).or_else(|| sources.binds.get(Path::new(key))) {
        return Some(Source::Host(source.clone()));
    }
    if [Mount::CGROUP, Mount::CGROUP2].contains(&mount.kind) {
        let name = at.file_name()?.to_str()?;
        return sources.cgroups.get(name).cloned().map(Source::Made);
    }
    if sources.masked.contains(at) && (mount.root.ends_with(EMPTY) || Path::new(key).ends_with(EMPTY)) {
        return Some(Source::Made(place(EMPTY)));
    }
    // runc's key, crun's keys.
    if key == "/dev/null" || sources.masked.contains(at) || sources.masked.contains(Path::new(key)) {
        return Some(Source::Host("/dev/null".into()));
    }
    sources.devices.contains(at).then(|| Source::Host(at.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Mount;

    fn mount(at: &str, key: &str) -> Mount {
        Mount::external_at(at, key)
    }

    #[test]
    fn the_keys_of_each_runtime_are_answered() {
        let sources = Sources {
            binds: [("/data".into(), "/".into())].into(),
            masked: ["/proc/keys".into(), "/sys/firmware".into()].into(),
            ..Sources::default()
        };
        let mounts = [
            mount("/proc/keys", "/dev/null"),
            mount("/proc/keys", "/proc/keys"),
            mount("/data", "/data"),
            mount("/sys/firmware", "/run/crun/.empty-directory"),
        ];
        let answers = answer(&mounts, &sources);
        assert_eq!(
            answers.external.into_iter().collect::<Vec<_>>(),
            [
                "mnt[/data]:/",
                "mnt[/dev/null]:/dev/null",
                "mnt[/proc/keys]:/dev/null",
                "mnt[/run/crun/.empty-directory]:/run/crr/.empty-directory"
            ]
        );
        assert_eq!(answers.problems, []);
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let sources = Sources { binds: [("/data".into(), "/no/such/source".into())].into(), ..Sources::default() };
        let mounts = [mount("/data", "/data"), mount("/other", "/other")];
        let answers = answer(&mounts, &sources);
        assert_eq!(answers.problems.len(), 2, "{:?}", answers.problems);
        assert!(answers.problems[0].to_string().contains("/no/such/source"));
    }
}
