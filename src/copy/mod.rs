//! Where a copy of a plain process tree lives while the original runs on.
//!
//! The images of a plain tree name PIDs, paths and ports of the host. An [`Enclosure`] has PID, mount, network and IPC namespaces
//! in which all of these are free: the tree is restored there as it would be on the host.
//!
//! CRIU unlinks and binds again every path of a unix socket, makes fifos and deleted files again, and removes the names that it
//! gave to unlinked files. Done to the files that the original uses, that cuts off its clients for ever. So over everything that
//! can be written lies an overlay ([`Writes::ThrownAway`]), whose upper directories are in a tmpfs that is mounted in the
//! enclosure only. It is never to be cleaned up: it goes with the last process, however that ends. What a copy writes takes
//! memory for that, and a file that it opens for writing takes its whole size.
//!
//! The network has nothing but a loopback interface, with every address of the host's free to listen on. The first process is a
//! fork of the one that restores: see `init`.

mod init;
mod mounts;
mod numbers;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};

use crate::arena::{self, PLACE};
use crate::error::{Error, Result};
use crate::host::netlink;
use crate::swrk::{Launch, Neighbour};
use init::{Init, Task};

/// How long a first process may take to end when nobody else is left.
const ENDING: Duration = Duration::from_secs(5);

/// What becomes of what a copy writes to files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// It goes to overlays, and with the copy.
    #[default]
    ThrownAway,
    /// It goes to the files themselves, which the original uses as well.
    Shared,
}

/// Namespaces with a first process in them. Until [`Enclosure::release`] dropping it ends all that is in there.
#[derive(Debug)]
pub struct Enclosure {
    init: Init,
    mount_namespace: Arc<OwnedFd>,
    neighbour: Arc<Neighbour>,
    /// Its root directory.
    top: OwnedFd,
}

impl Enclosure {
    /// Makes one for a tree that is to have the PIDs `numbers`. The descriptors `held` are those that a request to CRIU will
    /// name. Gives CRIU's working directory too, under the one number that a request may name: `work`, else one in a tmpfs.
    /// Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`Error::Overlay`] for a file system that none can lie over, [`Error::Io`] and [`Error::System`]. Nothing is left then.
    pub fn new(
        writes: Writes,
        numbers: &BTreeSet<i32>,
        held: &[BorrowedFd<'_>],
        work: Option<&Path>,
    ) -> Result<(Self, OwnedFd)> {
        arena::mount::make_place()?;
        let largest = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
        let proc = mounts::proc();
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // It keeps the number free for the working directory, in the first process as well.
        let place =
            rustix::fs::open("/", flags, Mode::empty()).map_err(|errno| Error::io("open", "/")(errno.into()))?;
        let given =
            work.map(std::path::absolute).transpose().map_err(Error::io("find", work.unwrap_or(Path::new(""))))?;
        let task = Task {
            proc: path(&proc),
            last_pid: (
                path(&proc.join("sys/kernel/ns_last_pid")),
                numbers::last_before_gap(numbers, largest.unwrap_or(32768)).to_string(),
            ),
            held: held.iter().map(|fd| fd.as_raw_fd()).chain([place.as_raw_fd()]).collect(),
            work: (path(&mounts::work()), place.as_raw_fd()),
        };
        arena::in_thread(move || Self::make(writes, &task, given.as_deref(), place))?
    }

    /// In a thread of its own, whose namespaces these become.
    fn make(writes: Writes, task: &Task, given: Option<&Path>, mut place: OwnedFd) -> Result<(Self, OwnedFd)> {
        unshare(
            CloneFlags::CLONE_FS
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWPID,
        )
        .map_err(|errno| Error::system("make the namespaces of a copy", errno))?;
        arena::mount::make_private()?;
        mounts::tmpfs(Path::new(PLACE))?;
        mounts::directory(&mounts::proc())?;
        // Later the path leads to the new proc, which does not know this thread.
        let mount_namespace =
            File::open("/proc/thread-self/ns/mnt").map_err(Error::io("open", "/proc/thread-self/ns/mnt"))?;
        let (init, pair) = Init::start(task)?;
        netlink::loopback_up().map_err(|source| Error::system("take the loopback interface up", source))?;
        allow_foreign_addresses();
        mounts::make(writes, given)?;
        let work = File::open(mounts::work()).map_err(Error::io("open", mounts::work()))?;
        rustix::io::dup3(work, &mut place, rustix::io::DupFlags::CLOEXEC)
            .map_err(|errno| Error::system("copy a descriptor", errno))?;
        init.mounted()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open("/", flags, Mode::empty()).map_err(|errno| Error::io("open", "/")(errno.into()))?;
        let process = init.process().try_clone_to_owned();
        let process = process.map_err(|source| Error::system("copy a descriptor", source))?;
        let neighbour = Arc::new(Neighbour::new(process, pair));
        let enclosure = Self { init, mount_namespace: Arc::new(mount_namespace.into()), neighbour, top };
        Ok((enclosure, place))
    }

    /// Has CRIU started in here.
    pub fn host(&self, launch: &mut Launch) {
        launch.mount_namespace = Some(Arc::clone(&self.mount_namespace));
        launch.neighbour = Some(Arc::clone(&self.neighbour));
    }

    /// A path that leads to the root directory in here, for as long as this is.
    pub fn root(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.top.as_raw_fd()).into()
    }

    /// The first process, as this process sees it. Its end is the end of everything in here.
    pub fn init_pid(&self) -> i32 {
        self.init.pid()
    }

    /// The PID, as this process sees it, of a process that has the number `inside` in here.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`].
    pub fn pid_of(&self, inside: i32) -> Result<i32> {
        self.members()
            .into_iter()
            .find(|pid| number_inside(*pid) == Some(inside))
            .ok_or(Error::NoSuchProcess { pid: inside })
    }

    /// All processes in here but the first, as this process sees them.
    pub fn members(&self) -> Vec<i32> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(own) = namespace(self.init.pid()) else { return Vec::new() };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != self.init.pid() && namespace(*pid).as_ref() == Some(&own)).collect()
    }

    /// The tree runs: from here on everything lives as long as there is a process in here, whatever becomes of this process.
    ///
    /// # Errors
    /// [`Error::System`] if the first process has ended, and all that was in here with it.
    pub fn release(&mut self) -> Result<()> {
        self.init.release()
    }

    /// Ends everything in here.
    pub fn kill(&self) {
        self.init.kill();
    }

    /// Lets go of it, and waits until it is gone if nothing is in here any more. Blocks.
    pub fn leave(self) {
        let is_empty = self.members().is_empty();
        let pid = self.init.pid();
        drop(self);
        let deadline = Instant::now() + ENDING;
        while is_empty && Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Lets sockets listen on the addresses of the host, which no interface in here has: in the calling thread's network namespace.
fn allow_foreign_addresses() {
    for family in ["ipv4", "ipv6"] {
        // A kernel without the one or the other needs nothing.
        let _ = fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), "1");
    }
}

/// The number of a process in its own PID namespace.
fn number_inside(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().next_back()?.parse().ok()
}
