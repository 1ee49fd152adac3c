//! The mounts of a tree that lives in a mount namespace of its own: CRIU makes each of them anew.

use crate::process::Mount;

use super::examine::{Examination, described};
use super::report::Choice;

/// The file systems that CRIU 4.2 can mount anew from nothing.
const KNOWN: [&str; 19] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "binfmt_misc",
    "tmpfs",
    "devpts",
    "simfs",
    "btrfs",
    "pstore",
    "mqueue",
    "securityfs",
    "fusectl",
    "debugfs",
    "tracefs",
    "cgroup",
    "cgroup2",
    "aufs",
    "overlay",
    "autofs",
];

pub(super) fn look(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let root = tree.root();
    if root.namespaces.mnt == 0 || root.namespaces.mnt == tree.own_namespaces.mnt {
        return;
    }
    let Some(mounts) = tree.mounts.get(&root.namespaces.mnt) else { return };
    let own_cgroups = root.namespaces.cgroup != tree.own_namespaces.cgroup;
    for mount in mounts {
        // In a cgroup namespace CRIU takes them to be whole (cgroup_parse).
        let is_own = own_cgroups && matches!(mount.filesystem.as_str(), "cgroup" | "cgroup2");
        if is_own || is_given(examination, mount) {
            continue;
        }
        if let Some(why) = obstacle(mount, mounts, &examination.intent.enable_fs) {
            let place = mount.mountpoint.display().to_string();
            examination.findings.choose(
                "mount",
                root.pid(),
                format!("{} has {} mounted at {place}: {why}", described(root), mount.filesystem),
                "unmount it in the tree's mount namespace, or name it as one that the restore is given",
                vec![Choice {
                    arguments: vec!["--external".into(), format!("mnt[{place}]:{place}")],
                    consequence: format!("the restore needs --external mnt[{place}]:DIR, a directory to mount there"),
                }],
            );
        }
    }
}

/// Whether the user has seen to it.
fn is_given(examination: &Examination<'_>, mount: &Mount) -> bool {
    let place = mount.mountpoint.display().to_string();
    let intent = examination.intent;
    let automatic = intent.external.iter().any(|given| given.starts_with("mnt[]"));
    automatic || intent.has_external(&format!("mnt[{place}]")) || intent.skip_mnt.contains(&place)
}

/// Why CRIU could not make a mount anew, as its validate_mounts has it.
fn obstacle(mount: &Mount, mounts: &[Mount], enabled: &[String]) -> Option<&'static str> {
    let root = mounts.iter().find(|other| other.mountpoint.as_os_str() == "/")?;
    // A bind mount of the root file system is made from that, wherever it is.
    if mount.device == root.device {
        return None;
    }
    if mount.root.as_os_str() == "/" {
        let known = KNOWN.contains(&mount.filesystem.as_str())
            || enabled.iter().any(|name| name == "all" || *name == mount.filesystem);
        return (!known).then_some("CRIU cannot mount that file system again by itself");
    }
    let whole = mounts.iter().any(|other| other.device == mount.device && other.root.as_os_str() == "/");
    (!whole).then_some(
        "only a part of that file system is mounted, and the whole of it nowhere in the tree's mount namespace",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obstacles(text: &str, enabled: &[&str]) -> Vec<i32> {
        let enabled: Vec<String> = enabled.iter().map(|&name| name.to_owned()).collect();
        let mounts: Vec<Mount> = text.lines().map(|line| Mount::parse(line.as_bytes()).expect("a good line")).collect();
        mounts.iter().filter(|mount| obstacle(mount, &mounts, &enabled).is_some()).map(|mount| mount.id).collect()
    }

    const TABLE: &str = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:1 /srv /srv rw - ext4 a rw\n3 1 0:5 / /tmp rw - tmpfs t rw\n\
                         4 1 0:5 /x /x rw - tmpfs t rw\n5 1 0:6 /y /y rw - tmpfs u rw\n6 1 8:2 / /data rw - xfs b rw\n\
                         7 1 0:7 / /proc rw - proc p rw\n8 1 0:8 / /mnt rw - fuse f rw";

    #[test]
    fn mounts_that_criu_cannot_make_anew_are_found() {
        assert_eq!(obstacles(TABLE, &[]), [5, 6, 8]);
    }

    #[test]
    fn a_file_system_that_is_enabled_is_no_obstacle() {
        assert_eq!(obstacles(TABLE, &["xfs"]), [5, 8]);
        assert_eq!(obstacles(TABLE, &["all"]), [5]);
    }
}
