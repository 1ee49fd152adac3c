//! One task of a tree.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::descriptor::{self, Descriptor, FileStatus};
use super::inherited::{Inherited, IoPriority};
use super::lines::{Lines, words};
use super::mapping::{Mapping, Memory};
use super::namespace::Namespaces;
use super::stat::Stat;
use super::status::Status;

/// A thread of a task, other than its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its thread ID.
    pub tid: i32,
    /// Its state, name and scheduling.
    pub stat: Stat,
    /// Its credentials and signals.
    pub status: Status,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Its I/O priority, where it is not the one that its nice value gives it.
    pub io_priority: Option<IoPriority>,
    /// Whether it has a descriptor table of its own (unshare); not looked for in trees of many threads.
    pub own_descriptors: bool,
}

/// A file that a task holds without a descriptor: its program, working directory or root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path, without the kernel's ` (deleted)`.
    pub path: PathBuf,
    /// Whether the name is gone.
    pub deleted: bool,
    /// What `stat` says.
    pub status: Option<FileStatus>,
}

impl Place {
    fn read(link: &Path) -> Option<Self> {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let target = fs::read_link(link).ok()?;
        let status = FileStatus::read(link).ok();
        let stripped = target.as_os_str().as_bytes().strip_suffix(b" (deleted)").map(<[u8]>::to_vec);
        Some(match stripped {
            Some(path) => Self { path: PathBuf::from(std::ffi::OsString::from_vec(path)), deleted: true, status },
            None => Self { path: target, deleted: false, status },
        })
    }
}

/// A process: what it is, what it holds, and its threads.
#[derive(Clone, Debug)]
pub struct Task {
    /// Who it is in the tree, its state and terminal.
    pub stat: Stat,
    /// Its credentials, tracer, signals and memory counters.
    pub status: Status,
    /// The threads besides the leader.
    pub threads: Vec<Thread>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Another task of the tree with the same address space (CLONE_VM without CLONE_THREAD, or vfork).
    pub shares_memory_with: Option<i32>,
    /// Another task of the tree with the same working directory, root and umask (CLONE_FS).
    pub shares_directory_with: Option<i32>,
    /// What it got from its parent and CRIU does not restore.
    pub inherited: Inherited,
    /// Its open descriptors. Empty of a zombie.
    pub descriptors: Vec<Descriptor>,
    /// Whether the descriptors could not be read for lack of permission.
    pub unreadable: bool,
    /// Its memory.
    pub memory: Memory,
    /// Its program.
    pub program: Option<Place>,
    /// Its working directory.
    pub directory: Option<Place>,
    /// Its root directory.
    pub root: Option<Place>,
    /// Its cgroup in each hierarchy: `(controllers, path)`, with `""` for the unified one.
    pub cgroups: Vec<(String, String)>,
}

impl Task {
    /// Its PID as crr sees it.
    pub fn pid(&self) -> i32 {
        self.stat.pid
    }

    /// Whether it has ended and waits for its parent to notice.
    pub fn is_zombie(&self) -> bool {
        matches!(self.stat.state, 'Z' | 'X')
    }

