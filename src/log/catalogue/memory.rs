//! Memory, and the page channels of incremental and lazy migration.

use super::{Entry, cause, symptom};

pub(super) const ENTRIES: &[Entry] = &[
    symptom(
        29,
        "crashed-in-restore",
        &["{pid#} killed by signal 11: Segmentation fault"],
        "Process {pid} crashed while CRIU put it together: most often mm-{pid}.img or files.img is missing, or belongs to \
         another dump.",
        "Copy all of the directory again from where it was dumped.",
    ),
    cause(
        33,
        "no-dirty-tracking",
        &["Tracking memory is not available. Consider omitting --track-mem option."],
        "This kernel cannot tell which pages change (no soft-dirty bit), so incremental dumps and pre-dumps are not possible \
         here.",
        "Make full dumps, without --track-mem and --prev-images-dir; or use a kernel with CONFIG_MEM_SOFT_DIRTY. crr check \
         --for pre-copy tells.",
    ),
    cause(
        34,
        "pre-dump-without-tracking",
        &["BUG at criu/mem.c:{line#}"],
        "A pre-dump was asked for on a kernel that cannot tell which pages change (no soft-dirty bit).",
        "Make full dumps. CRIU left its code in the process; it does no harm, and ends with it. crr check --for pre-copy \
         tells before.",
    ),
    cause(
        56,
        "uprobes",
        &[
            "PID {pid#} has uprobes vma. Consider using --allow-uprobes.",
            "Dumped with --allow-uprobes. Need to set it on restore as well",
        ],
        "A process has or had user-space probes (perf, bpftrace, uprobes) set in its memory.",
        "End the tracing and start the program anew before the dump, or dump and restore with --allow-uprobes (CRIU 4.2).",
    ),
    cause(
        58,
        "high-memory",
        &["Can't restore high memory region", "Can't dump high memory region"],
        "A memory mapping lies above what this kernel or CPU offers: the dump comes from a machine with a larger address \
         space (5-level paging).",
        "Restore on the same kind of machine, or start the program where the address space is the smaller one.",
    ),
    cause(
        60,
        "pipe-size",
        &["page-pipe: splice: {result#}: Bad file descriptor", "page-pipe: tee: {result#}: Operation not permitted"],
        "CRIU could not make a pipe as large as it needs to serve memory pages: fs.pipe-max-size is below 4 MiB and \
         CAP_SYS_RESOURCE is missing.",
        "Run: sysctl fs.pipe-max-size=4194304",
    ),
    symptom(
        61,
        "page-channel-broken",
        &[
            "page-xfer: Remote side closed connection",
            "page-xfer: The page server doesn't answer",
            "page-xfer: The data were not flushed",
        ],
        "The connection to the page server broke off before all pages had been sent.",
        "Look at the log of the other side first: it names the cause. The source tree runs on; start again.",
    ),
    symptom(
        75,
        "memory-not-restored",
        &["vdso: ELF header magic mismatch", "vdso: Invalid ELF magic"],
        "The memory of a process did not come back as it was dumped. That is so where the images were written by CRIU 4.2 or \
         later and the restoring CRIU is older, which takes them for empty.",
        "Restore with CRIU 4.2 or later (crr check lists those found), or with the version that made the dump.",
    ),
    cause(
        72,
        "mapping-kind",
        &["Unknown shit {mode} ({name})"],
        "A process has mapped {name}, a kind of file (mode {mode}) that CRIU cannot dump; io_uring rings, perf buffers and \
         devices are such.",
        "Have the program unmap it before the dump, or run without that feature. crr check --pid PID names it.",
    ),
];
