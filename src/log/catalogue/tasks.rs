//! Processes: getting hold of them, their PIDs, their namespaces.

use super::{Entry, cause, symptom};

pub(super) const ENTRIES: &[Entry] = &[
    cause(
        21,
        "pid-taken",
        &["Can't fork for {pid#}: File exists"],
        "The PID {pid} that a restored process had is in use here, by a process, a thread, a session or a process group.",
        "Wait until it ends (ps -eLo pid,tid,sid,pgid,comm | grep -w {pid}), or restore in a PID namespace of its own. A \
         session leader that was outside of the dumped tree has to go too.",
    ),
    symptom(
        36,
        "cannot-seize",
        &["Unable to detach from {pid#}: No such process"],
        "CRIU could not take hold of process {pid}: it does not exist, or a debugger or strace holds it, or it is a zombie \
         with live threads.",
        "See what it is: grep -E 'State|TracerPid' /proc/{pid}/status. End the tracer named there, or give the right PID.",
    ),
    symptom(
        78,
        "outrun",
        &["Can't open {pid#}: No such file or directory"],
        "Processes of the tree end and others are born faster than CRIU can take hold of them: process {pid} was gone \
         already.",
        "Have a cgroup that holds the tree and nothing else frozen first: --freeze-cgroup DIR. crr does so by itself for a \
         container.",
    ),
    cause(
        36,
        "not-a-freezer",
        &["Neither a cgroupv1 (freezer.state) or cgroupv2 (cgroup.freeze) control file found"],
        "The directory given with --freeze-cgroup is not a cgroup that can be frozen.",
        "Give the path of the tree's own cgroup, below /sys/fs/cgroup (on a host with cgroup v1: /sys/fs/cgroup/freezer).",
    ),
    cause(
        37,
        "criu-in-tree",
        &["The criu itself is within dumped tree."],
        "The process that runs the dump is a descendant of the process to be dumped.",
        "Run crr from outside of the tree: from another login, or as a service. setsid does not help.",
    ),
    symptom(
        38,
        "unseizable",
        &["Unseizable non-zombie {pid#} found, state {state}, err {error}"],
        "CRIU could not take hold of process {pid} (state {state}): another process traces it, it is in the kernel and \
         does not react (state D, also a parent in vfork), or its cgroup is frozen.",
        "See grep -E 'State|TracerPid' /proc/{pid}/status and cat /proc/{pid}/wchan: end the tracer, wait, or thaw the \
         cgroup.",
    ),
    cause(
        39,
        "freeze-timeout",
        &["Timeout reached. Try to interrupt: {attempt#}"],
        "The tree could not be stopped within the time allowed (10 s by default): one of its processes does not react, as \
         in uninterruptible sleep, in vfork, or in a frozen cgroup.",
        "Find it: ps -eo pid,stat,wchan:30,comm | grep ' D'. Wait for it, or allow more time with --timeout SECONDS.",
    ),
    cause(
        40,
        "freeze-cgroup",
        &["Unable to freeze cgroup {path} ({attempts#} x {step}ms attempts, timeout: {seconds#}s)"],
        "The cgroup {path} could not be frozen within {seconds} seconds.",
        "See which of its processes does not stop (ps -eo pid,stat,wchan:30,cgroup,comm), or allow more time with --timeout \
         SECONDS.",
    ),
    cause(
        48,
        "pidns-without-init",
        &[
            "Can't dump a pid namespace without the process init",
            "Can't restore pid namespace without the process init",
        ],
        "The process is in a PID namespace whose first process is not part of the tree.",
        "Dump from the namespace's first process (lsns -t pid names it), or leave the namespace to the restore: --external \
         'pid[INODE]:NAME'.",
    ),
    cause(
        49,
        "pidns-not-recorded",
        &["This process tree can only be restored in a new pid namespace"],
        "The tree was PID 1 of its PID namespace, and the images do not hold that namespace.",
        "Copy all of the directory again; if it is complete, dump again with a CRIU that sees the namespace.",
    ),
    cause(
        52,
        "seccomp-suspend",
        &[
            "suspending seccomp failed: {why}",
            "failed to suspend seccomp, restore will probably fail",
            "couldn't suspend seccomp: {why}",
            "Kernel doesn't support PTRACE_O_SUSPEND_SECCOMP",
        ],
        "The tree uses seccomp filters, and CRIU could not suspend them while it works.",
        "CRIU needs CAP_SYS_ADMIN in the first user namespace, must not be under a seccomp filter itself (containers are), \
         and needs a kernel with CONFIG_CHECKPOINT_RESTORE.",
    ),
    cause(
        62,
        "odd-task-state",
        &["Zombies with threads are not supported", "Individually stopped threads not supported"],
        "A process of the tree is half ended or half stopped: its first thread is gone while others run, or single threads \
         are stopped.",
        "Let the threads end, or continue all of them (kill -CONT PID), and dump again.",
    ),
    cause(
        69,
        "child-namespace",
        &["Can't restore sub-task in NS (cflags {flags})"],
        "A process below the root of the tree has a network, mount or other namespace of its own, which CRIU dumps and \
         cannot restore.",
        "No option helps with these images. Dump the process that has the namespace as a tree of its own, or have the tree \
         share one namespace.",
    ),
    cause(
        70,
        "sched-deadline",
        &["Inconsistent sched params received ({policy#}.{nice}.{priority#})"],
        "A process had scheduling policy {policy} (6 is SCHED_DEADLINE), which CRIU dumps and cannot restore.",
        "No option helps with these images. Before the dump: chrt --other --pid 0 PID.",
    ),
    cause(
        71,
        "userns-alone",
        &["Unable to open the proc file system: Operation not permitted"],
        "The tree has a user namespace of its own without a PID and a mount namespace of its own, which CRIU dumps and \
         cannot restore.",
        "No option helps with these images. Start the program with all three: unshare --user --pid --mount --fork.",
    ),
];
