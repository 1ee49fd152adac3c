//! Readers of CRIU's image files. They need neither root nor CRIU.
//!
//! [`Images`] is one directory of images, opened once; each method reads one file of it. Sizes are checked before anything is
//! allocated, links are not followed (but for CRIU's own `parent`), and no content makes a reader panic.
//! [`Images::check_set`] says whether the set is whole.
//!
//! ```no_run
//! use crr::images::Images;
//!
//! let images = Images::open("/var/lib/checkpoints/web")?;
//! for task in images.tasks()? {
//!     let core = images.core(task.pid)?;
//!     println!("{} {:?}", task.pid, core.comm());
//! }
//! for problem in images.check_set()? {
//!     println!("{problem}");
//! }
//! # Ok::<(), crr::Error>(())
//! ```
//!
//! A file is two magic words and then records: a length (u32, little endian) and a protobuf message, after some of them raw
//! bytes. Memory pages lie in `pages-N.img` without any header, in the order of the entries of their pagemap.

mod cgroup;
mod core;
mod file;
mod inventory;
mod kind;
mod memory;
pub mod message;
mod mount;
mod pagemap;
mod record;
mod remap;
mod set;
mod socket;
mod statistics;
mod task;
#[cfg(test)]
mod tests;
mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

pub use self::cgroup::{Cgroup, CgroupSet};
pub use self::core::{Core, Credentials, Machine, Seccomp, TaskCore, TaskState, ThreadCore};
pub use self::file::{
    Descriptor, FileType, Memfd, MemfdFile, NamespaceFile, Object, OpenFile, Pipe, RegularFile, Terminal, TerminalFile,
};
pub use self::inventory::{Inventory, SecurityModule};
pub use self::kind::Kind;
pub use self::memory::{Mapping, Memory};
pub use self::mount::Mount;
pub use self::pagemap::{PageRange, Pagemap, PagemapOf, Place};
pub use self::remap::{Directories, GhostFile, Lock, Remap, RemapTarget};
pub use self::set::{Needed, Problem};
pub use self::socket::{InetSocket, NetlinkSocket, PacketSocket, SocketState, TcpStream, UnixSocket};
pub use self::statistics::{DumpStatistics, RestoreStatistics};
pub use self::task::{Ids, Task};
pub(crate) use self::walk::fuzz as fuzz_image;

pub(crate) use self::record::parts_within;
use self::record::{Reader, Record};
use crate::error::{Error, ImageFault, Result};

/// A directory of images.
#[derive(Debug)]
pub struct Images {
    directory: OwnedFd,
    /// Only for messages.
    path: PathBuf,
}

