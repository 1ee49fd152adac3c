//! Open files: what can be dumped, and what is found again.

use super::{Entry, cause, symptom};

pub(super) const ENTRIES: &[Entry] = &[
    cause(
        16,
        "file-locks",
        &[
            "Some file locks are hold by dumping tasks! You can try --file-locks to dump them.",
            "Some file locks are hold by dumping tasks!You can try --file-locks to dump them.",
        ],
        "The tree holds file locks.",
        "Dump and restore with --file-locks; crr dump turns that on by itself. Nobody outside of the tree may take the locks \
         between dump and restore.",
    ),
    cause(
        17,
        "ghost-limit",
        &["Can't dump ghost file {path} of {size#} size, increase limit"],
        "The tree holds the deleted file {path} open, whose {size} bytes have to go into the images, above the limit for \
         such files.",
        "Dump with --ghost-limit {size} or more. crr dump raises it by itself as far as 64 MiB.",
    ),
    cause(
        18,
        "link-remap",
        &["Can't create link remap for {path}. Use link-remap option."],
        "The tree holds {path} open under a name that is gone, while the file still has another name; or another mount \
         hides that path.",
        "Dump and restore with --link-remap. Where a mount hides the path, unmount it or let the program close the file: \
         there --link-remap does not help.",
    ),
    cause(
        19,
        "file-type",
        &["Can't dump file {fd#} of that type [{mode}] ({kind} {name})"],
        "Descriptor {fd} is a {kind} ({name}) that CRIU cannot dump.",
        "Let the program close it before the dump. A device can be left to the restore: --external 'dev[MAJOR/MINOR]:NAME' at \
         the dump, --external 'dev[NAME]:/dev/PATH' at the restore; devices of GPUs need CRIU's plugin for them.",
    ),
    symptom(
        20,
        "descriptor-not-passed",
        &["send_fds failed (-22)", "Can't retrieve FDs from socket"],
        "The kernel does not let CRIU pass one of the tree's descriptors, which is so for io_uring.",
        "Have the program run without io_uring (Node.js: UV_USE_IO_URING=0; Redis, MariaDB and others have a setting). crr \
         check --pid PID names the descriptor.",
    ),
    cause(
        22,
        "file-missing",
        &["Can't open file {path} on restore: {why}"],
        "The file {/path} that the tree had open or mapped cannot be opened here: {why}.",
        "Put {/path} back as it was at the dump. crr dump --with-files keeps executables, libraries and open files with the \
         images.",
    ),
    symptom(
        22,
        "file-not-opened",
        &["Unable to open fd={fd#} id={id}"],
        "Descriptor {fd} of a restored process could not be opened.",
        "Look for the reason at a higher log level: crr restore --log-level 4.",
    ),
    cause(
        23,
        "file-size",
        &["File {path} has bad size {found#} (expect {wanted#})"],
        "The file {/path} was changed since the dump: it has {found} bytes and had {wanted}.",
        "Put back the content {/path} had at the dump. No option of CRIU skips this check.",
    ),
    cause(
        24,
        "file-build-id",
        &["File {path} has bad build-ID"],
        "The program or library {/path} is another build than the one that was dumped.",
        "Install the same build here, or restore where it is. crr dump --with-files keeps executables and libraries with the \
         images.",
    ),
    cause(
        25,
        "file-mode",
        &["File {path} has bad mode 0{found} (expect 0{wanted})"],
        "The type or permissions of {/path} are 0{found} and were 0{wanted} at the dump.",
        "Give {/path} its mode back (chmod), or restore with --skip-file-rwx-check.",
    ),
    cause(
        47,
        "file-of-other-mount",
        &["Can't lookup mount={mount#} for fd={fd#} path={path}"],
        "Descriptor {fd} ({path}) is on a mount that the tree's mount namespace does not have: opened in another namespace, \
         unmounted since, or a POSIX message queue.",
        "Let the program close it before the dump, or leave it to the restore: --external 'file[{mount}:INODE]' and an \
         inherited descriptor.",
    ),
];
