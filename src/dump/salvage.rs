//! Putting right what a CRIU that dies in the middle of a dump leaves, while the tree runs on: TCP sockets in repair mode,
//! its network lock, and names for unlinked files.
//!
//! The sockets come first, and from a thread of its own that waits for CRIU's end: until they are put right the program gets
//! EPERM from them. It still may, if data was waiting: CRIU's death lets the tree run before anybody hears of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::host::netlock::{Connection, Lock, LockWatch, Locks, Owner};
use crate::process::{Connections, Expected, Namespaces, Repaired};
use crate::request::{DumpOptions, DumpSwitch, NetworkLock, Tcp};

/// How long the thread may take to put sockets right after CRIU's end.
const REPAIR: Duration = Duration::from_secs(5);

/// How CRIU's names for unlinked files begin.
const LINK: &str = "link_remap.";

/// The end of the path of an open file whose name is gone.
const DELETED: &str = " (deleted)";

/// Knows what the tree had before its dump.
#[derive(Debug)]
pub(super) struct Salvage {
    criu: i32,
    tasks: Vec<Expected>,
    /// Where the dump makes a network lock.
    network: Option<Network>,
    /// Where the dump makes names: those that were there before.
    names: Option<BTreeSet<PathBuf>>,
}

#[derive(Debug)]
struct Network {
    connections: Arc<Connections>,
    locks: Option<LockWatch>,
    /// CRIU has been told to end the tree, and a socket out of repair mode would say goodbye to its peer; or somebody keeps it
    /// standing whatever becomes of CRIU.
    stands_back: Arc<AtomicBool>,
    repaired: Receiver<Repaired>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// What was put right, to be said after "CRIU left".
    pub(super) put_right: Vec<String>,
    /// What could not be.
    pub(super) left: Vec<String>,
}

impl Salvage {
    /// Looks at the tree, and waits for CRIU's end from here on.
    pub(super) fn prepare(criu: i32, tasks: &[Expected], options: &DumpOptions) -> Self {
        // In a network namespace of the tree's own CRIU locks everything, whatever it holds.
        let is_skipped = options.network_lock == Some(NetworkLock::Skip);
        let is_locked = options.tcp == Tcp::Established || (!is_skipped && foreign_network(tasks).is_some());
        let network = is_locked.then(|| Network::prepare(criu, tasks));
        let names = options.switches.contains(&DumpSwitch::LinkRemap).then(|| names(tasks));
        Self { criu, tasks: tasks.to_vec(), network, names }
    }

    /// CRIU's end alone is no reason any more to put the tree's connections right: CRIU is about to be told to end the tree, or
    /// somebody else keeps it standing. [`Salvage::run`] does it all the same.
    pub(super) fn stand_back(&self) {
        if let Some(network) = &self.network {
            network.stands_back.store(true, Ordering::SeqCst);
        }
    }

    /// Puts right what is left in a tree that runs on. After CRIU's end. Blocks.
    pub(super) fn run(self) -> Salvaged {
        let mut salvaged = Salvaged::default();
        if let Some(network) = self.network {
            network.run(self.criu, &self.tasks, &mut salvaged);
        }
        if let Some(before) = self.names {
            for name in names(&self.tasks).difference(&before) {
                match fs::remove_file(name) {
                    Ok(()) => salvaged.put_right.push(format!("the name `{}`, which is gone now", name.display())),
                    Err(error) => salvaged.left.push(format!("CRIU's name `{}` is left: {error}", name.display())),
                }
            }
        }
        salvaged
    }
}

impl Network {
    fn prepare(criu: i32, tasks: &[Expected]) -> Self {
        let connections = Arc::new(Connections::of(tasks));
        let stands_back = Arc::new(AtomicBool::new(false));
        let (send, repaired) = channel();
        let (seen, told, tree) = (Arc::clone(&connections), Arc::clone(&stands_back), tasks.to_vec());
        let wait = move || {
            if await_end(criu) && !told.load(Ordering::SeqCst) {
                // Nobody may be interested, as the dump went well.
                let _ = send.send(seen.end_repair(&tree));
            }
        };
        // Without a thread it is done later.
        let _ = std::thread::Builder::new().name("crr-salvage".into()).stack_size(256 << 10).spawn(wait);
        let locks = in_network_of(tasks, LockWatch::begin).flatten();
        Self { connections, locks, stands_back, repaired }
    }

