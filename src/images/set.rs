//! Whether a set of images is whole, so that a restore has all it asks for.

mod files;
mod pages;
mod problem;

use std::collections::{BTreeSet, HashMap, HashSet};

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

pub use self::problem::{Needed, Problem};

use self::files::Files;
use self::problem::Problems;
use super::record::Record;
use super::walk::walk;
use super::{Images, Inventory, Kind, Machine, PagemapOf, Seccomp, Task, TaskState, ThreadCore};
use crate::error::{Error, ImageFault, Result};
use crate::proto::images::ipc_shm::Ipc_shm_entry;

impl Images {
    /// Looks for everything that keeps this set from being restored: images that are missing, cut short or not what their
    /// name says, and what refers to something that is not there. Every record is decoded, but of pages only the size of their
    /// files is looked at.
    ///
    /// What is missing outside the images, as files, PIDs or the processor, is not looked at.
    ///
    /// # Errors
    /// Only when the directory itself cannot be read. All else is in the list, which is empty for a good set.
    pub fn check_set(&self) -> Result<Vec<Problem>> {
        let mut check = Check::new(self);
        check.set()?;
        Ok(check.problems.into())
    }
}

/// A check that is under way: what was found, and what was read so that the rest of the directory is known as claimed.
struct Check<'a> {
    images: &'a Images,
    problems: Problems,
    page_size: u64,
    files: Files,
    tids: HashSet<u32>,
    pids: HashSet<u32>,
    descriptor_tables: HashSet<u32>,
    shared_memory: HashSet<u32>,
    ipc_namespaces: BTreeSet<u32>,
    ghosts: HashSet<u32>,
    seccomp_needed: bool,
}

impl<'a> Check<'a> {
    fn new(images: &'a Images) -> Self {
        Self {
            images,
            problems: Problems::default(),
            page_size: 4096,
            files: Files::default(),
            tids: HashSet::new(),
            pids: HashSet::new(),
            descriptor_tables: HashSet::new(),
            shared_memory: HashSet::new(),
            ipc_namespaces: BTreeSet::new(),
            ghosts: HashSet::new(),
            seccomp_needed: false,
        }
    }

    fn set(&mut self) -> Result<()> {
        let inventory = self.keep(Needed::Restore, self.images.inventory());
        if let Some(inventory) = &inventory {
            if inventory.version != Inventory::SUPPORTED_VERSION {
                self.problems.add(Problem::Version { found: inventory.version });
                return Ok(());
            }
            if inventory.pre_dump {
                self.problems.add(Problem::PreDump);
                return Ok(());
            }
        }
        let tasks = self.images.tasks();
        if inventory.is_none() && matches!(tasks, Err(Error::Image { source: ImageFault::Missing, .. })) {
            // Nothing else would be news.
            return Ok(());
        }
        let tasks = self.keep(Needed::Restore, tasks);
        self.open_files(inventory.is_some_and(|inventory| inventory.tcp_close));
        if let Some(tasks) = &tasks {
            self.tree(tasks);
            tasks.iter().for_each(|task| self.task(task));
        }
        self.ipc_shared_memory();
        let mut shared: Vec<u32> = self.shared_memory.iter().copied().collect();
        shared.sort_unstable();
        shared.into_iter().for_each(|id| self.pages(PagemapOf::Shared(id), Needed::SharedMemory(id)));
        self.others(tasks.is_some())
    }

    /// That each task has a parent that comes before it.
    fn tree(&mut self, tasks: &[Task]) {
        if tasks.is_empty() {
            self.problems.add(Problem::NoTasks);
        }
        for task in tasks {
            if task.ppid != 0 && !self.pids.contains(&task.ppid) {
                self.problems.add(Problem::NoParent { pid: task.pid, ppid: task.ppid });
            }
            if !self.pids.insert(task.pid) {
                self.problems.add(Problem::Twice { pid: task.pid });
            }
        }
    }

