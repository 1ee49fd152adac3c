//! Namespaces that are not crr's.

use crate::process::{Namespaces, Task};

use super::examine::{Examination, described};

pub(super) fn look(examination: &mut Examination<'_>) {
    look_at_root(examination);
    let tree = examination.tree;
    for task in tree.tasks.iter().filter(|task| !task.is_zombie()) {
        look_at_children_of(examination, task);
        if task.pid() != tree.root().pid() {
            look_at_nested(examination, task);
        }
    }
}

fn look_at_root(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let root = tree.root();
    let differences = tree.own_namespaces.differences(&root.namespaces);
    let differs = |kind: &str| differences.contains(&kind);
    let given = |kind: &str, inode: u64| examination.intent.has_external(&format!("{kind}[{inode}]"));
    let init = root.status.namespace_pids.last() == Some(&1);
    let pid_given = given("pid", root.namespaces.pid);
    if differs("pid") && !init && !pid_given {
        examination.findings.will_not(
            "not-init",
            root.pid(),
            format!("{} lives in a PID namespace of its own, but is not its first process", described(root)),
            "name the first process of that PID namespace as the root of the tree",
        );
    }
    if differs("user") && !differs("pid") {
        examination.findings.warn(
            "user-namespace",
            root.pid(),
            format!("{} lives in a user namespace of its own, but not in a PID namespace of its own", described(root)),
            "the dump passes, but it cannot be restored: the new user namespace may not open crr's /proc",
        );
    }
    if differs("mnt") && !examination.intent.container {
        examination.findings.warn(
            "mount-namespace",
            root.pid(),
            format!("{} lives in a mount namespace of its own", described(root)),
            "the dump needs nothing more, but the restore needs --root DIR, a mount point that holds the tree's root file system",
        );
    }
}

/// Where its next child would be born.
fn look_at_children_of(examination: &mut Examination<'_>, task: &Task) {
    let Namespaces { pid, pid_for_children, time, time_for_children, .. } = task.namespaces;
    // Linux has no name for a namespace before its first process is born. Before 4.12 it had none for this at all.
    let known = task.status.has_memory && examination.tree.own_namespaces.pid_for_children != 0;
    if pid != 0 && known && pid != pid_for_children {
        examination.findings.warn(
            "pid-namespace-for-children",
            task.pid(),
            format!("{} has asked for a new PID namespace for its children (unshare)", described(task)),
            "the dump passes, but after the restore its children are born in the namespace it is in itself",
        );
    }
    if time != 0 && time_for_children != 0 && time != time_for_children {
        examination.findings.will_not(
            "time-namespace-for-children",
            task.pid(),
            format!("{} has asked for a new time namespace for its children (unshare)", described(task)),
            "start the program in the time namespace instead (unshare --time --fork)",
        );
    }
}

/// A task in another namespace than the root.
fn look_at_nested(examination: &mut Examination<'_>, task: &Task) {
    let tree = examination.tree;
    let root = tree.root();
    for kind in root.namespaces.differences(&task.namespaces) {
        let own = tree.own_namespaces.differences(&root.namespaces).contains(&kind);
        if matches!(kind, "mnt" | "net") {
            if !own {
                examination.findings.warn(
                    "nested-namespace",
                    task.pid(),
                    format!(
                        "{} is in another {kind} namespace than {}, the root of the tree",
                        described(task),
                        described(root)
                    ),
                    "the dump passes, but it cannot be restored: start the whole tree in a namespace of its own",
                );
            }
        } else if tree.own_namespaces.differences(&task.namespaces).contains(&kind) {
            examination.findings.will_not(
                "nested-namespace",
                task.pid(),
                format!(
                    "{} is in another {kind} namespace than {}, the root of the tree",
                    described(task),
                    described(root)
                ),
                "name the process that the namespace was made for as the root of the tree",
            );
        }
    }
}
