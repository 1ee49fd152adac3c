//! The cgroups of a container, as its runtime has them: one directory for each controller of version 1, one for version 2.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::host::cgroup::{Layout, Membership};

/// How long killed tasks may take to leave a cgroup.
const LEAVING: Duration = Duration::from_secs(10);

/// Where the cgroups of a container called `id` are: as runc names them, by controller and under "" for version 2.
///
/// `path` is config.json's `linux.cgroupsPath`: an absolute one is below the root of each hierarchy, a relative one below the
/// cgroup that crr is in, as runc has it. Without one it is the name.
pub(super) fn places(layout: &Layout, own: &Membership, id: &str, path: Option<&Path>) -> BTreeMap<String, PathBuf> {
    let inner = path.map_or_else(|| PathBuf::from(id), Path::to_path_buf);
    let unified_only = layout.hierarchies.iter().all(|hierarchy| hierarchy.is_unified());
    let mut places = BTreeMap::new();
    for hierarchy in &layout.hierarchies {
        let below = match inner.strip_prefix("/") {
            Ok(below) => hierarchy.mount.join(below),
            Err(_) => {
                let own = own.0.get(&hierarchy.name).map_or("/", String::as_str);
                let Some(above) = hierarchy.directory(own) else { continue };
                // A cgroup of version 2 that has tasks cannot have controllers for those below it.
                match above.parent().filter(|_| unified_only && above != hierarchy.mount) {
                    Some(parent) => parent.join(&inner),
                    None => above.join(&inner),
                }
            }
        };
        match hierarchy.name.as_str() {
            named if named.is_empty() || named.starts_with("name=") => {
                places.insert(named.to_owned(), below);
            }
            controllers => places.extend(controllers.split(',').map(|name| (name.to_owned(), below.clone()))),
        }
    }
    places
}

/// The directories that have to be made for `directory` to be there, outermost first.
pub(super) fn missing(directory: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        directory.ancestors().take_while(|path| !path.is_dir()).map(Path::to_path_buf).collect();
    missing.reverse();
    missing
}

/// Makes one. A cpuset of version 1 takes no task before it has processors and memory.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let Some(above) = directory.parent().filter(|_| directory.join("cpuset.sched_load_balance").exists()) else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(directory.join(file))?.trim().is_empty() {
            fs::write(directory.join(file), fs::read_to_string(above.join(file))?.trim())?;
        }
    }
    Ok(())
}

/// The tasks in a cgroup and in those below it.
pub(super) fn members(directory: &Path) -> Vec<i32> {
    let mut members = Vec::new();
    for directory in below(directory) {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        members.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    members
}

/// Kills what is in a cgroup and in those below it, and waits until it is gone.
pub(super) fn kill(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LEAVING;
    loop {
        let members = members(directory);
        if members.is_empty() {
            return Ok(());
        }
        // Then it is not the container's.
        if members.iter().any(|pid| *pid == 1 || pid.unsigned_abs() == std::process::id()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "PID 1 or crr itself is in it"));
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("PIDs {members:?} do not end")));
        }
        for pid in members {
            // One that has ended needs none.
            let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // What is frozen by version 1 does not end before it is thawed.
        if directory.join("freezer.state").exists() {
            let _ = fs::write(directory.join("freezer.state"), "THAWED");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes a cgroup and those below it, when its last task has left.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LEAVING;
    let mut all = below(directory);
    all.reverse();
    for directory in all {
        loop {
            match fs::remove_dir(&directory) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                // A task that has just ended is counted for a moment yet.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// A directory and those below it, each before what is in it.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_path_buf()];
    let mut at = 0;
    while let Some(directory) = all.get(at) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let inner: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        all.extend(inner);
        at += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroup::Hierarchy;

    fn layout(names: &[&str]) -> Layout {
        let hierarchy =
            |name: &&str| Hierarchy { name: (*name).into(), mount: format!("/cg/{name}").into(), root: "/".into() };
        Layout { hierarchies: names.iter().map(hierarchy).collect() }
    }

    #[test]
    fn a_container_is_below_its_callers_cgroup_unless_its_path_is_absolute() {
        let own = Membership([("memory".into(), "/above".into()), ("".into(), "/".into())].into());
        let hybrid = layout(&["cpu,cpuacct", "memory", "name=systemd", ""]);
        let text = |places: BTreeMap<String, PathBuf>| -> Vec<String> {
            places.iter().map(|(name, path)| format!("{name}={}", path.display())).collect()
        };
        assert_eq!(
            text(places(&hybrid, &own, "c1", None)),
            [
                "=/cg/c1",
                "cpu=/cg/cpu,cpuacct/c1",
                "cpuacct=/cg/cpu,cpuacct/c1",
                "memory=/cg/memory/above/c1",
                "name=systemd=/cg/name=systemd/c1"
            ]
        );
        let absolute = places(&hybrid, &own, "c1", Some(Path::new("/pod/x")));
        assert_eq!(absolute["memory"], Path::new("/cg/memory/pod/x"));
    }

    #[test]
    fn of_version_2_a_container_is_beside_its_caller() {
        let own = Membership([("".into(), "/session/shell".into())].into());
        assert_eq!(places(&layout(&[""]), &own, "c1", None)[""], Path::new("/cg/session/c1"));
        let top = Membership([("".into(), "/".into())].into());
        assert_eq!(places(&layout(&[""]), &top, "c1", None)[""], Path::new("/cg/c1"));
    }
}