    fn run(self, criu: i32, tasks: &[Expected], salvaged: &mut Salvaged) {
        // Nothing comes from a thread that was told to stand back, or that could not be started.
        let by_thread = self.repaired.recv_timeout(REPAIR).unwrap_or_default();
        let now = self.connections.end_repair(tasks);
        match by_thread.ended + now.ended {
            0 => {}
            count => salvaged.put_right.push(format!("{count} TCP sockets in repair mode, which they are out of now")),
        }
        // What the thread could not do was tried again.
        salvaged.left.extend(now.failures);
        let address = |(local, remote)| Connection { local, remote };
        let connections: Vec<Connection> = self.connections.addresses().map(address).collect();
        let made = self.locks.map(|locks| locks.made_by(criu)).unwrap_or_default();
        let is_own = foreign_network(tasks).is_some();
        let unlocked = in_network_of(tasks, || unlock(&made, &connections, is_own));
        match unlocked {
            Some(mut unlocked) => {
                salvaged.put_right.append(&mut unlocked.put_right);
                salvaged.left.append(&mut unlocked.left);
            }
            None => salvaged.left.push("the network namespace of the tree could not be looked at".into()),
        }
    }
}

/// Where the network namespace of the tree is named, if it is not this thread's.
fn foreign_network(tasks: &[Expected]) -> Option<PathBuf> {
    let at = PathBuf::from(format!("/proc/{}/ns", tasks.first()?.pid));
    (Namespaces::read(&at).net != Namespaces::read("/proc/thread-self/ns".as_ref()).net).then(|| at.join("net"))
}

/// Does something in the network namespace of the tree, where CRIU has its lock; `None` if that cannot be entered.
fn in_network_of<T: Send>(tasks: &[Expected], act: impl FnOnce() -> T + Send) -> Option<T> {
    let Some(network) = foreign_network(tasks) else { return Some(act()) };
    // On a thread of its own, since entering a namespace is for the thread's life.
    std::thread::scope(|scope| {
        let enter = || {
            setns(File::open(network).ok()?, CloneFlags::CLONE_NEWNET).ok()?;
            Some(act())
        };
        std::thread::Builder::new().spawn_scoped(scope, enter).ok()?.join().ok()?
    })
}

/// Removes the locks of this dump that are in force in the thread's network namespace. In one of the tree's own, `is_own`, the
/// chain of iptables drops all that the tree sends and gets: as that runs on, nobody wants it.
fn unlock(made: &[Lock], connections: &[Connection], is_own: bool) -> Salvaged {
    let owner = Owner { run_id: None, connections };
    let mut salvaged = Salvaged::default();
    let Locks { found, unread } = Locks::look();
    salvaged.left.extend(unread.into_iter().map(|what| format!("network locks that could not be looked at: {what}")));
    let is_ours =
        |lock: &Lock| made.contains(lock) || lock.belongs_to(owner) || is_own && matches!(lock, Lock::Chain { .. });
    for lock in found.into_iter().filter(is_ours) {
        match lock.remove() {
            Ok(()) => salvaged.put_right.push(format!("{lock}, which is gone now")),
            Err(error) => {
                let by_hand = lock.removal_commands().join("; ");
                salvaged.left.push(format!("{lock} is left ({error}); remove it by: {by_hand}"));
            }
        }
    }
    salvaged
}

/// Waits for the end of a process; false where that is impossible.
fn await_end(pid: i32) -> bool {
    let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.is_ok(),
        }
    }
}

/// CRIU's names for files that a task has open by a name that is gone, in the directory of that name.
fn names(tasks: &[Expected]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for task in tasks {
        let process = PathBuf::from(format!("/proc/{}", task.pid));
        for place in ["fd", "map_files"] {
            for entry in fs::read_dir(process.join(place)).into_iter().flatten().flatten() {
                names_of(&process, &entry.path(), &mut found);
            }
        }
    }
    found
}

/// CRIU's names for the file behind a link of /proc.
fn names_of(process: &Path, link: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(target) = fs::read_link(link) else { return };
    let Some(name) = target.to_str().and_then(|path| path.strip_suffix(DELETED)) else { return };
    let Ok(file) = fs::metadata(link) else { return };
    let Some(above) = Path::new(name).parent().and_then(|above| above.strip_prefix("/").ok()) else { return };
    if file.nlink() == 0 {
        return;
    }
    for entry in fs::read_dir(process.join("root").join(above)).into_iter().flatten().flatten() {
        let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(LINK));
        let is_same = |other: fs::Metadata| (other.dev(), other.ino()) == (file.dev(), file.ino());
        if is_named && entry.metadata().is_ok_and(is_same) {
            found.insert(entry.path());
        }
    }
}
