//! Lines written by hand after CRIU's format strings, for the entries that no log in `fixtures/` shows: each with the
//! reason why it was not provoked.

/// The id and the message of its line.
pub(crate) const SAMPLES: &[(&str, &str)] = &[
    // Debian's CRIU is built with libnftables.
    ("no-libnftables", "CRIU was built without libnftables support"),
    // The modules are part of this kernel.
    ("sock-diag-missing", "sockets: Diag module missing (1)"),
    // Comes with the reason at log level 2; alone at level 1 only.
    ("file-not-opened", "Unable to open fd=3 id=0x1e"),
    // Needs a kernel that tracks dirty pages.
    ("parent-inventory", "Pid-reuse detection failed: no parent inventory, check warnings in get_parent_inventory"),
    // Comes with the one of freeze-timeout, which decides.
    ("unseizable", "Unseizable non-zombie 4242 found, state D, err -1/4"),
    // A process that does not freeze, in time for cgroups and out of time for ptrace: none was found.
    ("freeze-cgroup", "Unable to freeze cgroup /sys/fs/cgroup/app (10 x 100ms attempts, timeout: 10s)"),
    // Such a process cannot be seized in the first place (cannot-seize.3); single stopped threads have no maker.
    ("odd-task-state", "Zombies with threads are not supported"),
    // Found at the dump first (mount-sharing).
    ("mount-sharing-group", "mnt-v2: Sharing group (12, 3) has unreachable sharing. Try --enable-external-masters."),
    // Needs two machines with other address spaces.
    ("high-memory", "Can't restore high memory region 7ffff000-80000000"),
];
