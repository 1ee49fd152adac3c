//! The host: CPU, kernel, security modules, cgroups, CRIU itself and its client.

use super::{Entry, cause, symptom};

pub(super) const ENTRIES: &[Entry] = &[
    cause(
        41,
        "cpu-differs",
        &[
            "cpu: CPU instruction capabilities do not match run time",
            "cpu: FPU feature required by image is not supported on host",
            "cpu: CPU xsave size mismatch",
        ],
        "This CPU lacks instructions or registers that the dumped processes may use.",
        "Restore on a CPU of the same kind or later. --cpu-cap none restores all the same; a process that uses what is \
         missing then dies of SIGILL.",
    ),
    cause(
        42,
        "cpuinfo-missing",
        &["cpu: No cpuinfo image"],
        "The restore was told to compare CPUs (--cpu-cap), and the dump recorded none.",
        "Give --cpu-cap at the dump as well, or at neither.",
    ),
    cause(
        50,
        "external-netns",
        &["net: Unable to find an external netns: {name}"],
        "The images leave the network namespace `{name}` to the restore (--external 'net[…]:{name}'), which gave none.",
        "Give the restore a descriptor of that namespace: --inherit-fd 'fd[N]:{name}' N</run/netns/{name}.",
    ),
    cause(
        51,
        "lsm-missing",
        &[
            "apparmor LSM specified but apparmor not supported by kernel",
            "selinux LSM specified but selinux not supported by kernel",
            "mismatched lsm types and lsm profile specified",
        ],
        "The processes had an AppArmor or SELinux profile, and this host's security module is another or none.",
        "Restore on a host with the same one. --lsm-profile must name the host's kind: apparmor:PROFILE or selinux:LABEL.",
    ),
    cause(
        53,
        "cgroup-exists",
        &["cg: Abort restore of existing cgroups"],
        "The restore was to make the tree's cgroups (--manage-cgroups strict), and they exist.",
        "Use --manage-cgroups soft to take existing ones, or ignore to leave them alone.",
    ),
    cause(
        53,
        "cgroup-missing",
        &["cg: Cgroup dir {path} doesn't exist"],
        "The cgroup {path} of the tree does not exist here, and the restore was not to make it.",
        "Create it, use --manage-cgroups full to have it made, ignore to do without, or --cgroup-root to map it to \
         another.",
    ),
    symptom(
        55,
        "client-refused",
        &["RPC client reported script error"],
        "The program that asked CRIU for this refused to go on at one of CRIU's notifications, or went away.",
        "The reason is in that program's own messages, not in this log. CRIU did what it was told.",
    ),
    cause(
        57,
        "mntns-compat-mode",
        &["Option --mntns-compat-mode is only valid on restore"],
        "--mntns-compat-mode was given to an operation that is not a restore.",
        "Give --mntns-compat-mode to the restore only.",
    ),
    cause(
        63,
        "plugin-missing",
        &["Missing required plugin: {plugin}"],
        "The images were dumped with CRIU's plugin {plugin}, which is not installed here.",
        "Install it where CRIU looks for plugins (/usr/lib/criu, or --libdir DIR).",
    ),
    cause(
        64,
        "streamer-absent",
        &["Unable to connect to image streamer socket: {path}: {why}"],
        "CRIU was run with --stream and no image streamer listens at {path}: {why}.",
        "Start criu-image-streamer with the same images directory first.",
    ),
    cause(
        65,
        "not-root",
        &[
            "Running as non-root requires '--unprivileged'",
            "CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability",
        ],
        "CRIU was started by a user other than root.",
        "Run it as root (sudo crr …). Simple trees can do with --unprivileged and CAP_CHECKPOINT_RESTORE (setcap \
         cap_checkpoint_restore+eip on the criu binary).",
    ),
    cause(
        74,
        "kernel-too-new",
        &["vdso: Unexpected rt vDSO area bounds"],
        "This CRIU does not know the vDSO of this kernel: CRIU is too old for it.",
        "Use a later CRIU: tools/setup-criu of crr's repository installs one. crr check lists those it finds.",
    ),
];