    fn task(&mut self, task: &Task) {
        let needed = Needed::Task(task.pid);
        self.tids.insert(task.pid);
        let core = self.keep(needed, self.images.core(task.pid));
        let merged_ids = core.as_ref().and_then(|core| core.ids);
        if let Some(core) = core {
            if core.machine != Machine::X86_64 && core.machine != Machine::X86Compat {
                self.page_size = host_page_size();
            }
            match core.task {
                Some(of_task) if of_task.state == TaskState::Zombie => return,
                Some(_) => {}
                None => self.problems.add(Problem::NoTaskCore { pid: task.pid }),
            }
            self.seccomp(core.thread, needed);
        }
        for &tid in task.threads.iter().filter(|tid| **tid != task.pid) {
            self.tids.insert(tid);
            let core = self.keep(Needed::Thread(tid, task.pid), self.images.core(tid));
            self.seccomp(core.and_then(|core| core.thread), Needed::Thread(tid, task.pid));
        }
        let ids = match merged_ids {
            Some(ids) => Some(ids),
            None => self.keep(needed, self.images.ids(task.pid)),
        };
        if let Some(ids) = ids {
            self.ipc_namespaces.extend(ids.ipc_namespace);
            if self.descriptor_tables.insert(ids.files) {
                self.descriptors(ids.files, needed);
            }
        }
        if let Some(directories) = self.keep(needed, self.images.directories(task.pid)) {
            self.refers(Kind::Directories, task.pid, &[directories.current, directories.root]);
        }
        if let Some(memory) = self.keep(needed, self.images.memory(task.pid)) {
            let mut mapped: Vec<u32> = memory.mappings.iter().filter_map(super::Mapping::file).collect();
            mapped.push(memory.executable);
            mapped.sort_unstable();
            mapped.dedup();
            self.refers(Kind::Memory, task.pid, &mapped);
            self.shared_memory.extend(memory.mappings.iter().filter_map(super::Mapping::shared_memory));
        }
        self.pages(PagemapOf::Task(task.pid), needed);
    }

    /// The System V shared memory of the tree's own IPC namespaces, attached by a task or not. Its ids begin at 0.
    fn ipc_shared_memory(&mut self) {
        for namespace in std::mem::take(&mut self.ipc_namespaces) {
            if !self.images.has(&Kind::IpcSharedMemory.file_name(namespace)) {
                continue;
            }
            let read = self.images.reader(Kind::IpcSharedMemory, namespace).and_then(|mut reader| {
                let mut ids = Vec::new();
                while let Some(segment) = reader.message::<Ipc_shm_entry>()? {
                    if !segment.in_pagemaps() {
                        // The pages follow, in the format of old; then no segment has a pagemap.
                        break;
                    }
                    ids.extend(segment.desc.0.as_ref().map(|desc| desc.id()));
                }
                Ok(ids)
            });
            // What is wrong with it is told when the rest of the directory is read.
            self.shared_memory.extend(read.unwrap_or_default());
        }
    }

    /// That there are filters for the first thread that has one.
    fn seccomp(&mut self, thread: Option<ThreadCore>, needed: Needed) {
        let filtered = thread.is_some_and(|thread| matches!(thread.seccomp, Seccomp::Filter(_)));
        if !filtered || std::mem::replace(&mut self.seccomp_needed, true) {
            return;
        }
        let file = Kind::Seccomp.file_name(0);
        if !self.images.has(&file) {
            self.problems.add(Problem::Missing { file, needed });
        }
    }

    /// The rest of the directory: what is read only where it is there, and what nothing asks for.
    fn others(&mut self, tree_known: bool) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let unreadable = |errno: nix::errno::Errno| Error::io("list the directory", &self.images.path)(errno.into());
        let directory = Dir::openat(&self.images.directory, ".", flags, Mode::empty()).map_err(unreadable)?;
        for entry in directory {
            let entry = entry.map_err(unreadable)?;
            let Some((kind, id)) = entry.file_name().to_str().ok().and_then(Kind::of) else { continue };
            let claimed = match kind {
                Kind::Inventory | Kind::Pstree | Kind::Files | Kind::Remaps | Kind::Memfds | Kind::Terminals => {
                    continue;
                }
                // Nothing in a restore reads them.
                Kind::DumpStatistics | Kind::RestoreStatistics => continue,
                Kind::Core => self.tids.contains(&id),
                Kind::Ids | Kind::Memory | Kind::Directories | Kind::Pagemap => self.pids.contains(&id),
                Kind::Descriptors => self.descriptor_tables.contains(&id),
                Kind::SharedPagemap => self.shared_memory.contains(&id),
                Kind::Ghost if !self.ghosts.contains(&id) => false,
                _ => {
                    let walked = self.images.reader(kind, id).and_then(|reader| walk(reader, kind));
                    self.keep(Needed::Restore, walked);
                    continue;
                }
            };
            if !claimed && tree_known {
                self.problems.add(Problem::Unclaimed { file: kind.file_name(id) });
            }
        }
        Ok(())
    }

    /// What was read, or nothing, with why as a problem.
    fn keep<T>(&mut self, needed: Needed, read: Result<T>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(Error::Image { path, source: ImageFault::Missing }) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.problems.add(Problem::Missing { file, needed });
                None
            }
            Err(error) => {
                self.problems.add(Problem::Unreadable(error));
                None
            }
        }
    }

    /// All of a small image by a number of its records; empty where it is missing.
    fn numbered<T: Record>(&mut self, kind: Kind, number: fn(&T) -> u64) -> HashMap<u64, T> {
        let read = self.images.all_or_none(kind);
        let records = self.keep(Needed::Restore, read).unwrap_or_default();
        records.into_iter().map(|record| (number(&record), record)).collect()
    }
}

fn host_page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}
