//! `files.img`, `fdinfo-FILESID.img`, `memfd.img` and `tty-info.img`: what is open.

use std::ffi::OsString;
use std::path::PathBuf;

use super::name;
use super::record::Record;
use super::socket::{InetSocket, NetlinkSocket, PacketSocket, UnixSocket};
use crate::proto::images::{fdinfo as proto, memfd, ns, pipe, regfile, tty};

macro_rules! file_types {
    ($($(#[$doc:meta])* $name:ident $number:literal,)*) => {
        /// What kind of file a descriptor refers to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FileType {
            $($(#[$doc])* $name,)*
            /// A number unknown to this version.
            Other(i32),
        }

        impl FileType {
            fn from_number(number: i32) -> Self {
                match number { $($number => Self::$name,)* other => Self::Other(other) }
            }
        }
    };
}

file_types! {
    /// A file with a path, or a directory or device.
    Regular 1,
    /// A pipe.
    Pipe 2,
    /// A named pipe.
    Fifo 3,
    /// A TCP, UDP, ICMP or raw socket.
    Inet 4,
    /// A unix socket.
    Unix 5,
    /// eventfd(2).
    Eventfd 6,
    /// epoll(7).
    Eventpoll 7,
    /// inotify(7).
    Inotify 8,
    /// signalfd(2).
    Signalfd 9,
    /// A packet socket.
    Packet 10,
    /// A terminal.
    Terminal 11,
    /// fanotify(7).
    Fanotify 12,
    /// A netlink socket.
    Netlink 13,
    /// A namespace (`/proc/PID/ns/NAME`).
    Namespace 14,
    /// A tun or tap device.
    Tun 15,
    /// What a CRIU plugin dumped.
    External 16,
    /// timerfd_create(2).
    Timerfd 17,
    /// memfd_create(2).
    Memfd 18,
    /// A BPF map.
    BpfMap 19,
    /// pidfd_open(2).
    Pidfd 20,
}

/// A descriptor of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// Its number.
    pub fd: u32,
    /// Which [`OpenFile`] it is.
    pub file: u32,
    /// The kind of that file.
    pub file_type: FileType,
    /// Whether execve(2) closes it.
    pub close_on_exec: bool,
}

impl Record for Descriptor {
    type Message = proto::Fdinfo_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            fd: message.fd(),
            file: message.id(),
            file_type: FileType::from_number(message.type_.map_or(0, |kind| kind.value())),
            close_on_exec: message.flags() & libc::FD_CLOEXEC as u32 != 0,
        })
    }
}

/// An open file, once however many descriptors refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenFile {
    /// What descriptors, mappings, directories and remaps name it by.
    pub id: u32,
    /// Its kind.
    pub file_type: FileType,
    /// What it is.
    pub object: Object,
}

/// What an [`OpenFile`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// A file with a path.
    Regular(RegularFile),
    /// A TCP, UDP, ICMP or raw socket.
    Inet(InetSocket),
    /// A unix socket.
    Unix(UnixSocket),
    /// A packet socket.
    Packet(PacketSocket),
    /// A netlink socket.
    Netlink(NetlinkSocket),
    /// One end of a pipe.
    Pipe(Pipe),
    /// A named pipe; its path is in the regular file with the id `path`.
    Fifo {
        /// The same for all descriptors of this pipe.
        pipe: u32,
        /// The [`OpenFile`] with its path.
        path: Option<u32>,
    },
    /// A terminal.
    Terminal(TerminalFile),
    /// memfd_create(2).
    Memfd(MemfdFile),
    /// A namespace.
    Namespace(NamespaceFile),
    /// pidfd_open(2) of the task with this PID, -1 when it has ended.
    Pidfd(i32),
    /// What only [`OpenFile::file_type`] says more about.
    Other,
}

/// A file with a path: open, mapped, run, or some task's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegularFile {
    /// What others name it by.
    pub id: u32,
    /// Its path as the task saw it; of a deleted file its former path. Not absolute where the task's root did not hold it.
    pub path: PathBuf,
    /// As in open(2).
    pub flags: u32,
    /// Position in bytes.
    pub position: u64,
    /// Size in bytes; a restore refuses another. Absent for what is no regular file.
    pub size: Option<u64>,
    /// As `st_mode`: type and permissions.
    pub mode: Option<u32>,
    /// The build-id of an ELF file; a restore refuses another.
    pub build_id: Option<Vec<u8>>,
    /// The mount it is on; -1 where mounts were not dumped.
    pub mount: i32,
    /// Whether the restore gets it from outside (`--external file[...]`).
    pub external: bool,
}

/// One end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pipe {
    /// The same for both ends.
    pub pipe: u32,
    /// As in open(2): the end is in the access mode.
    pub flags: u32,
}

/// An open terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TerminalFile {
    /// Its [`Terminal`].
    pub terminal: u32,
    /// As in open(2).
    pub flags: u32,
    /// The [`OpenFile`] with its path.
    pub path: Option<u32>,
}

