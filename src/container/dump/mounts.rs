//! Which mounts of a container come from outside, under the names that its runtime looks for at a restore.
//!
//! | mount | runc | crun |
//! |---|---|---|
//! | bind mount of the configuration | its place | its place |
//! | a hierarchy of cgroup v1 | its place | its place |
//! | masked file | `/dev/null` | its place |
//! | masked directory | no name: an empty tmpfs, in the images | its place if it is a bind mount (crun 1.28) |
//! | device node that is a bind mount | its place | its place |

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::oci::{Configuration, MountKind, NamespaceKind, Runtime};
use crate::preflight::{Finding, Level};
use crate::process::Mount;

/// As many links as the kernel follows in one path.
const LINKS_LIMIT: u32 = 40;

/// A mount that CRIU is told to leave to whoever restores the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct External {
    pub(super) place: PathBuf,
    /// Its name in the images.
    pub(super) name: String,
}

impl External {
    fn new(place: &Path, name: impl AsRef<Path>) -> Self {
        Self { place: place.into(), name: name.as_ref().to_string_lossy().into_owned() }
    }

    /// In CRIU's words.
    pub(super) fn option(&self) -> String {
        format!("mnt[{}]:{}", self.place.display(), self.name)
    }
}

/// The external mounts among those that the container sees.
pub(super) fn externals(runtime: Runtime, configuration: &Configuration, mounts: &[Mount]) -> Vec<External> {
    let rootfs = &configuration.rootfs;
    let binds: BTreeSet<PathBuf> = configuration
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Bind)
        .map(|mount| resolved(rootfs, &mount.destination))
        .collect();
    let is_whole = |mount: &Mount| mount.root.as_os_str() == "/";
    // In a cgroup namespace the hierarchies are mounts like others, which CRIU makes anew.
    let own_cgroups = configuration.namespace(NamespaceKind::Cgroup).is_some();
    let mut found: Vec<External> = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.mountpoint.as_os_str() != "/") {
        let place = &mount.mountpoint;
        let is_hierarchy = mount.filesystem == "cgroup" && !own_cgroups && !is_whole(mount);
        let external = if binds.contains(place) || is_hierarchy {
            Some(External::new(place, place))
        } else if configuration.masked_paths.contains(place) {
            match (runtime, is_whole(mount)) {
                // A tmpfs of its own over a directory.
                (_, true) => None,
                (Runtime::Runc, false) => Some(External::new(place, "/dev/null")),
                (Runtime::Crun, false) => Some(External::new(place, place)),
            }
        } else if configuration.devices.contains(place) {
            Some(External::new(place, place))
        } else {
            None
        };
        found.extend(external.filter(|external| !found.contains(external)));
    }
    found
}

/// What a restore will miss, as far as the host shows it already.
pub(super) fn missing(configuration: &Configuration, init: i32, is_ended: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |id, what: String, cure: String| {
        let level = if is_ended { Level::WillNotWork } else { Level::Warning };
        let (turns_on, choices) = (Vec::new(), Vec::new());
        findings.push(Finding { id, level, pids: vec![init], what, cure, turns_on, choices });
    };
    for mount in configuration.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
        if !mount.source.exists() {
            let (source, place) = (mount.source.display(), mount.destination.display());
            find(
                "mount-source-gone",
                format!(
                    "the volume {place} comes from `{source}`, which is not there any more: it will be missing at the restore"
                ),
                format!("make `{source}` again, or use --leave-running and see to it before the restore"),
            );
        }
    }
    for namespace in &configuration.namespaces {
        if let Some(path) = namespace.path.as_ref().filter(|path| !path.exists()) {
            let kind = namespace.kind.in_config();
            find(
                "namespace-path-gone",
                format!("the {kind} namespace was taken from `{}`, which is not there any more", path.display()),
                "make it again (ip netns add, or a bind mount of /proc/PID/ns/…), or use --leave-running".to_owned(),
            );
        }
    }
    findings
}

