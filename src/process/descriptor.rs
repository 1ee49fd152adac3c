//! The open descriptors of a task: /proc/PID/fd and /proc/PID/fdinfo.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::lines::{Lines, decimal, hexadecimal, words};
use super::mount::device_number;
use super::namespace::parse_link;

/// What a descriptor refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link itself (opened with O_PATH).
    Symlink,
    /// A named pipe.
    Fifo,
    /// A pipe without a name.
    Pipe,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// An object of the kernel, by the name that the link has: `eventfd`, `[io_uring]`…
    Anonymous(String),
    /// Memory with a descriptor.
    Memfd,
    /// A namespace, by the kind in the link.
    Namespace(String),
    /// Anything else.
    Unknown,
}

/// What `stat` says of an open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStatus {
    /// The filesystem.
    pub device: u64,
    /// The file.
    pub inode: u64,
    /// The mount that it was found on.
    pub mount: i32,
    /// The device that a device file names.
    pub special_device: u64,
    /// Type and permissions.
    pub mode: u32,
    /// How many names it has; 0 when all are gone.
    pub links: u64,
    /// Its length.
    pub size_bytes: u64,
    /// What it takes on disk.
    pub allocated_bytes: u64,
}

impl FileStatus {
    /// The status of the file that `path` leads to, through the magic links of /proc as well.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::ask(path, false)
    }

    /// The status of `path` itself, if it is a symbolic link.
    pub fn read_link(path: &Path) -> io::Result<Self> {
        Self::ask(path, true)
    }

    fn ask(path: &Path, itself: bool) -> io::Result<Self> {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let found = super::foreign::status(&path, itself)?;
        Ok(Self {
            device: device_number(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            mount: i32::try_from(found.stx_mnt_id).unwrap_or(-1),
            special_device: device_number(found.stx_rdev_major, found.stx_rdev_minor),
            mode: found.stx_mode.into(),
            links: found.stx_nlink.into(),
            size_bytes: found.stx_size,
            allocated_bytes: found.stx_blocks.saturating_mul(512),
        })
    }

    /// The file type bits of the mode.
    pub fn file_type(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// The kinds of file lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// `fcntl(F_SETLK)`, held by the process.
    Posix,
    /// `flock`, held by the open file.
    Flock,
    /// `fcntl(F_OFD_SETLK)`, held by the open file.
    OpenFile,
    /// `fcntl(F_SETLEASE)`.
    Lease,
    /// A kind that crr and CRIU do not know.
    Other,
}

/// A lock that a descriptor holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Which kind.
    pub kind: LockKind,
    /// Whether it excludes readers as well.
    pub exclusive: bool,
    /// The process that took it, as the kernel lists it.
    pub owner: i32,
}

/// A descriptor that an epoll instance watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollTarget {
    /// Its number when it was added.
    pub fd: i32,
    /// The inode of the file.
    pub inode: u64,
}

/// A file or directory that an inotify instance watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The inode.
    pub inode: u64,
    /// The device, as `stat` gives it.
    pub device: u64,
}

/// What fdinfo tells about certain kinds of descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// Nothing more.
    #[default]
    None,
    /// What an epoll instance watches.
    Epoll(Vec<EpollTarget>),
    /// What an inotify instance watches.
    Inotify(Vec<Watch>),
    /// How many marks a fanotify group has.
    Fanotify(u32),
    /// The process that a pidfd names; -1 when it is dead.
    Pidfd(i32),
    /// The number of the pseudo-terminal that this master belongs to.
    PtyMaster(u32),
    /// The clock of a timer.
    Timer(i32),
}

/// One open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub fd: i32,
    /// What it refers to.
    pub kind: Kind,
    /// The file, without the kernel's ` (deleted)`; or the link's own text (`pipe:[77]`).
    pub path: PathBuf,
    /// Whether the name it was opened by is gone.
    pub deleted: bool,
    /// The O_ flags.
    pub flags: u32,
    /// The mount it was opened on.
    pub mount: i32,
    /// The inode of a pipe, socket, namespace, epoll instance (which all objects without a name share) or pidfd; of a file
    /// see `status`.
    pub inode: u64,
    /// What `stat` says, of what has a name.
    pub status: Option<FileStatus>,
    /// The locks it holds.
    pub locks: Vec<Lock>,
    /// What is known about certain kinds.
    pub extra: Extra,
}