impl Images {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let path = path.as_ref();
        let directory = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|errno| Error::io("open the directory", path)(errno.into()))?;
        Ok(Self::from_directory(directory, path))
    }

    /// The directory that is open as `directory`; messages call it `path`.
    pub fn from_directory(directory: OwnedFd, path: impl Into<PathBuf>) -> Self {
        Self { directory, path: path.into() }
    }

    /// The path that messages name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The images that those here were dumped on top of, where `parent` names some.
    ///
    /// # Errors
    /// [`Error::Io`] when `parent` exists and leads to no directory.
    pub fn parent(&self) -> Result<Option<Self>> {
        let path = self.path.join("parent");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match openat(&self.directory, "parent", flags, Mode::empty()) {
            Ok(directory) => Ok(Some(Self { directory, path })),
            // A link that leads nowhere is not the same as no link.
            Err(Errno::ENOENT) if !self.has("parent") => Ok(None),
            Err(errno) => Err(Error::io("open the parent images", path)(errno.into())),
        }
    }

    /// Reads `inventory.img`.
    ///
    /// # Errors
    /// [`Error::Image`], as of every reader here: the file is missing, cut short or not of its kind; [`Error::Io`] when
    /// reading it fails.
    pub fn inventory(&self) -> Result<Inventory> {
        self.only(Kind::Inventory, 0)
    }

    /// Reads `pstree.img`: every task, parents before their children.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        self.reader(Kind::Pstree, 0)?.all()
    }

    /// Reads `core-TID.img` of a thread. Only a task's first thread, whose TID is the PID, has [`Core::task`].
    pub fn core(&self, tid: u32) -> Result<Core> {
        self.only(Kind::Core, tid)
    }

    /// The signal that a task, or the first of its threads that wants one, gets when its parent ends (PR_SET_PDEATHSIG).
    ///
    /// A restored root has another parent, and gets it when that one ends: after a detached restore at once.
    pub fn parent_death_signal(&self, task: &Task) -> Result<Option<u32>> {
        for tid in std::iter::once(task.pid).chain(task.threads.iter().copied().filter(|tid| *tid != task.pid)) {
            // Of a zombie the list of threads means nothing.
            let Some(thread) = self.core(tid)?.thread else { break };
            if let Some(signal) = thread.parent_death_signal.filter(|signal| *signal != 0) {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }

    /// Reads `ids-PID.img`. Zombies have none.
    pub fn ids(&self, pid: u32) -> Result<Ids> {
        self.only(Kind::Ids, pid)
    }

    /// Reads `fdinfo-FILESID.img`: the descriptors of all tasks with this [`Ids::files`].
    pub fn descriptors(&self, files_id: u32) -> Result<Vec<Descriptor>> {
        self.reader(Kind::Descriptors, files_id)?.all()
    }

    /// Reads `files.img` one by one: every file that is open, mapped, run, or some task's directory.
    pub fn files(&self) -> Result<Records<OpenFile>> {
        self.records(Kind::Files)
    }

    /// Reads `mm-PID.img`. Zombies have none.
    pub fn memory(&self, pid: u32) -> Result<Memory> {
        self.only(Kind::Memory, pid)
    }

    /// Opens a pagemap.
    pub fn pagemap(&self, of: PagemapOf) -> Result<Pagemap> {
        let (kind, id) = of.file();
        Pagemap::new(self.reader(kind, id)?)
    }

    /// Reads `fs-PID.img`. Zombies have none.
    pub fn directories(&self, pid: u32) -> Result<Directories> {
        self.only(Kind::Directories, pid)
    }

    /// Reads `remap-fpath.img`; without that file there are none.
    pub fn remaps(&self) -> Result<Vec<Remap>> {
        self.all_or_none(Kind::Remaps)
    }

    /// Reads what `ghost-file-ID.img` says about a deleted file, not its content.
    pub fn ghost(&self, id: u32) -> Result<GhostFile> {
        let mut reader = self.reader(Kind::Ghost, id)?;
        reader.next()?.ok_or_else(|| reader.fault(ImageFault::NoRecord))
    }

    /// Reads `memfd.img`; without that file there are none.
    pub fn memfds(&self) -> Result<Vec<Memfd>> {
        self.all_or_none(Kind::Memfds)
    }

    /// Reads `tty-info.img`; without that file there are none.
    pub fn terminals(&self) -> Result<Vec<Terminal>> {
        self.all_or_none(Kind::Terminals)
    }

    /// Reads `mountpoints-ID.img`: the mounts of the mount namespace with this [`Ids::mount_namespace`].
    pub fn mounts(&self, id: u32) -> Result<Vec<Mount>> {
        self.reader(Kind::Mounts, id)?.all()
    }

    /// Reads `filelocks.img`; without that file there are none.
    pub fn locks(&self) -> Result<Vec<Lock>> {
        self.all_or_none(Kind::Locks)
    }

    /// Reads what `tcp-stream-INODE.img` says about a connection's queues, not their content.
    pub fn tcp_stream(&self, inode: u32) -> Result<TcpStream> {
        self.only(Kind::TcpStream, inode)
    }

    /// Reads the sets of cgroups in `cgroup.img`; without that file every task was in CRIU's own.
    pub fn cgroup_sets(&self) -> Result<Vec<CgroupSet>> {
        Ok(self.all_or_none::<cgroup::Cgroups>(Kind::Cgroups)?.into_iter().flat_map(|cgroups| cgroups.0).collect())
    }

    /// Reads `stats-dump`, which CRIU writes into its work directory, and only after success.
    pub fn dump_statistics(&self) -> Result<DumpStatistics> {
        self.only(Kind::DumpStatistics, 0)
    }

    /// Reads `stats-restore`, which CRIU writes into its work directory, and only after success.
    pub fn restore_statistics(&self) -> Result<RestoreStatistics> {
        self.only(Kind::RestoreStatistics, 0)
    }

    fn only<T: Record>(&self, kind: Kind, id: u32) -> Result<T> {
        self.reader(kind, id)?.only()
    }

    fn records<T: Record>(&self, kind: Kind) -> Result<Records<T>> {
        Ok(Records { reader: Some(self.reader(kind, 0)?), next: Reader::next })
    }

    fn all_or_none<T: Record>(&self, kind: Kind) -> Result<Vec<T>> {
        match self.reader(kind, 0) {
            Ok(reader) => reader.all(),
            Err(Error::Image { source: ImageFault::Missing, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn reader(&self, kind: Kind, id: u32) -> Result<Reader<BufReader<File>>> {
        let name = kind.file_name(id);
        let (file, length) = self.file(&name)?;
        let buffer = usize::try_from(length).unwrap_or(usize::MAX).clamp(1, 1 << 16);
        Reader::new(BufReader::with_capacity(buffer, file), length, self.path.join(name), kind)
    }

    /// A regular file here and its size in bytes.
    fn file(&self, name: &str) -> Result<(File, u64)> {
        // A pipe of that name must not hold us up.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let path = || self.path.join(name);
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::ENOENT) => return Err(Error::Image { path: path(), source: ImageFault::Missing }),
            Err(Errno::ELOOP) => return Err(Error::Image { path: path(), source: ImageFault::NotAFile }),
            Err(errno) => return Err(Error::io("open", path())(errno.into())),
        };
        let metadata = file.metadata().map_err(Error::io("look at", path()))?;
        match metadata.is_file() {
            true => Ok((file, metadata.len())),
            false => Err(Error::Image { path: path(), source: ImageFault::NotAFile }),
        }
    }

    /// The size of a regular file here, in bytes.
    pub(crate) fn size(&self, name: &str) -> Result<u64> {
        self.file(name).map(|(_, bytes)| bytes)
    }

    /// Whether a task was in a network namespace other than CRIU's: it is among the images then. `true` if nobody can tell.
    pub fn has_network_namespace(&self) -> bool {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut directory) = Dir::openat(&self.directory, ".", flags, Mode::empty()) else { return true };
        directory.iter().any(|entry| entry.map_or(true, |entry| entry.file_name().to_bytes().starts_with(b"netns-")))
    }

    /// Whether there is anything called `name` here, a link included.
    fn has(&self, name: &str) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.directory, name, flags, Mode::empty()).is_ok()
    }
}

impl AsFd for Images {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The records of an image, read one by one. Ends after the first error.
#[derive(Debug)]
pub struct Records<T> {
    reader: Option<Reader<BufReader<File>>>,
    next: fn(&mut Reader<BufReader<File>>) -> Result<Option<T>>,
}

impl<T> Iterator for Records<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = (self.next)(self.reader.as_mut()?).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.reader = None;
        }
        next
    }
}

/// A path or name as the kernel has it: bytes.
fn name(bytes: Option<Vec<u8>>) -> OsString {
    OsString::from_vec(bytes.unwrap_or_default())
}