/// A descriptor of memfd_create(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemfdFile {
    /// Its [`Memfd`].
    pub inode: u32,
    /// As in open(2).
    pub flags: u32,
    /// Position in bytes.
    pub position: u64,
}

/// A descriptor of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceFile {
    /// The namespace, as [`Ids`](super::Ids) number them.
    pub namespace: u32,
    /// Its kind, as `CLONE_NEW...`.
    pub clone_flag: u32,
}

impl Record for OpenFile {
    type Message = proto::File_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        let id = message.id();
        let file_type = FileType::from_number(message.type_.map_or(0, |kind| kind.value()));
        let object = match file_type {
            FileType::Regular => message.reg.0.map(|file| Object::Regular(RegularFile::from(*file))),
            FileType::Inet => message.isk.0.map(|socket| Object::Inet(InetSocket::from(*socket))),
            FileType::Unix => message.usk.0.map(|socket| Object::Unix(UnixSocket::from(*socket))),
            FileType::Packet => message.psk.0.map(|socket| Object::Packet(PacketSocket::from(*socket))),
            FileType::Netlink => message.nlsk.0.map(|socket| Object::Netlink(NetlinkSocket::from(*socket))),
            FileType::Pipe => message.pipe.0.map(|pipe| Object::Pipe(Pipe::from(*pipe))),
            FileType::Fifo => message.fifo.0.map(|fifo| Object::Fifo { pipe: fifo.pipe_id(), path: fifo.regf_id }),
            FileType::Terminal => message.tty.0.map(|tty| Object::Terminal(TerminalFile::from(*tty))),
            FileType::Memfd => message.memfd.0.map(|memfd| Object::Memfd(MemfdFile::from(*memfd))),
            FileType::Namespace => message.nsf.0.map(|namespace| Object::Namespace(NamespaceFile::from(*namespace))),
            FileType::Pidfd => message.pidfd.0.map(|pidfd| Object::Pidfd(pidfd.nspid())),
            _ => Some(Object::Other),
        };
        let object = object.ok_or_else(|| format!("the file {id} of type {file_type:?} has no such part"))?;
        Ok(Self { id, file_type, object })
    }
}

impl From<regfile::Reg_file_entry> for RegularFile {
    fn from(message: regfile::Reg_file_entry) -> Self {
        let build_id: Vec<u8> = message.build_id.iter().flat_map(|word| word.to_le_bytes()).collect();
        Self {
            id: message.id(),
            flags: message.flags(),
            position: message.pos(),
            size: message.size,
            mode: message.mode,
            build_id: (!build_id.is_empty()).then_some(build_id),
            mount: message.mnt_id(),
            external: message.ext(),
            path: name(message.name).into(),
        }
    }
}

impl From<pipe::Pipe_entry> for Pipe {
    fn from(message: pipe::Pipe_entry) -> Self {
        Self { pipe: message.pipe_id(), flags: message.flags() }
    }
}

impl From<tty::Tty_file_entry> for TerminalFile {
    fn from(message: tty::Tty_file_entry) -> Self {
        Self { terminal: message.tty_info_id(), flags: message.flags(), path: message.regf_id }
    }
}

impl From<memfd::Memfd_file_entry> for MemfdFile {
    fn from(message: memfd::Memfd_file_entry) -> Self {
        Self { inode: message.inode_id(), flags: message.flags(), position: message.pos() }
    }
}

impl From<ns::Ns_file_entry> for NamespaceFile {
    fn from(message: ns::Ns_file_entry) -> Self {
        Self { namespace: message.ns_id(), clone_flag: message.ns_cflag() }
    }
}

/// The inode behind descriptors of memfd_create(2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memfd {
    /// What [`MemfdFile::inode`] names.
    pub inode: u64,
    /// The name given to it, without `/memfd:`.
    pub name: OsString,
    /// Size in bytes.
    pub size: u64,
    /// Its shared memory: the number of its pagemap.
    pub shared_memory: u32,
    /// `F_SEAL_` flags.
    pub seals: u32,
}

impl Record for Memfd {
    type Message = memfd::Memfd_inode_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            inode: message.inode_id(),
            size: message.size(),
            shared_memory: message.shmid(),
            seals: message.seals(),
            name: name(message.name),
        })
    }
}

/// A terminal, once however many files it is open as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terminal {
    /// What [`TerminalFile::terminal`] names.
    pub id: u32,
    /// The session whose controlling terminal it is, 0 for none.
    pub sid: u32,
    /// Its foreground process group, 0 for none.
    pub pgrp: u32,
    /// As `st_rdev`.
    pub device: u32,
    /// The N of /dev/pts/N of a pseudo terminal.
    pub pty_index: Option<u32>,
}

impl Record for Terminal {
    type Message = tty::Tty_info_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            id: message.id(),
            sid: message.sid(),
            pgrp: message.pgrp(),
            device: message.rdev(),
            pty_index: message.pty.as_ref().map(|pty| pty.index()),
        })
    }
}