/// How often a descriptor that changes is looked at anew.
const LOOKS: u32 = 8;

impl Descriptor {
    /// Whether it was opened for reading.
    pub fn reads(&self) -> bool {
        self.flags & (libc::O_ACCMODE as u32) != libc::O_WRONLY as u32
    }

    /// Whether it was opened for writing.
    pub fn writes(&self) -> bool {
        self.flags & (libc::O_ACCMODE as u32) != libc::O_RDONLY as u32
    }

    /// Reads descriptor `fd` of the task whose directory is `task`; `None` when it is closed by now.
    pub(super) fn read(task: &Path, fd: i32, lines: &mut Lines) -> Option<Self> {
        let link_path = task.join(format!("fd/{fd}"));
        let mut looks = 0;
        loop {
            let link = fs::read_link(&link_path).ok()?;
            let descriptor = Self::look(task, fd, &link_path, &link, lines)?;
            looks += 1;
            // It may come to be another file from one look to the next: a shell does that at every redirection.
            if looks == LOOKS || fs::read_link(&link_path).is_ok_and(|again| again == link) {
                return Some(descriptor);
            }
        }
    }

    fn look(task: &Path, fd: i32, link_path: &Path, link: &Path, lines: &mut Lines) -> Option<Self> {
        let mut descriptor = Self::from_link(fd, link.as_os_str().as_bytes());
        // The size of what has no name is of no interest, and a stat of it one system call more for each descriptor.
        if matches!(descriptor.kind, Kind::Unknown | Kind::Memfd) {
            descriptor.status = match FileStatus::read(link_path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                status => status.ok(),
            };
            descriptor.settle();
        }
        // An epoll instance names what it watches by inode, and a pidfd has one of its own.
        if matches!(&descriptor.kind, Kind::Anonymous(name) if name == "eventpoll" || name == "pidfd") {
            descriptor.inode = FileStatus::read(link_path).map_or(0, |status| status.inode);
        }
        let taken = lines.each(task.join(format!("fdinfo/{fd}")), |line| descriptor.take(line));
        taken.ok()?;
        Some(descriptor)
    }

    fn from_link(fd: i32, link: &[u8]) -> Self {
        let stripped = link.strip_suffix(b" (deleted)");
        let name = stripped.unwrap_or(link);
        let text = String::from_utf8_lossy(name);
        let (kind, inode) = if name.starts_with(b"/memfd:") {
            (Kind::Memfd, 0)
        } else if name.starts_with(b"/") {
            (Kind::Unknown, 0)
        } else if let Some(rest) = text.strip_prefix("anon_inode:") {
            (Kind::Anonymous(rest.trim_matches(['[', ']']).to_owned()), 0)
        } else {
            match parse_link(&text) {
                Some(("socket", inode)) => (Kind::Socket, inode),
                Some(("pipe", inode)) => (Kind::Pipe, inode),
                Some((kind, inode)) => (Kind::Namespace(kind.to_owned()), inode),
                None => (Kind::Anonymous(text.into_owned()), 0),
            }
        };
        Self {
            fd,
            kind,
            path: PathBuf::from(OsStr::from_bytes(name)),
            deleted: stripped.is_some(),
            flags: 0,
            mount: -1,
            inode,
            status: None,
            locks: Vec::new(),
            extra: Extra::None,
        }
    }

    /// Gives a named file its kind, and a name that really ends in ` (deleted)` back its end.
    fn settle(&mut self) {
        let Some(status) = self.status else { return };
        if self.kind == Kind::Unknown {
            self.kind = match status.file_type() {
                libc::S_IFREG => Kind::Regular,
                libc::S_IFDIR => Kind::Directory,
                libc::S_IFLNK => Kind::Symlink,
                libc::S_IFIFO => Kind::Fifo,
                libc::S_IFCHR => Kind::CharacterDevice,
                libc::S_IFBLK => Kind::BlockDevice,
                _ => Kind::Unknown,
            };
        }
        if self.deleted && status.links > 0 && self.kind != Kind::Memfd {
            let mut whole = self.path.clone().into_os_string().into_vec();
            whole.extend_from_slice(b" (deleted)");
            let whole = PathBuf::from(std::ffi::OsString::from_vec(whole));
            if FileStatus::read_link(&whole)
                .is_ok_and(|found| (found.device, found.inode) == (status.device, status.inode))
            {
                self.path = whole;
                self.deleted = false;
            }
        }
    }

