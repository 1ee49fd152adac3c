//! A process and all its descendants.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result};

use super::descriptor::Kind;
use super::foreign::{self, Common};
use super::lines::Lines;
use super::mapping::Mapping;
use super::mount::Mount;
use super::namespace::Namespaces;
use super::socket::{Family, Socket, UnixSocket};
use super::task::Task;
use super::unix_diag::UnixDiagnostics;

/// The tasks that are read of one tree. The kernel's own limit of PIDs is 4,194,304.
const TASK_LIMIT: usize = 100_000;
/// In trees of more threads besides the leaders nobody looks for one with descriptors of its own.
const COMPARED_THREADS: usize = 256;

/// A process tree as it was found.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The tasks, parents before their children; the root is the first.
    pub tasks: Vec<Task>,
    /// Each file that a task of the tree maps, once, with the PID of the first that does.
    pub mapped_files: Vec<(i32, Mapping)>,
    /// The sockets, by inode.
    pub sockets: BTreeMap<u64, Socket>,
    /// The unix sockets outside the tree that one of its sockets is connected to, by inode.
    pub unix_peers: BTreeMap<u64, UnixSocket>,
    /// The mounts of each mount namespace that a task of the tree is in, by its inode.
    pub mounts: BTreeMap<u64, Vec<Mount>>,
    /// The namespaces of crr itself.
    pub own_namespaces: Namespaces,
    index: HashMap<i32, usize>,
}

impl Tree {
    /// Reads the tree below process `root`.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`] when there is no process `root`, or it ends meanwhile.
    pub fn read(root: i32) -> Result<Self> {
        let mut lines = Lines::new();
        let mut tree = Self {
            tasks: Vec::new(),
            mapped_files: Vec::new(),
            sockets: BTreeMap::new(),
            unix_peers: BTreeMap::new(),
            mounts: BTreeMap::new(),
            own_namespaces: Namespaces::read("/proc/self/ns".as_ref()),
            index: HashMap::new(),
        };
        tree.read_tasks(root, &mut lines);
        if tree.tasks.is_empty() {
            return Err(Error::NoSuchProcess { pid: root });
        }
        tree.compare_tasks();
        tree.read_mounts(&mut lines);
        tree.read_sockets();
        Ok(tree)
    }

    /// A tree of these tasks, the root first, with nothing else in it.
    #[cfg(test)]
    pub(crate) fn of(tasks: Vec<Task>, own_namespaces: Namespaces) -> Self {
        Self {
            index: tasks.iter().enumerate().map(|(index, task)| (task.pid(), index)).collect(),
            tasks,
            mapped_files: Vec::new(),
            sockets: BTreeMap::new(),
            unix_peers: BTreeMap::new(),
            mounts: BTreeMap::new(),
            own_namespaces,
        }
    }

    /// The root of the tree.
    pub fn root(&self) -> &Task {
        &self.tasks[0]
    }

    /// The task with this PID.
    pub fn task(&self, pid: i32) -> Option<&Task> {
        self.index.get(&pid).map(|index| &self.tasks[*index])
    }

    /// Whether `pid` is a task of the tree.
    pub fn has(&self, pid: i32) -> bool {
        self.index.contains_key(&pid)
    }

    fn read_tasks(&mut self, root: i32, lines: &mut Lines) {
        let mut seen_files = BTreeSet::new();
        let mut waiting = vec![root];
        while let Some(pid) = waiting.pop() {
            if self.index.contains_key(&pid) || self.tasks.len() >= TASK_LIMIT {
                continue;
            }
            let files = &mut self.mapped_files;
            let task = Task::read(pid, lines, |namespace, file| {
                if seen_files.insert((namespace, file.device, file.inode)) {
                    files.push((pid, file));
                }
            });
            let Some(task) = task else { continue };
            let mut children = task.children(lines);
            children.reverse();
            waiting.append(&mut children);
            self.index.insert(pid, self.tasks.len());
            self.tasks.push(task);
        }
    }

    /// Looks for tasks that share what only threads normally share: with the parent, or with the child before.
    fn compare_tasks(&mut self) {
        let mut before: HashMap<i32, i32> = HashMap::new();
        for index in 1..self.tasks.len() {
            let task = &self.tasks[index];
            if !task.status.has_memory {
                continue;
            }
            let (pid, parent) = (task.pid(), task.stat.ppid);
            let others = [Some(parent), before.insert(parent, pid)];
            let shares = |common| others.into_iter().flatten().find(|other| foreign::share(pid, *other, common));
            let (memory, directory) = (shares(Common::Memory), shares(Common::Directories));
            let task = &mut self.tasks[index];
            task.shares_memory_with = memory;
            task.shares_directory_with = directory;
        }
        if self.tasks.iter().map(|task| task.threads.len()).sum::<usize>() > COMPARED_THREADS {
            return;
        }
        for task in &mut self.tasks {
            let pid = task.pid();
            // A leader that has ended has no table that could be another.
            if task.status.has_memory {
                for thread in &mut task.threads {
                    thread.own_descriptors = foreign::differ(pid, thread.tid, Common::Descriptors);
                }
            }
        }
    }

