//! Every file that CRIU 4.2 writes among images, and how a policy that restricts treats it.

use crate::images::Kind;

/// How the number in a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    None,
    Dec,
    Hex,
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Each record is decoded whole, and what gives power is compared with the policy.
    Judged(Kind),
    /// Each record is decoded whole; none of it gives power, for this reason.
    Decoded(Kind, &'static str),
    /// Bytes that only the restored tasks see.
    Content,
    /// Judged, and allowed only with this namespace.
    Namespace(Kind, &'static str),
    /// Only an unrestricted peer may send it, for this reason.
    Refused(&'static str),
}

/// One kind of file.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) stem: &'static str,
    pub(super) number: Number,
    pub(super) suffix: &'static str,
    /// CRIU's name for its magic, empty for a file without one.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the tests and whoever reads the table"))]
    pub(super) magic: &'static str,
    pub(super) treatment: Treatment,
}

const fn row(stem: &'static str, number: Number, magic: &'static str, treatment: Treatment) -> Row {
    Row { stem, number, suffix: ".img", magic, treatment }
}

const OLD: Treatment = Treatment::Refused("a format of old, which CRIU 4.2 still reads: what it says is not judged");
const MOUNTS: Treatment = Treatment::Refused("who brings mounts can mount any device and directory");
const NETWORK: Treatment = Treatment::Refused("it is fed to ip, iptables or nft, run as root");
const IPC: Treatment = Treatment::Refused("an IPC namespace is not judged");

use Number::{Dec, Hex, None as No};
use Treatment::{Content, Decoded, Judged, Namespace, Refused};

/// The table of the documentation.
pub(super) static KINDS: &[Row] = &[
    row("inventory", No, "INVENTORY", Judged(Kind::Inventory)),
    row("pstree", No, "PSTREE", Judged(Kind::Pstree)),
    row("core", Dec, "CORE", Judged(Kind::Core)),
    row("ids", Dec, "IDS", Judged(Kind::Ids)),
    row("fdinfo", Dec, "FDINFO", Judged(Kind::Descriptors)),
    row("files", No, "FILES", Judged(Kind::Files)),
    row("mm", Dec, "MM", Judged(Kind::Memory)),
    row("fs", Dec, "FS", Judged(Kind::Directories)),
    row("remap-fpath", No, "REMAP_FPATH", Judged(Kind::Remaps)),
    row("ghost-file", Hex, "GHOST_FILE", Judged(Kind::Ghost)),
    row("memfd", No, "MEMFD_INODE", Judged(Kind::Memfds)),
    row("tty-info", No, "TTY_INFO", Judged(Kind::Terminals)),
    row("cgroup", No, "CGROUP", Judged(Kind::Cgroups)),
    row("seccomp", No, "SECCOMP", Judged(Kind::Seccomp)),
    row("utsns", Dec, "UTSNS", Namespace(Kind::Uts, "uts")),
    row("pagemap", Dec, "PAGEMAP", Decoded(Kind::Pagemap, "where a task's own memory lies")),
    row("pagemap-shmem", Dec, "PAGEMAP", Decoded(Kind::SharedPagemap, "where memory that tasks share lies")),
    row("tcp-stream", Hex, "TCP_STREAM", Decoded(Kind::TcpStream, "queues of a socket, which files.img has judged")),
    row("filelocks", No, "FILE_LOCKS", Decoded(Kind::Locks, "locks on files that are judged")),
    row("pipes-data", No, "PIPES_DATA", Decoded(Kind::PipeData, "what is in pipes")),
    row("fifo-data", No, "FIFO_DATA", Decoded(Kind::FifoData, "what is in named pipes")),
    row(
        "sk-queues",
        No,
        "SK_QUEUES",
        Decoded(Kind::SocketQueues, "what is in sockets, files that are judged included"),
    ),
    row("timens", Dec, "TIMENS", Decoded(Kind::TimeNamespace, "how far the tasks' clocks are from the host's")),
    row("cpuinfo", No, "CPUINFO", Decoded(Kind::Cpu, "what is compared with this host's processor")),
    Row { suffix: "", ..row("stats-dump", No, "STATS", Decoded(Kind::DumpStatistics, "no restore reads it")) },
    row("pages", Dec, "", Content),
    row("apparmor", No, "APPARMOR", Refused("it loads profiles into the kernel")),
    row("bpfmap-file", No, "BPFMAP_FILE", OLD),
    row("bpfmap-data", No, "BPFMAP_DATA", Refused("BPF maps are not judged")),
    row("tty-data", No, "TTY_DATA", Refused("it is written to terminals")),
    row("pidfd", No, "PIDFD", OLD),
    row("userns", Dec, "USERNS", Refused("a user namespace gives its root what it maps")),
    row("pidns", Dec, "PIDNS", Refused("it names a PID namespace of the host")),
    row("mountpoints", Dec, "MNTS", MOUNTS),
    Row { suffix: ".tar.gz.img", ..row("tmpfs", Dec, "", MOUNTS) },
    Row { suffix: ".tar.gz.img", ..row("tmpfs-dev", Dec, "", MOUNTS) },
    row("autofs", Dec, "AUTOFS", MOUNTS),
    row("binfmt-misc", No, "BINFMT_MISC", Refused("it says what the kernel runs for which file")),
    row("binfmt-misc", Dec, "BINFMT_MISC", Refused("it says what the kernel runs for which file")),
    row("netns", Dec, "NETNS", NETWORK),
    row("netdev", Dec, "NETDEV", NETWORK),
    row("ifaddr", Dec, "", NETWORK),
    row("route", Dec, "", NETWORK),
    row("route6", Dec, "", NETWORK),
    row("rule", Dec, "", NETWORK),
    row("iptables", Dec, "", NETWORK),
    row("ip6tables", Dec, "", NETWORK),
    row("nftables", Dec, "", NETWORK),
    row("netns-ct", Dec, "", NETWORK),
    row("netns-exp", Dec, "", NETWORK),
    row("ipcns-var", Dec, "IPC_VAR", IPC),
    row("ipcns-shm", Dec, "IPCNS_SHM", IPC),
    row("ipcns-msg", Dec, "IPCNS_MSG", IPC),
    row("ipcns-sem", Dec, "IPCNS_SEM", IPC),
    row("reg-files", No, "REG_FILES", OLD),
    row("ext-files", No, "EXT_FILES", OLD),
    row("ns-files", No, "NS_FILES", OLD),
    row("eventfd", No, "EVENTFD_FILE", OLD),
    row("eventpoll", No, "EVENTPOLL_FILE", OLD),
    row("eventpoll-tfd", No, "EVENTPOLL_TFD", OLD),
    row("signalfd", No, "SIGNALFD", OLD),
    row("timerfd", No, "TIMERFD", OLD),
    row("inotify", No, "INOTIFY_FILE", OLD),
    row("inotify-wd", No, "INOTIFY_WD", OLD),
    row("fanotify", No, "FANOTIFY_FILE", OLD),
    row("fanotify-mark", No, "FANOTIFY_MARK", OLD),
    row("tunfile", No, "TUNFILE", OLD),
    row("tty", No, "TTY_FILES", OLD),
    row("pipes", No, "PIPES", OLD),
    row("fifo", No, "FIFO", OLD),
    row("unixsk", No, "UNIXSK", OLD),
    row("inetsk", No, "INETSK", OLD),
    row("packetsk", No, "PACKETSK", OLD),
    row("netlinksk", No, "NETLINK_SK", OLD),
    row("vmas", Dec, "VMAS", OLD),
    row("creds", Dec, "CREDS", OLD),
    row("sigacts", Dec, "SIGACT", OLD),
    row("signal-s", Dec, "SIGNAL", OLD),
    row("signal-p", Dec, "SIGNAL", OLD),
    row("itimers", Dec, "ITIMERS", OLD),
    row("posix-timers", Dec, "POSIX_TIMERS", OLD),
    row("rlimit", Dec, "RLIMIT", OLD),
    row("pages-shmem", Dec, "", OLD),
    Row { suffix: "", ..row("stats-restore", No, "STATS", Refused("only a restore writes it")) },
    Row { suffix: "", ..row("irmap-cache", No, "IRMAP_CACHE", Refused("it says where inodes have their paths")) },
    Row { suffix: "", ..row("parent", No, "", Refused("images below it would have to be judged, too")) },
    Row {
        suffix: ".json",
        ..row("crr", No, "", Refused("what crr has recorded is not judged; it travels beside the images"))
    },
];

/// The row of a file and the number in its name; `None` for a name that CRIU does not write.
pub(super) fn of(name: &str) -> Option<(&'static Row, u32)> {
    KINDS.iter().find_map(|row| {
        let rest = name.strip_prefix(row.stem)?.strip_suffix(row.suffix)?;
        let number = match row.number {
            Number::None => return rest.is_empty().then_some((row, 0)),
            Number::Dec => rest.strip_prefix('-')?.parse().ok()?,
            Number::Hex => u32::from_str_radix(rest.strip_prefix('-')?, 16).ok()?,
        };
        // No second spelling of a number, such as 01 or +1.
        let written = if row.number == Number::Hex { format!("-{number:x}") } else { format!("-{number}") };
        (rest == written).then_some((row, number))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names and numbers of CRIU 4.2.1's magics (pycriu/images/magic.py).
    const MAGICS: &str = include_str!("magics.txt");
    /// Magics that no file is found by: what comes before another, and CRIU's own cache outside the images.
    const NO_FILE: [&str; 4] = ["CRTOOLS_IMAGES_V1_1", "IMG_COMMON", "IMG_SERVICE", "KDAT"];

    #[test]
    fn no_magic_of_criu_is_forgotten() {
        let rows: BTreeSet<&str> = KINDS.iter().map(|row| row.magic).filter(|magic| !magic.is_empty()).collect();
        let known: BTreeSet<&str> =
            MAGICS.lines().map(|line| line.split(' ').next().unwrap_or_default()).chain([]).collect();
        let expected: BTreeSet<&str> = known.into_iter().filter(|magic| !NO_FILE.contains(magic)).collect();
        assert_eq!(rows, expected);
        assert_eq!(expected.len(), 68);
    }

    #[test]
    fn the_documentation_has_every_kind() {
        let table = include_str!("../../../doc/images.md");
        let mut expected = Vec::new();
        for Row { stem, number, suffix, treatment, .. } in KINDS {
            let number = match number {
                Number::None => "",
                Number::Dec => "-N",
                Number::Hex => "-X",
            };
            let treatment = match treatment {
                Judged(_) => "judged".to_owned(),
                Decoded(_, why) => format!("decoded: {why}"),
                Content => "not looked at: memory of the tasks".to_owned(),
                Namespace(_, name) => format!("judged, and refused without `namespaces = [\"{name}\"]`"),
                Refused(why) => format!("refused: {why}"),
            };
            expected.push(format!("| `{stem}{number}{suffix}` | {treatment} |"));
        }
        let found: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_decoded_is_decoded_as_what_it_is() {
        let numbers: std::collections::HashMap<&str, u32> = MAGICS
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, number)| (name, number.parse().expect("a number")))
            .collect();
        for row in KINDS {
            let (Judged(kind) | Decoded(kind, _) | Namespace(kind, _)) = row.treatment else { continue };
            assert_eq!(kind.magic(), numbers[row.magic], "{}", row.stem);
            let name = kind.file_name(0xabc);
            assert_eq!(of(&name).expect("known").0.stem, row.stem, "{name}");
            assert_eq!(Kind::of(&name).expect("known").0, kind, "{name}");
        }
    }

    #[test]
    fn every_name_leads_to_one_row() {
        for row in KINDS {
            let number = match row.number {
                Number::None => "",
                Number::Dec => "-12",
                Number::Hex => "-c",
            };
            let name = format!("{}{number}{}", row.stem, row.suffix);
            let (found, number) = of(&name).expect("known");
            assert!(std::ptr::eq(found, row), "{name}");
            assert_eq!(number, if row.number == Number::None { 0 } else { 12 });
        }
        for name in [
            "core-01.img",
            "core-+1.img",
            "core-.img",
            "core.img",
            "core-1",
            "Core-1.img",
            "ghost-file-C.img",
            "x.img",
            "",
        ] {
            assert!(of(name).is_none(), "{name}");
        }
    }
}