    /// Takes one line of fdinfo.
    fn take(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            self.take_watch(line);
            return;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        match name {
            b"flags" => {
                let octal = std::str::from_utf8(value.trim_ascii()).ok();
                self.flags = octal.and_then(|text| u32::from_str_radix(text, 8).ok()).unwrap_or(0);
            }
            b"mnt_id" => self.mount = decimal(value).unwrap_or(-1),
            b"lock" => self.locks.extend(parse_lock(value)),
            b"tfd" => {
                let target = parse_epoll(value);
                match &mut self.extra {
                    Extra::Epoll(targets) => targets.extend(target),
                    extra => *extra = Extra::Epoll(target.into_iter().collect()),
                }
            }
            b"Pid" => self.extra = Extra::Pidfd(decimal(value).unwrap_or(-1)),
            b"tty-index" => self.extra = decimal(value).map_or(Extra::None, Extra::PtyMaster),
            b"clockid" => self.extra = decimal(value).map_or(Extra::None, Extra::Timer),
            _ => self.take_watch(line),
        }
    }

    /// `inotify wd:1 ino:9e7e sdev:800013 mask:800afce …` and `fanotify ino:… sdev:… …`.
    fn take_watch(&mut self, line: &[u8]) {
        if line.starts_with(b"inotify wd:") {
            // The kernel prints its own form of a device number, with 20 bits for the minor.
            let device = keyed(line, b"sdev:").unwrap_or(0);
            let device = device_number((device >> 20) as u32 & 0xfff, device as u32 & 0xf_ffff);
            let watch = Watch { inode: keyed(line, b"ino:").unwrap_or(0), device };
            match &mut self.extra {
                Extra::Inotify(watches) => watches.push(watch),
                extra => *extra = Extra::Inotify(vec![watch]),
            }
        } else if line.starts_with(b"fanotify ino:") || line.starts_with(b"fanotify mnt_id:") {
            match &mut self.extra {
                Extra::Fanotify(marks) => *marks = marks.saturating_add(1),
                extra => *extra = Extra::Fanotify(1),
            }
        }
    }
}

/// The hexadecimal value behind `key` in a line of `key:value` words.
fn keyed(line: &[u8], key: &[u8]) -> Option<u64> {
    words(line).find_map(|word| word.strip_prefix(key)).and_then(hexadecimal)
}

/// `1: POSIX  ADVISORY  WRITE 812 fe:00:42 0 EOF`.
fn parse_lock(value: &[u8]) -> Option<Lock> {
    let mut fields = words(value);
    fields.next()?;
    let kind = match fields.next()? {
        b"POSIX" => LockKind::Posix,
        b"FLOCK" => LockKind::Flock,
        b"OFDLCK" => LockKind::OpenFile,
        b"LEASE" => LockKind::Lease,
        _ => LockKind::Other,
    };
    fields.next()?;
    let exclusive = fields.next()? == b"WRITE";
    Some(Lock { kind, exclusive, owner: fields.next().and_then(decimal).unwrap_or(0) })
}

/// `        5 events:       19 data:                5  pos:0 ino:2a1 sdev:9`.
fn parse_epoll(value: &[u8]) -> Option<EpollTarget> {
    let fd = words(value).next().and_then(decimal)?;
    let inode = keyed(value, b"ino:")?;
    Some(EpollTarget { fd, inode })
}