/// Where a path of the container leads, symbolic links of the root file system followed within it: what runc mounts at, and
/// what the mount table shows.
fn resolved(rootfs: &Path, path: &Path) -> PathBuf {
    let mut done = PathBuf::from("/");
    let mut rest: Vec<OsString> = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        let inside = rootfs.join(next.strip_prefix("/").unwrap_or(&next));
        match std::fs::read_link(&inside) {
            Ok(target) if links < LINKS_LIMIT => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                rest.extend(parts(&target));
            }
            _ => done = next,
        }
    }
    done
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let named = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut parts: Vec<OsString> = named.collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci;
    use std::os::unix::fs::symlink;

    const TABLE: &str = "\
94 53 0:27 /b/rootfs / rw - tmpfs tmpfs rw
95 94 0:49 / /proc rw - proc proc rw
101 100 0:54 / /sys/fs/cgroup rw - tmpfs tmpfs rw
102 101 0:29 /c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu
54 95 0:49 /bus /proc/bus ro - proc proc rw
58 95 0:55 / /proc/acpi ro - tmpfs tmpfs ro
59 95 0:50 /null /proc/keys rw - tmpfs tmpfs rw
62 94 8:1 /srv/data /data rw - ext4 /dev/sda rw
63 96 0:50 /zero /dev/zero rw - devtmpfs udev rw
64 94 8:1 /srv/else /else rw - ext4 /dev/sda rw";

    fn configuration() -> Configuration {
        let bind = oci::Mount {
            destination: "/data".into(),
            source: "/srv/data".into(),
            kind: MountKind::Bind,
            flags: 0,
            data: String::new(),
        };
        Configuration {
            rootfs: "/nowhere".into(),
            mounts: vec![bind],
            masked_paths: ["/proc/acpi", "/proc/keys", "/proc/kcore"].map(Into::into).into(),
            devices: ["/dev/null", "/dev/zero"].map(Into::into).into(),
            ..Configuration::default()
        }
    }

    fn options(runtime: Runtime, configuration: &Configuration) -> Vec<String> {
        let mounts: Vec<Mount> = TABLE.lines().map(|line| Mount::parse(line.as_bytes()).expect("a line")).collect();
        externals(runtime, configuration, &mounts).iter().map(External::option).collect()
    }

    #[test]
    fn each_runtime_finds_the_names_it_looks_for() {
        let of = |masked: &str| {
            ["mnt[/sys/fs/cgroup/cpu]:/sys/fs/cgroup/cpu", masked, "mnt[/data]:/data", "mnt[/dev/zero]:/dev/zero"]
                .map(String::from)
        };
        assert_eq!(options(Runtime::Runc, &configuration()), of("mnt[/proc/keys]:/dev/null"));
        assert_eq!(options(Runtime::Crun, &configuration()), of("mnt[/proc/keys]:/proc/keys"));
    }

    #[test]
    fn hierarchies_of_a_cgroup_namespace_are_in_the_images() {
        let mut configuration = configuration();
        configuration.namespaces.push(oci::Namespace { kind: NamespaceKind::Cgroup, path: None });
        assert!(options(Runtime::Runc, &configuration).iter().all(|option| !option.contains("cgroup")));
    }

    #[test]
    fn links_of_the_root_file_system_are_followed_within_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let rootfs = scratch.path();
        std::fs::create_dir_all(rootfs.join("run")).expect("a directory");
        std::fs::create_dir_all(rootfs.join("var")).expect("a directory");
        symlink("/run", rootfs.join("var/run")).expect("a link");
        symlink("../../../run", rootfs.join("up")).expect("a link");
        symlink("loop", rootfs.join("loop")).expect("a link");
        for (path, expected) in
            [("/var/run/x", "/run/x"), ("/up/y", "/run/y"), ("data", "/data"), ("/a/../../b", "/b"), ("/loop", "/loop")]
        {
            assert_eq!(resolved(rootfs, Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn a_volume_whose_source_is_gone_is_named() {
        let mut configuration = configuration();
        configuration.mounts[0].source = "/nowhere/at/all".into();
        let found = missing(&configuration, 7, true);
        assert_eq!((found.len(), found[0].level), (1, Level::WillNotWork));
        assert!(found[0].what.contains("/nowhere/at/all") && found[0].what.contains("/data"), "{}", found[0].what);
        assert_eq!(missing(&configuration, 7, false)[0].level, Level::Warning);
    }
}
