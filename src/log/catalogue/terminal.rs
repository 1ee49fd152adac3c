//! Terminals and sessions.

use super::{Entry, cause};

pub(super) const ENTRIES: &[Entry] = &[
    cause(
        1,
        "shell-job",
        &["The root process {pid#} is not a session leader. Consider using --shell-job option"],
        "Process {pid} was started from a shell and belongs to the shell's session, whose leader is not dumped.",
        "Dump and restore it with --shell-job (crr dump turns that on by itself and crr restore remembers it), or start it \
         in a session of its own: crr run -- CMD.",
    ),
    cause(
        2,
        "tty-outside",
        &["tty: Found slave peer index {index#} without correspond master peer"],
        "The tree holds the terminal /dev/pts/{index} open, whose other end belongs to a process outside the tree (a \
         terminal window, ssh, tmux).",
        "Dump and restore it with --shell-job (crr dump turns that on by itself), or start it without a terminal: crr run \
         -- CMD.",
    ),
    cause(
        3,
        "no-tty-to-inherit",
        &["tty: Don't have tty to inherit session from, aborting"],
        "The images are those of a shell job, which takes over the terminal of the restorer, and the restorer's standard \
         input is not a terminal.",
        "Run crr restore from a terminal, or give it one: script -qec 'crr restore --dir DIR' /dev/null. A program that \
         needs no terminal is better started with crr run -- CMD before the dump.",
    ),
    cause(
        4,
        "pts-index-taken",
        &["tty: Unable to open {path} with specified index {index#}"],
        "The restored tree holds both ends of the pseudo-terminal /dev/pts/{index}, and that number is in use here.",
        "Close the terminal /dev/pts/{index} (fuser -v /dev/pts/{index} names who holds it) and restore again, or restore \
         in a mount namespace with a devpts of its own.",
    ),
    cause(
        5,
        "dangling-tty",
        &["tty: Found dangling tty with sid {sid#} pgid {pgid#} ({name}) on peer fd {fd#}"],
        "Descriptor {fd} is the terminal {name} of session {sid}, which is not part of the tree.",
        "Dump and restore with --shell-job (crr dump turns that on by itself), or dump the tree from its session leader, \
         process {sid}.",
    ),
];
