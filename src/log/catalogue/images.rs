//! Image files and directories.

use super::{Entry, cause, symptom};

pub(super) const ENTRIES: &[Entry] = &[
    cause(
        26,
        "image-magic",
        &["Head magic doesn't match for {file}", "Magic doesn't match for {file}"],
        "The image {file} is damaged, or is not what its name says.",
        "Copy the images again from where they were dumped (cp -a, rsync). crr restore checks their sums first where crr made \
         the dump.",
    ),
    symptom(
        27,
        "image-truncated",
        &["Unexpected EOF on {file}", "Unexpected EOF"],
        "An image file is missing or ends too early.",
        "Copy all of the directory again from where it was dumped, and see that --dir names the right one: a dump that did \
         not finish has no inventory.img.",
    ),
    cause(
        27,
        "image-short",
        &["Read {found#} bytes while {wanted#} expected from {file}"],
        "The image {file} ends too early: {found} of {wanted} bytes of a record are there.",
        "Copy the images again from where they were dumped. A dump that ran out of space leaves such files: check there.",
    ),
    cause(
        28,
        "pages-missing",
        &["Can't read pages data ({error#})"],
        "The memory contents, pages-N.img, are missing or too short.",
        "Copy all of the directory again, and the directories it refers to (its link `parent`).",
    ),
    cause(
        30,
        "images-directory",
        &["Can't open images directory: {why}", "Can't open dir {path}: {why}"],
        "CRIU could not open the images or work directory: {why}.",
        "See that the directory exists and that you may write it. A program that calls CRIU over RPC must keep the \
         directory's descriptor open, in the process that made the socket, until the answer comes.",
    ),
    cause(
        31,
        "parent-invalid",
        &["Invalid parent image directory provided: {why}"],
        "The directory of the previous images cannot be opened: {why}.",
        "Name it relative to the new images' directory, as in ../1.",
    ),
    cause(
        32,
        "parent-missing",
        &[
            "page-xfer: No parent image found, though parent directory is set: {path}",
            "No parent for snapshot pagemap",
            "Missing {address} in parent pagemap",
        ],
        "The images hold only what changed since an earlier dump, and the images of that dump are not there.",
        "Copy all directories of the chain, with the same position to each other: the link `parent` in each names the next.",
    ),
    cause(
        35,
        "parent-inventory",
        &["Pid-reuse detection failed: no parent inventory, check warnings in get_parent_inventory"],
        "The directory of the previous dump has no readable inventory.img, without which CRIU cannot tell a process from \
         another that was given the same PID.",
        "Copy inventory.img of the previous dump to that directory, or dump without a parent.",
    ),
    cause(
        67,
        "image-version",
        &["Not supported images version {version#}"],
        "The images are of version {version}, which this CRIU does not know: another CRIU made them.",
        "Restore with the CRIU version that made the dump, or a later one; crr.json in the directory names it.",
    ),
    cause(
        68,
        "no-space",
        &["No space left on device", "Disk quota exceeded"],
        "The file system that holds the images is full.",
        "Free some space or dump to another file system. crr check --pid PID --dir DIR estimates what is needed.",
    ),
];
