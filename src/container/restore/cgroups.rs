//! The cgroups of a container that is restored: where they are, and making them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::cgroup;
use super::limits;
use crate::error::{Error, Result};
use crate::host::cgroup::{Layout, Membership};
use crate::request::CgroupRoot;
use crate::restore::ContainerProblem;

/// Where they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Cgroups {
    layout: Layout,
    /// By controller and under "" for version 2, as runc's state has them.
    pub(super) paths: BTreeMap<String, PathBuf>,
}

impl Cgroups {
    /// Those of a container called `id`. `path` is config.json's; where it belongs to another container, that is `taken`, the
    /// name takes the place of its last part. `recorded` are those that it had, which are taken where they can be. What is in
    /// them is not looked at where they are about to be `left`.
    pub(super) fn choose(
        id: &str,
        path: Option<&Path>,
        taken: bool,
        recorded: Option<&BTreeMap<String, PathBuf>>,
        left: bool,
    ) -> Result<Self> {
        let layout = Layout::read()?;
        let own = Membership::of(i32::try_from(std::process::id()).unwrap_or_default())?;
        let written = path.map(of_systemd);
        let mut paths = cgroup::places(&layout, &own, id, written.as_deref());
        let is_busy =
            |paths: &BTreeMap<String, PathBuf>| !left && paths.values().any(|path| !cgroup::members(path).is_empty());
        if written.is_some() && (taken || is_busy(&paths)) {
            paths = cgroup::places(&layout, &own, id, written.map(|path| path.with_file_name(id)).as_deref());
        }
        // A container that comes back goes where it was, wherever this crr is.
        let fits = |recorded: &&BTreeMap<String, PathBuf>| {
            recorded.keys().eq(paths.keys()) && recorded.values().all(|path| path.parent().is_some_and(Path::is_dir))
        };
        if let Some(recorded) = recorded.filter(|_| !taken).filter(fits) {
            paths.clone_from(recorded);
        }
        Ok(Self { layout, paths })
    }

    /// Those that cannot be used: somebody is in them, or, where it is to be `strict`, they are there.
    pub(super) fn problems(&self, strict: bool) -> Vec<ContainerProblem> {
        let problem = |path: PathBuf| {
            let members = cgroup::members(&path);
            let why = match (members.is_empty(), strict && path.exists()) {
                (false, _) => format!("PIDs {members:?} are in it"),
                (true, true) => "it is there already, and --manage-cgroups=strict wants none to be".into(),
                (true, false) => return None,
            };
            Some(ContainerProblem::Cgroup { path, why })
        };
        self.directories().into_iter().filter_map(problem).collect()
    }

    /// The directories, each once.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        self.paths.values().cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The directories that have to be made, each before what is in it.
    pub(super) fn missing(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = self.directories().iter().flat_map(|path| cgroup::missing(path)).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Makes them and sets their limits, which `config` has as runc's state has them.
    pub(super) fn make(&self, missing: &[PathBuf], config: &Value) -> Result<()> {
        for directory in missing {
            cgroup::make(directory).map_err(Error::io("make the cgroup", directory))?;
        }
        // Beside version 1 it has no limits to set.
        if let ([hierarchy], Some(directory)) = (self.layout.hierarchies.as_slice(), self.paths.get("")) {
            limits::delegate(&hierarchy.mount, directory);
        }
        limits::apply(config, &self.paths).map_err(|(path, source)| Error::Io {
            attempt: "set the limit",
            path,
            source,
        })
    }

    /// The directory of a hierarchy by the last part of where that is mounted, as a container has it in /sys/fs/cgroup.
    pub(super) fn by_mount(&self) -> BTreeMap<String, PathBuf> {
        let mut all = BTreeMap::new();
        for hierarchy in &self.layout.hierarchies {
            let name = hierarchy.mount.file_name().map(|name| name.to_string_lossy().into_owned());
            let first = hierarchy.name.split(',').next().unwrap_or_default();
            if let (Some(name), Some(path)) = (name, self.paths.get(first)) {
                all.insert(name, path.clone());
            }
        }
        all
    }

    /// For CRIU: where the root of the recorded cgroups is now.
    pub(super) fn roots(&self) -> Vec<CgroupRoot> {
        let root = |hierarchy: &crate::host::cgroup::Hierarchy| {
            let directory = self.paths.get(hierarchy.name.split(',').next().unwrap_or_default())?;
            let below = directory.strip_prefix(&hierarchy.mount).ok()?;
            let path = Path::new(&hierarchy.root).join(below).to_string_lossy().into_owned();
            Some(CgroupRoot { controller: Some(hierarchy.name.clone()), path })
        };
        self.layout.hierarchies.iter().filter_map(root).collect()
    }

    /// crun's way to name it: relative to every hierarchy.
    pub(super) fn below_hierarchy(&self) -> PathBuf {
        let of = |hierarchy: &crate::host::cgroup::Hierarchy| {
            let directory = self.paths.get(hierarchy.name.split(',').next().unwrap_or_default())?;
            directory.strip_prefix(&hierarchy.mount).ok().map(|below| Path::new("/").join(below))
        };
        self.layout.hierarchies.iter().find_map(of).unwrap_or_default()
    }
}

/// `slice:prefix:name` is how systemd's cgroups are written: `/slice/prefix-name.scope`.
fn of_systemd(path: &Path) -> PathBuf {
    let parts: Vec<&str> = path.to_str().map(|text| text.split(':').collect()).unwrap_or_default();
    let [slice, prefix, name] = parts[..] else { return path.to_path_buf() };
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let mut out = PathBuf::from("/");
    // A slice called a-b.slice is in a.slice.
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    out.extend(
        ends.filter_map(|end| stem.get(..end)).filter(|part| !part.is_empty()).map(|part| format!("{part}.slice")),
    );
    match prefix.is_empty() {
        true => out.join(format!("{name}.scope")),
        false => out.join(format!("{prefix}-{name}.scope")),
    }
}

/// That nothing of the limits' form is known stands for "none".
pub(super) fn limits_of(state: &str) -> io::Result<Value> {
    let mut state: Value = serde_json::from_str(state)?;
    Ok(state["config"]["cgroups"].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_systemd_is_its_scope() {
        assert_eq!(of_systemd(Path::new("system.slice:docker:abc")), Path::new("/system.slice/docker-abc.scope"));
        assert_eq!(of_systemd(Path::new("a-b.slice:x:y")), Path::new("/a.slice/a-b.slice/x-y.scope"));
        assert_eq!(of_systemd(Path::new("/pod/x")), Path::new("/pod/x"));
    }
}