    /// Reads task `pid`; `None` when it is gone. `file` takes each plain file it maps, with the mount
    /// namespace of the task.
    pub(super) fn read(pid: i32, lines: &mut Lines, mut file: impl FnMut(u64, Mapping)) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let stat = Stat::parse(lines.whole(directory.join("stat")).ok()?)?;
        let status = read_status(&directory.join("status"), lines)?;
        let threads = if stat.threads > 1 { read_threads(&directory, pid, lines) } else { Vec::new() };
        let namespaces = Namespaces::read(&directory.join("ns"));
        let mut memory = Memory::default();
        if status.has_memory {
            // A task that has just ended has no lines; one that ends now has fewer. Neither is an error.
            let _ = lines.each(directory.join("maps"), |line| {
                if let Some(mapping) = memory.take(line) {
                    file(namespaces.mnt, mapping);
                }
            });
        }
        let (descriptors, unreadable) = match descriptor::read_all(&directory, lines) {
            Ok(descriptors) => (descriptors, false),
            Err(error) => (Vec::new(), error.kind() == std::io::ErrorKind::PermissionDenied && status.has_memory),
        };
        let mut cgroups = Vec::new();
        let _ = lines.each(directory.join("cgroup"), |line| cgroups.extend(parse_cgroup(line)));
        Some(Self {
            inherited: if status.has_memory { Inherited::read(pid, stat.nice, lines) } else { Inherited::default() },
            namespaces,
            shares_memory_with: None,
            shares_directory_with: None,
            program: Place::read(&directory.join("exe")),
            directory: Place::read(&directory.join("cwd")),
            root: Place::read(&directory.join("root")),
            stat,
            status,
            threads,
            descriptors,
            unreadable,
            memory,
            cgroups,
        })
    }

    /// The children of the task, of each of its threads.
    pub(super) fn children(&self, lines: &mut Lines) -> Vec<i32> {
        let pid = self.pid();
        let mut children = Vec::new();
        for tid in std::iter::once(pid).chain(self.threads.iter().map(|thread| thread.tid)) {
            let _ = lines.each(format!("/proc/{pid}/task/{tid}/children"), |line| {
                children.extend(words(line).filter_map(super::lines::decimal::<i32>));
            });
        }
        children
    }

    /// A handle on the process, for looking at its sockets.
    pub(super) fn handle(&self) -> Option<OwnedFd> {
        super::foreign::open_process(self.pid()).ok()
    }
}

fn read_status(path: &Path, lines: &mut Lines) -> Option<Status> {
    let mut status = Status::default();
    lines.each(path, |line| status.take(line)).ok()?;
    Some(status)
}

fn read_threads(directory: &Path, pid: i32, lines: &mut Lines) -> Vec<Thread> {
    let Ok(entries) = fs::read_dir(directory.join("task")) else { return Vec::new() };
    let mut tids: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable();
    let read = |tid: i32| {
        let directory = directory.join(format!("task/{tid}"));
        let stat = Stat::parse(lines.whole(directory.join("stat")).ok()?)?;
        Some(Thread {
            tid,
            io_priority: IoPriority::read(tid, stat.nice),
            own_descriptors: false,
            stat,
            status: read_status(&directory.join("status"), lines)?,
            namespaces: Namespaces::read(&directory.join("ns")),
        })
    };
    tids.into_iter().filter(|tid| *tid != pid).filter_map(read).collect()
}

/// `4:memory:/a/b` or `0::/a/b`.
fn parse_cgroup(line: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(line);
    let (_, rest) = text.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    Some((controllers.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_lines_of_both_versions_are_read() {
        assert_eq!(parse_cgroup(b"4:cpu,cpuacct:/a:b"), Some(("cpu,cpuacct".into(), "/a:b".into())));
        assert_eq!(parse_cgroup(b"0::/"), Some((String::new(), "/".into())));
        assert_eq!(parse_cgroup(b"nothing"), None);
    }

    #[test]
    fn this_process_is_read_with_its_threads_files_and_program() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).expect("the test waits");
            let _ = stopped.recv();
        });
        let tid = told.recv().expect("the thread's ID");
        let mut files = Vec::new();
        let task =
            Task::read(std::process::id() as i32, &mut Lines::new(), |_, file| files.push(file)).expect("this process");
        drop(stop);
        thread.join().expect("the thread");
        assert!(task.threads.iter().any(|thread| thread.tid == tid));
        let program = std::env::current_exe().expect("our own program");
        assert_eq!(task.program.map(|place| place.path), Some(program.clone()));
        assert!(files.iter().any(|file| file.path == program));
        assert!(task.status.anonymous_bytes > 0 && task.memory.mappings > 5);
        assert!(!task.cgroups.is_empty() && !task.unreadable);
    }
}