/// The descriptors of the task whose directory is `task`, in the order of their numbers.
pub(super) fn read_all(task: &Path, lines: &mut Lines) -> io::Result<Vec<Descriptor>> {
    let mut numbers: Vec<i32> =
        fs::read_dir(task.join("fd"))?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers.into_iter().filter_map(|fd| Descriptor::read(task, fd, lines)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(link: &str, fdinfo: &str) -> Descriptor {
        let mut descriptor = Descriptor::from_link(3, link.as_bytes());
        fdinfo.lines().for_each(|line| descriptor.take(line.as_bytes()));
        descriptor
    }

    #[test]
    fn links_tell_the_kinds_apart() {
        let table = [
            ("socket:[77]", Kind::Socket, 77),
            ("pipe:[78]", Kind::Pipe, 78),
            ("net:[79]", Kind::Namespace("net".into()), 79),
            ("anon_inode:[eventpoll]", Kind::Anonymous("eventpoll".into()), 0),
            ("anon_inode:inotify", Kind::Anonymous("inotify".into()), 0),
            ("anon_inode:[perf_event]", Kind::Anonymous("perf_event".into()), 0),
            ("/memfd:name (deleted)", Kind::Memfd, 0),
            ("/etc/passwd", Kind::Unknown, 0),
            ("odd", Kind::Anonymous("odd".into()), 0),
        ];
        for (link, kind, inode) in table {
            let found = descriptor(link, "");
            assert_eq!((&found.kind, found.inode), (&kind, inode), "{link}");
        }
    }

    #[test]
    fn a_deleted_file_keeps_its_name() {
        let found = descriptor("/tmp/a b (deleted)", "");
        assert!(found.deleted);
        assert_eq!(found.path, Path::new("/tmp/a b"));
    }

    #[test]
    fn flags_mount_and_locks_are_read() {
        let found = descriptor(
            "/x",
            "pos:\t0\nflags:\t0102001\nmnt_id:\t27\nlock:\t1: POSIX  ADVISORY  WRITE 812 fe:00:42 0 EOF\n\
             lock:\t2: FLOCK  ADVISORY  READ 812 fe:00:42 0 EOF\nlock:\t3: LEASE  ACTIVE    READ 812 fe:00:42 0 EOF\n\
             lock:\t4: OFDLCK ADVISORY  WRITE -1 fe:00:42 0 EOF",
        );
        assert!(found.writes() && !found.reads());
        assert_eq!(found.mount, 27);
        let kinds: Vec<_> = found.locks.iter().map(|lock| (lock.kind, lock.exclusive, lock.owner)).collect();
        assert_eq!(
            kinds,
            [
                (LockKind::Posix, true, 812),
                (LockKind::Flock, false, 812),
                (LockKind::Lease, false, 812),
                (LockKind::OpenFile, true, -1)
            ]
        );
    }

    #[test]
    fn the_extras_of_each_kind_are_read() {
        let table = [
            (
                "tfd:        5 events:       19 data:                5  pos:0 ino:2a1 sdev:9\ntfd: 6 events: 19 data: 6 pos:0 ino:2a2 sdev:9",
                Extra::Epoll(vec![EpollTarget { fd: 5, inode: 0x2a1 }, EpollTarget { fd: 6, inode: 0x2a2 }]),
            ),
            (
                "inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d",
                Extra::Inotify(vec![Watch { inode: 0x9e7e, device: device_number(8, 0x13) }]),
            ),
            ("fanotify flags:10 event-flags:0\nfanotify ino:4f969 sdev:800013 mflags:0 mask:3b", Extra::Fanotify(1)),
            ("Pid:\t812\nNSpid:\t812", Extra::Pidfd(812)),
            ("tty-index:\t4", Extra::PtyMaster(4)),
            ("clockid: 9\nticks: 0", Extra::Timer(9)),
            ("eventfd-count: 0", Extra::None),
        ];
        for (fdinfo, extra) in table {
            assert_eq!(descriptor("anon_inode:[x]", fdinfo).extra, extra, "{fdinfo}");
        }
    }

    #[test]
    fn the_descriptors_of_this_process_are_found() {
        let file = tempfile::tempfile().expect("a temporary file");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let all = read_all(Path::new("/proc/self"), &mut Lines::new()).expect("our own descriptors");
        let found = all.iter().find(|descriptor| descriptor.fd == fd).expect("the open file");
        assert_eq!(found.kind, Kind::Regular);
        assert_eq!(found.status.map(|status| status.links), Some(0));
        assert!(found.deleted && found.reads() && found.writes());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(link in proptest::collection::vec(any::<u8>(), 0..60),
                                           line in "(tfd|lock|flags|Pid|inotify wd|tty-index)?:?[\\PC ]{0,60}") {
            let mut descriptor = Descriptor::from_link(3, &link);
            descriptor.take(line.as_bytes());
        }
    }
}
