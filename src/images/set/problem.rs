//! What can be wrong with a set of images.

use std::fmt;

use crate::error::Error;

/// What keeps a set of images from being restored. `Display` says all of it, causes included.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// An image is not there.
    Missing {
        /// Its name.
        file: String,
        /// What asks for it.
        needed: Needed,
    },
    /// An image cannot be read.
    Unreadable(Error),
    /// The images are of another format.
    Version {
        /// The one they say they have.
        found: u32,
    },
    /// The images are a pre-dump.
    PreDump,
    /// The tree has no task.
    NoTasks,
    /// A task comes before its parent, or its parent not at all.
    NoParent {
        /// The task.
        pid: u32,
        /// Its parent.
        ppid: u32,
    },
    /// A task is in the tree more than once.
    Twice {
        /// The task.
        pid: u32,
    },
    /// A task's core image is that of a mere thread.
    NoTaskCore {
        /// The task.
        pid: u32,
    },
    /// An image refers to an open file that files.img does not have.
    NoFile {
        /// The image that refers to it.
        file: String,
        /// The number it has there.
        id: u32,
    },
    /// An open file refers to something that another image should have and has not.
    NoObject {
        /// The open file.
        id: u32,
        /// The image.
        file: String,
        /// The number it should have there.
        number: u64,
    },
    /// A file of pages has another size than its pagemap says.
    Pages {
        /// The file of pages.
        file: String,
        /// The pagemap.
        pagemap: String,
        /// The size it should have, in bytes.
        expected: u64,
        /// The size it has, in bytes.
        found: u64,
    },
    /// Pages should be in the parent images and are not.
    NotInParent {
        /// The pagemap that says so.
        pagemap: String,
        /// How many, in pages.
        pages: u64,
        /// Whether there are no parent images at all.
        no_parent: bool,
    },
    /// Pages were left with the dumped tasks for a page server to send.
    Lazy {
        /// The pagemap that says so.
        pagemap: String,
        /// How many, in pages.
        pages: u64,
    },
    /// An image belongs to no task of the tree: a leftover of another dump, or the tree has lost a task.
    Unclaimed {
        /// Its name.
        file: String,
    },
    /// There are more problems than are listed.
    More {
        /// How many.
        count: u64,
    },
}

impl Problem {
    /// Whether CRIU could not restore the set. All but [`Problem::Unclaimed`]: CRIU does not look at what it does not need.
    pub fn prevents_restore(&self) -> bool {
        !matches!(self, Self::Unclaimed { .. })
    }
}

/// What asks for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needed {
    /// Every restore.
    Restore,
    /// A task, by its PID.
    Task(u32),
    /// A thread, by its TID and PID.
    Thread(u32, u32),
    /// Shared memory, by its number.
    SharedMemory(u32),
    /// An open file, by its number.
    File(u32),
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restore => write!(f, "every restore"),
            Self::Task(pid) => write!(f, "task {pid}"),
            Self::Thread(tid, pid) => write!(f, "thread {tid} of task {pid}"),
            Self::SharedMemory(id) => write!(f, "shared memory {id}"),
            Self::File(id) => write!(f, "open file {id}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { file, needed } => write!(f, "`{file}` is missing, which {needed} needs"),
            Self::Unreadable(error) => {
                write!(f, "{error}")?;
                let mut cause = std::error::Error::source(error);
                while let Some(deeper) = cause {
                    write!(f, ": {deeper}")?;
                    cause = deeper.source();
                }
                Ok(())
            }
            Self::Version { found } => write!(
                f,
                "the images have format version {found}, and only {} can be restored",
                crate::images::Inventory::SUPPORTED_VERSION
            ),
            Self::PreDump => write!(f, "the images are a pre-dump: memory pages, and no tasks to restore"),
            Self::NoTasks => write!(f, "`pstree.img` has no task"),
            Self::NoParent { pid, ppid } => {
                write!(f, "`pstree.img` has task {pid} and not, before it, its parent {ppid}")
            }
            Self::Twice { pid } => write!(f, "`pstree.img` has task {pid} more than once"),
            Self::NoTaskCore { pid } => write!(f, "`core-{pid}.img` is that of a thread and not of a task"),
            Self::NoFile { file, id } => {
                write!(f, "`{file}` refers to open file {id}, which `files.img` does not have")
            }
            Self::NoObject { id, file, number } => {
                write!(f, "open file {id} refers to number {number} of `{file}`, which is not there")
            }
            Self::Pages { file, pagemap, expected, found } => {
                write!(f, "`{file}` has {found} bytes where `{pagemap}` says {expected}")
            }
            Self::NotInParent { pagemap, pages, no_parent: true } => {
                write!(f, "{pages} pages of `{pagemap}` are in parent images, and there is no `parent`")
            }
            Self::NotInParent { pagemap, pages, no_parent: false } => {
                write!(f, "{pages} pages of `{pagemap}` should be in the parent images and are not")
            }
            Self::Lazy { pagemap, pages } => {
                write!(f, "{pages} pages of `{pagemap}` are in no image: a page server was to send them")
            }
            Self::Unclaimed { file } => write!(f, "`{file}` belongs to no task of the tree"),
            Self::More { count } => write!(f, "and {count} more"),
        }
    }
}

/// A list of problems that cannot grow without bound.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    more: u64,
}

impl Problems {
    /// Nobody reads further.
    const LIMIT: usize = 1000;

    pub(super) fn add(&mut self, problem: Problem) {
        match self.list.len() < Self::LIMIT {
            true => self.list.push(problem),
            false => self.more += 1,
        }
    }
}

impl From<Problems> for Vec<Problem> {
    fn from(problems: Problems) -> Self {
        let Problems { mut list, more } = problems;
        if more > 0 {
            list.push(Problem::More { count: more });
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_ends_with_how_many_more_there_are() {
        let mut problems = Problems::default();
        (0..1234).for_each(|pid| problems.add(Problem::Twice { pid }));
        let list = Vec::from(problems);
        assert_eq!(list.len(), 1001);
        assert!(matches!(list.last(), Some(Problem::More { count: 234 })));
    }
}