    fn read_mounts(&mut self, lines: &mut Lines) {
        for task in &self.tasks {
            let namespace = task.namespaces.mnt;
            if namespace == 0 || self.mounts.contains_key(&namespace) {
                continue;
            }
            // A task in a chroot sees the mounts below its root only.
            let whole = |task: &&Task| {
                task.namespaces.mnt == namespace && task.root.as_ref().is_some_and(|root| root.path.as_os_str() == "/")
            };
            let process = if namespace == self.own_namespaces.mnt {
                "self".to_owned()
            } else {
                self.tasks.iter().find(whole).unwrap_or(task).pid().to_string()
            };
            self.mounts.insert(namespace, read_mountinfo(&process, lines));
        }
    }

    fn read_sockets(&mut self) {
        let mut unix: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for task in &self.tasks {
            let mut handle = None;
            for descriptor in task.descriptors.iter().filter(|descriptor| descriptor.kind == Kind::Socket) {
                if self.sockets.contains_key(&descriptor.inode) {
                    continue;
                }
                let Some(handle) = handle.get_or_insert_with(|| task.handle()) else { break };
                let Ok(twin) = foreign::duplicate(&*handle, descriptor.fd) else { continue };
                let Some(socket) = Socket::look(&twin, descriptor.inode, task.pid(), descriptor.fd) else { continue };
                if socket.family == Family::Unix {
                    unix.entry(task.namespaces.net).or_default().push(socket.inode);
                }
                self.sockets.insert(descriptor.inode, socket);
            }
        }
        for (network, inodes) in unix {
            let found = if network == self.own_namespaces.net {
                look_up(&inodes)
            } else {
                self.tasks
                    .iter()
                    .find(|task| task.namespaces.net == network)
                    .and_then(|task| look_up_in_network_of(task.pid(), &inodes))
            };
            let Some((own, peers)) = found else { continue };
            for (inode, details) in own {
                if let Some(socket) = self.sockets.get_mut(&inode) {
                    socket.unix = Some(details);
                }
            }
            self.unix_peers.extend(peers.into_iter().filter(|(inode, _)| !self.sockets.contains_key(inode)));
        }
    }
}

type Found = (Vec<(u64, UnixSocket)>, Vec<(u64, UnixSocket)>);

/// The details of each unix socket of `inodes`, and of the sockets they are connected to, in this thread's network namespace.
fn look_up(inodes: &[u64]) -> Option<Found> {
    let mut diagnostics = UnixDiagnostics::open().ok()?;
    let mut own = Vec::new();
    for inode in inodes {
        if let Ok(Some(socket)) = diagnostics.lookup(*inode) {
            own.push((*inode, socket));
        }
    }
    let known: BTreeSet<u64> = inodes.iter().copied().collect();
    let wanted: BTreeSet<u64> = own.iter().map(|(_, socket)| socket.peer).filter(|peer| *peer != 0).collect();
    let mut peers = Vec::new();
    for inode in wanted.difference(&known) {
        if let Ok(Some(socket)) = diagnostics.lookup(*inode) {
            peers.push((*inode, socket));
        }
    }
    Some((own, peers))
}

/// As [`look_up`], in the network namespace of `pid`: on a thread of its own, since entering one is for the thread's life.
fn look_up_in_network_of(pid: i32, inodes: &[u64]) -> Option<Found> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().spawn_scoped(scope, || {
            let namespace = File::open(format!("/proc/{pid}/ns/net")).ok()?;
            setns(namespace, CloneFlags::CLONE_NEWNET).ok()?;
            look_up(inodes)
        });
        worker.ok()?.join().ok()?
    })
}

fn read_mountinfo(process: &str, lines: &mut Lines) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let path = PathBuf::from(format!("/proc/{process}/mountinfo"));
    let _: io::Result<()> = lines.each(path, |line| mounts.extend(Mount::parse(line)));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_tree_has_the_descendants_and_not_the_parent() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & sleep 60 & echo ready; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("its output");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("its first line");
        let root = shell.id() as i32;
        let tree = Tree::read(root).expect("the tree");
        let comms: Vec<&str> = tree.tasks.iter().map(|task| task.stat.comm.as_str()).collect();
        for task in tree.tasks.iter().skip(1) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(task.pid()), nix::sys::signal::Signal::SIGKILL)
                .expect("a kill");
        }
        shell.wait().expect("the shell ends");
        assert_eq!(tree.root().pid(), root);
        assert_eq!(tree.tasks.len(), 3, "{comms:?}");
        assert!(!tree.has(std::process::id() as i32));
        assert!(tree.mounts.contains_key(&tree.root().namespaces.mnt));
        let libraries: Vec<_> = tree.mapped_files.iter().map(|(_, file)| (file.device, file.inode)).collect();
        assert_eq!(libraries.iter().collect::<BTreeSet<_>>().len(), libraries.len(), "each mapped file once");
    }

    #[test]
    fn a_root_that_is_not_there_is_an_error() {
        assert!(matches!(Tree::read(i32::MAX), Err(Error::NoSuchProcess { pid: i32::MAX })));
    }
}
