//! Mounts of a tree with a mount namespace of its own.

use super::{Entry, cause};

pub(super) const ENTRIES: &[Entry] = &[
    cause(
        43,
        "mount-fuse",
        &["failed to dump fs {path} (fuse): always fail", "{path} is a fuse mount but not external"],
        "{/path} is a FUSE mount, whose content lives in a program outside of the tree.",
        "Leave it to the restore: --external 'mnt[{/path}]:NAME' at the dump, --external 'mnt[NAME]:{/path}' at the restore, \
         where it has to be mounted first. Or unmount it before the dump.",
    ),
    cause(
        43,
        "mount-type",
        &["mnt: FS mnt {path} dev {device} root {root} unsupported id {id#}"],
        "{/path} is a mount of a file system that CRIU does not know how to mount again.",
        "Leave it to the restore: --external 'mnt[{/path}]:NAME' at the dump, --external 'mnt[NAME]:{/path}' at the restore; or \
         allow it to be mounted anew: --enable-fs NAME.",
    ),
    cause(
        44,
        "mount-from-outside",
        &["mnt: {id#}:{path} doesn't have a proper root mount"],
        "{/path} is bind-mounted from a file system whose root is not in the tree's mount namespace.",
        "Leave it to the restore: --external 'mnt[{/path}]:NAME' at the dump, --external 'mnt[NAME]:SOURCE' at the restore. \
         --external 'mnt[]' does that for all such mounts.",
    ),
    cause(
        45,
        "mount-sharing",
        &[
            "mnt: Mount {id#} {path} (master_id: {master#} shared_id: {shared#}) has unreachable sharing. Try --enable-external-masters.",
        ],
        "A mount of the tree ({path}) takes part in the propagation of mounts from outside of its mount namespace.",
        "Dump and restore with --external 'mnt[]:m', or make it private before the dump: mount --make-rprivate PATH.",
    ),
    cause(
        45,
        "mount-sharing-group",
        &["mnt-v2: Sharing group ({shared}, {master}) has unreachable sharing. Try --enable-external-masters."],
        "Mounts of the images (sharing group {shared}, master {master}) take part in the propagation of mounts from outside \
         of the tree's mount namespace.",
        "Restore with --external 'mnt[]:m', as at the dump.",
    ),
    cause(
        46,
        "mount-autodetected",
        &["mnt: Mount {id#}:{path} is autodetected external mount. Try \"--ext-mount-map auto\" to allow them."],
        "Mount {id} of the tree ({path}) is one from outside of its mount namespace, which the dump found by itself.",
        "Give --external 'mnt[]' at the restore as at the dump.",
    ),
    cause(
        73,
        "mount-namespace-root",
        &["BUG at criu/mount.c:{line#}"],
        "The tree has a mount namespace of its own, and CRIU was not told where to build it.",
        "Restore with --root DIR, where DIR is a mount point: mount --bind / DIR.",
    ),
];
