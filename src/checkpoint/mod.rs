//! A checkpoint directory: publishing it by rename, crr.json, the files it needs from outside, sums, and who may write it.
//!
//! Nothing here needs CRIU, and little needs root. The functions block; a flow calls the long ones (`publish`, `Sums`,
//! `Manifest::hash`, `Manifest::keep`) where blocking is allowed.
//!
//! The life of a dump, with what a crr killed after each step leaves:
//!
//! | step | a crr killed after it leaves |
//! |---|---|
//! | [`Partial::create`] | `DIR.partial`, which the next dump to DIR removes; DIR as it was |
//! | CRIU writes, [`Remaps::keep`], [`Record::write`] | the same |
//! | [`Partial::publish`]: flush | the same |
//! | [`Partial::publish`]: rename | DIR whole, the tree still held by CRIU, which lets it run: both are there |
//! | CRIU kills the tree | DIR whole, without sums |
//! | [`Record::write`] with sums | DIR whole |

mod attributes;
mod container;
mod directory;
#[cfg(test)]
mod fixture;
mod host;
mod manifest;
mod names;
mod options;
mod parallel;
mod partial;
mod record;
mod remap;
mod remove;
mod room;
mod root;
mod seen;
mod sums;
mod text;
mod tree;
mod trust;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

pub use self::attributes::Attributes;
pub use self::container::{
    ImagesKind, NetworkKind, RecordedContainer, RecordedEntry, RecordedFile, RecordedInterface, RecordedNamespace,
    RecordedTmpfs,
};
pub(crate) use self::directory::{Directory, kind};
pub use self::host::{RecordedCpu, RecordedHost};
pub use self::manifest::{Difference, DifferenceKind, Manifest, OutsideFile, Seen, Use};
pub use self::names::CONTAINER_FILES;
pub use self::options::RecordedOptions;
pub use self::partial::{Flush, Partial, Step};
pub use self::record::{RECORD_NAME, RECORD_VERSION, Record, RecordedLock, RecordedStatistics};
pub use self::remap::{PutBack, Remap, Remaps, links};
pub use self::room::room;
pub use self::sums::{Sum, Sums};
pub use self::tree::{RecordedCgroup, RecordedTask};
pub use self::trust::{Caller, Trust};
pub(crate) use self::trust::{open_directory, open_place};
use crate::error::{DirectoryProblem, Error, Result};

/// A checkpoint directory, opened once: what is checked is what CRIU gets.
#[derive(Debug)]
pub struct Checkpoint {
    directory: Directory,
    record: Option<Record>,
}

impl Checkpoint {
    /// Opens a checkpoint to restore it, and reads its crr.json if it has one.
    ///
    /// # Errors
    /// [`Error::Directory`] if it is none, [`Error::Untrusted`] with every reason if `trust` does not believe it,
    /// [`Error::Record`] if its crr.json cannot be understood.
    pub fn open(dir: &Path, trust: Trust) -> Result<Self> {
        let (reached, found) = trust::open_directory(dir, trust).map_err(|error| match &error {
            Error::Io { source, .. } if source.raw_os_error() == Some(Errno::ENOENT as i32) => {
                problem(dir, DirectoryProblem::NotFound)
            }
            Error::Io { source, .. } if source.raw_os_error() == Some(Errno::ENOTDIR as i32) => {
                problem(dir, DirectoryProblem::NotADirectory)
            }
            _ => error,
        })?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(&reached, ".", flags, Mode::empty()).map_err(|errno| Error::io("open", dir)(errno.into()))?;
        let directory = Directory::new(fd, reached.path());
        // Before its content is believed in any way.
        trust::believed(dir, trust::contents(&directory, trust, found)?)?;
        if directory.stat(OsStr::new(names::INVENTORY))?.is_none() {
            let is_empty = directory.entries_up_to(1)?.is_empty();
            return Err(problem(
                dir,
                if is_empty { DirectoryProblem::Empty } else { DirectoryProblem::NotACheckpoint },
            ));
        }
        let record = Record::read(&directory)?;
        Ok(Self { directory, record })
    }

    /// The directory, without symbolic links.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its crr.json; `None` for one that the criu program wrote.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Adds sums and statistics to the record, by way of another name.
    ///
    /// # Errors
    /// [`Error::Io`] if crr.json cannot be written; the old one is then still whole.
    pub fn complete(&mut self, sums: Option<Sums>, statistics: Option<RecordedStatistics>, flush: Flush) -> Result<()> {
        let Some(record) = self.record.as_mut() else { return Ok(()) };
        record.sums = sums;
        record.statistics = statistics;
        record.write(&self.directory, self.directory.path(), flush)
    }

    /// Replaces the manifest in the record, as after [`Manifest::hash`]; [`complete`](Self::complete) writes it.
    pub fn set_files(&mut self, files: Manifest) {
        if let Some(record) = self.record.as_mut() {
            record.files = files;
        }
    }
}

impl AsFd for Checkpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn problem(dir: &Path, problem: DirectoryProblem) -> Error {
    Error::Directory { dir: dir.into(), problem }
}
