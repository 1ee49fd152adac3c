//! The kinds of image files: their names, magics and limits.

/// How the number in a file's name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// There is none.
    No,
    /// Decimal.
    Dec,
    /// Lower-case hexadecimal.
    Hex,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $stem:literal $number:ident $magic:literal $limit:literal;)*) => {
        /// A kind of image file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind that this crate knows.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// The second word of such a file (the only one of an inventory).
            pub const fn magic(self) -> u32 {
                match self { $(Kind::$kind => $magic,)* }
            }

            /// The name of such a file without its number and `.img`.
            pub const fn stem(self) -> &'static str {
                match self { $(Kind::$kind => $stem,)* }
            }

            /// The largest record that is read, in bytes.
            pub const fn record_limit(self) -> u32 {
                match self { $(Kind::$kind => $limit << 20,)* }
            }

            pub(crate) const fn number(self) -> Number {
                match self { $(Kind::$kind => Number::$number,)* }
            }
        }
    };
}

kinds! {
    /// `inventory.img`: what kind of set this is; written last.
    Inventory "inventory" No 0x5831_3116 1;
    /// `pstree.img`: the tasks.
    Pstree "pstree" No 0x5027_3030 4;
    /// `core-TID.img`: state, credentials and registers of a thread.
    Core "core" Dec 0x5505_3847 4;
    /// `ids-PID.img`: the kernel objects and namespaces of a task.
    Ids "ids" Dec 0x5443_2030 1;
    /// `fdinfo-FILESID.img`: a table of descriptors.
    Descriptors "fdinfo" Dec 0x5621_3732 1;
    /// `files.img`: every open or mapped file.
    Files "files" No 0x5630_3138 1;
    /// `mm-PID.img`: an address space.
    Memory "mm" Dec 0x5749_2820 64;
    /// `pagemap-shmem-ID.img`: which pages of shared memory are stored, and where.
    SharedPagemap "pagemap-shmem" Dec 0x5608_4025 1;
    /// `pagemap-PID.img`: which pages of a task are stored, and where.
    Pagemap "pagemap" Dec 0x5608_4025 1;
    /// `fs-PID.img`: current and root directory, umask.
    Directories "fs" Dec 0x5140_3912 1;
    /// `remap-fpath.img`: files without their path.
    Remaps "remap-fpath" No 0x5913_3954 1;
    /// `ghost-file-ID.img`: the content of a deleted file.
    Ghost "ghost-file" Hex 0x5258_3605 1;
    /// `memfd.img`: inodes of memfd_create(2).
    Memfds "memfd" No 0x4845_3499 1;
    /// `tcp-stream-INODE.img`: the queues of a TCP connection.
    TcpStream "tcp-stream" Hex 0x5146_5506 1;
    /// `filelocks.img`: locks held.
    Locks "filelocks" No 0x5432_3616 1;
    /// `cgroup.img`: sets of cgroups, and the cgroups to make.
    Cgroups "cgroup" No 0x5938_3330 16;
    /// `tty-info.img`: terminals.
    Terminals "tty-info" No 0x5945_3036 1;
    /// `pipes-data.img`: what was in pipes.
    PipeData "pipes-data" No 0x5645_3709 1;
    /// `fifo-data.img`: what was in named pipes.
    FifoData "fifo-data" No 0x5933_3054 1;
    /// `sk-queues.img`: what was in unix and UDP sockets.
    SocketQueues "sk-queues" No 0x5626_4026 1;
    /// `stats-dump`: times and page counts of a dump.
    DumpStatistics "stats-dump" No 0x5709_3306 1;
    /// `stats-restore`: times and page counts of a restore.
    RestoreStatistics "stats-restore" No 0x5709_3306 1;
    /// `seccomp.img`: filters.
    Seccomp "seccomp" No 0x6441_3049 64;
    /// `mountpoints-ID.img`: the mounts of a mount namespace.
    Mounts "mountpoints" Dec 0x5556_3928 4;
    /// `utsns-ID.img`: host and domain name.
    Uts "utsns" Dec 0x5447_3203 1;
    /// `ipcns-shm-ID.img`: the System V shared memory of an IPC namespace.
    IpcSharedMemory "ipcns-shm" Dec 0x4628_3044 1;
    /// `timens-ID.img`: clock offsets.
    TimeNamespace "timens" Dec 0x4311_4433 1;
    /// `userns-ID.img`: id maps.
    UserNamespace "userns" Dec 0x5547_4906 4;
    /// `netns-ID.img`: settings of a network namespace.
    NetNamespace "netns" Dec 0x5593_3752 16;
    /// `netdev-ID.img`: network devices.
    NetDevices "netdev" Dec 0x5737_3951 16;
    /// `cpuinfo.img`: the processor that the tasks may rely on.
    Cpu "cpuinfo" No 0x6140_4013 1;
    /// `apparmor.img`: profiles.
    AppArmor "apparmor" No 0x5942_3047 64;
}

/// The first word of every image but the inventory.
pub(crate) const COMMON_MAGIC: u32 = 0x5456_4319;
/// The first word of statistics.
pub(crate) const SERVICE_MAGIC: u32 = 0x5510_5940;

impl Kind {
    /// The name of the file of this kind with the number `id`, which counts for nothing where there is only one such file.
    pub fn file_name(self, id: u32) -> String {
        let stem = self.stem();
        match (self.number(), self.is_service()) {
            (_, true) => stem.to_owned(),
            (Number::No, _) => format!("{stem}.img"),
            (Number::Dec, _) => format!("{stem}-{id}.img"),
            (Number::Hex, _) => format!("{stem}-{id:x}.img"),
        }
    }

    /// The kind of the file called `name`, and its number (0 where there is none). `None` for pages, raw images, kinds that
    /// this crate does not know and files that are no images.
    pub fn of(name: &str) -> Option<(Kind, u32)> {
        if let Some(service) = Self::ALL.iter().find(|kind| kind.is_service() && kind.stem() == name) {
            return Some((*service, 0));
        }
        let name = name.strip_suffix(".img")?;
        let found = Self::ALL.iter().find_map(|&kind| {
            let rest = name.strip_prefix(kind.stem())?;
            let radix = match kind.number() {
                Number::No => return rest.is_empty().then_some((kind, 0)),
                Number::Dec => 10,
                Number::Hex => 16,
            };
            Some((kind, u32::from_str_radix(rest.strip_prefix('-')?, radix).ok()?))
        });
        found.filter(|(kind, id)| !kind.is_service() && kind.file_name(*id).strip_suffix(".img") == Some(name))
    }

    /// Whether the first word is the service magic and the name ends without `.img`.
    pub(crate) const fn is_service(self) -> bool {
        matches!(self, Self::DumpStatistics | Self::RestoreStatistics)
    }

    /// The magic words that a file of this kind begins with.
    pub(crate) const fn header(self) -> [Option<u32>; 2] {
        match self {
            Self::Inventory => [Some(self.magic()), None],
            _ if self.is_service() => [Some(SERVICE_MAGIC), Some(self.magic())],
            _ => [Some(COMMON_MAGIC), Some(self.magic())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_kind() {
        for &kind in Kind::ALL {
            let id = if kind.number() == Number::No { 0 } else { 0xabc };
            assert_eq!(Kind::of(&kind.file_name(id)), Some((kind, id)));
        }
    }

    #[test]
    fn names_that_criu_does_not_write_have_no_kind() {
        for name in
            ["pages-1.img", "core-.img", "core-+1.img", "core-01.img", "core-1", "stats-dump.img", "crr.json", ""]
        {
            assert_eq!(Kind::of(name), None, "{name}");
        }
    }
}
