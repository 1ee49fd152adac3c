//! The far end: from the link to files.

mod intake;
mod pagemap;
mod touched;

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use self::intake::Intake;
use self::pagemap::Writer;
use self::touched::Touched;
use super::{Link, Patience, Problem, Stop};
use crate::error::{Error, Result};
use crate::images::PagemapOf;

/// CRIU's page server numbers its pages files from here, since a dump numbers those in the same directory from 1.
const FIRST_PAGES_ID: u32 = 0x1_0001;
/// More address spaces and shared memories than PIDs there are not.
const PAGEMAPS_LIMIT: usize = 1 << 22;
/// What an entry of a pagemap counts for.
const ENTRY_BYTES: u64 = 32;

/// Where memory arrives: a directory, on tmpfs where speed matters.
///
/// Writes the images that the page server of CRIU 4.2 writes, which 4.2 and later restore: a pagemap's number of pages is
/// in a field that CRIU 4.1.1 does not read. Nothing in the directory is replaced. What is written of a transfer that fails is
/// left for the owner of the directory to remove.
#[derive(Debug)]
pub struct Store {
    place: Place,
    touched: Touched,
    stop: Stop,
    patience: Patience,
    limit_bytes: u64,
    taken_bytes: u64,
    names: HashSet<PagemapOf>,
    /// What is longer than it has to be, and the length that it has to have.
    long: Vec<(File, u64)>,
    stored: Stored,
}

/// What a store has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Address spaces and shared memories.
    pub pagemaps: u64,
    /// Pages in pages files.
    pub pages: u64,
    /// Of these, pages of zeros that were told and not sent.
    pub zero_pages: u64,
}

/// A pages file to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whose; `None`: of some pagemap that was not expected otherwise (the number of shared memory is not known beforehand).
    pub of: Option<PagemapOf>,
    /// How large, about.
    pub bytes: u64,
}

/// The directory.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// A store in the directory at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when that is none.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(path, flags, Mode::empty());
        let directory = directory.map_err(|errno| Error::io("open the directory", path)(errno.into()))?;
        Self::in_directory(directory, path)
    }

    /// A store in the directory that is open as `directory`; messages call it `path`.
    ///
    /// # Errors
    /// [`Error::System`] when there are no descriptors left.
    pub fn in_directory(directory: OwnedFd, path: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self {
            place: Place { directory, path: path.into() },
            touched: Touched::default(),
            stop: Stop::new()?,
            patience: Patience::default(),
            limit_bytes: u64::MAX,
            taken_bytes: 0,
            names: HashSet::new(),
            long: Vec::new(),
            stored: Stored::default(),
        })
    }

    /// How long it waits.
    #[must_use]
    pub fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// How many bytes may arrive; pages of zeros count too.
    #[must_use]
    pub fn limit(self, limit_bytes: u64) -> Self {
        Self { limit_bytes, ..self }
    }

    /// What ends [`Store::touch`] and [`Store::run`] early.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Makes files of these sizes and writes to all of them, so that the kernel has found the memory when it is needed. Takes
    /// a second for two GiB or three. What was too much goes when the transfer is over, what was too little is found then.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no room; [`Problem::Stopped`], [`Problem::TooLarge`].
    pub fn touch(&mut self, expected: &[Expected]) -> Result<()> {
        let sum = expected.iter().try_fold(0_u64, |sum, expected| sum.checked_add(expected.bytes));
        if sum.is_none_or(|sum| sum > self.limit_bytes) {
            return Err(Problem::TooLarge { limit_bytes: self.limit_bytes }.into());
        }
        expected.iter().try_for_each(|expected| self.touched.add(&self.place, *expected, &self.stop))
    }

    /// Stores what a [`Relay`](super::Relay) sends, until its end. Blocks this thread.
    ///
    /// The link comes back. After success, and after a failure of this end or the other end's, it can be used on; after
    /// [`Problem::Cut`], `Link`, `Silence` and `Record` it cannot.
    ///
    /// # Errors
    /// [`Error::Io`] about a file, [`Error::Pages`] about all else. The source has been told why, where the link allowed it.
    pub fn run<L: Link>(self, link: L) -> (L, Result<Stored>) {
        let mut intake = Intake::new(self, link);
        let outcome = intake.all();
        intake.conclude(outcome)
    }

    /// Begins a pagemap.
    fn open(&mut self, of: PagemapOf) -> Result<Writer> {
        if self.names.len() >= PAGEMAPS_LIMIT || !self.names.insert(of) {
            let what = format!("{} twice, or more pagemaps than there can be", of.file_name());
            return Err(Problem::Record { what }.into());
        }
        let pages_id = FIRST_PAGES_ID + self.names.len() as u32 - 1;
        let name = format!("pages-{pages_id}.img");
        let pages = match self.touched.claim(&self.place, of, &name)? {
            Some(touched) => touched,
            None => (self.place.create(&name)?, 0),
        };
        self.stored.pagemaps += 1;
        Writer::new(&self.place, of, pages_id, pages, self.place.path.join(name))
    }

    /// Counts what is about to be stored.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.taken_bytes = self.taken_bytes.saturating_add(bytes);
        match self.taken_bytes > self.limit_bytes {
            true => Err(Problem::TooLarge { limit_bytes: self.limit_bytes }.into()),
            false => Ok(()),
        }
    }

    /// Gives back what was touched for nothing. The source does not wait for it.
    fn trim(&mut self) -> Result<()> {
        for (file, length) in self.long.drain(..) {
            file.set_len(length).map_err(Error::io("shorten a file in", &self.place.path))?;
        }
        self.touched.remove(&self.place)
    }
}

impl Place {
    /// Makes a file that is not there.
    fn create(&self, name: &str) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .map_err(|errno| Error::io("make", self.path.join(name))(errno.into()))
    }
}
