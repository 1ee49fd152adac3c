//! The images that are judged, all decoded.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::Restrictions;
use super::kinds::{self, Treatment};
use super::restrictions::Namespace;
use super::violation::{Line, Section, Violation};
use crate::error::{Error, Result};
use crate::images::message::Message;
use crate::images::{Images, Kind};

/// More records than this, of those that are kept to be judged, are not taken into memory.
const RECORDS_LIMIT: usize = 1 << 20;
/// More violations than this say nothing new.
const VIOLATIONS_LIMIT: usize = 1000;

/// CRIU's number for a file with a path.
pub(super) const REGULAR: u64 = 1;

/// A record of an image.
#[derive(Debug)]
pub(super) struct Record {
    /// The name of the image.
    pub(super) image: String,
    pub(super) kind: Kind,
    /// The number in that name: a task's or thread's, where the kind has these.
    pub(super) id: u32,
    pub(super) message: Message,
}

/// Everything that rules look at.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) allowed: &'a Restrictions,
    records: Vec<Record>,
    /// Of all files.
    pub(super) bytes: u64,
}

/// What is not allowed.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    section: &'a Section,
    found: Vec<Violation>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(section: &'a Section) -> Self {
        Self { section, found: Vec::new() }
    }

    /// Something that concerns an image, and no task or all of them.
    pub(super) fn refuse(&mut self, image: &str, line: Line, what: impl Into<String>) {
        self.add(image, None, line, what.into());
    }

    /// Something in a record.
    pub(super) fn refuse_in(&mut self, record: &Record, line: Line, what: impl Into<String>) {
        self.add(&record.image, record.task(), line, what.into());
    }

    fn add(&mut self, image: &str, task: Option<u32>, line: Line, what: String) {
        let violation = Violation { image: image.into(), task, what, line, section: self.section.clone() };
        if self.found.len() < VIOLATIONS_LIMIT && !self.found.contains(&violation) {
            self.found.push(violation);
        }
    }

    /// What was read, or why it cannot be judged.
    fn keep<T>(&mut self, image: &str, read: Result<T>) -> Option<T> {
        read.map_err(|error| self.refuse(image, Line::Unrestricted, chain(&error))).ok()
    }

    pub(super) fn into_violations(self) -> Vec<Violation> {
        self.found
    }
}

impl Record {
    /// The task or thread that it is about, if that is what the number of the image is.
    fn task(&self) -> Option<u32> {
        matches!(self.kind, Kind::Core | Kind::Ids | Kind::Memory | Kind::Directories).then_some(self.id)
    }
}

impl<'a> Scene<'a> {
    pub(super) fn new(allowed: &'a Restrictions) -> Self {
        Self { allowed, records: Vec::new(), bytes: 0 }
    }

    /// Reads every file of the directory; what may not be there is found on the way.
    pub(super) fn read(&mut self, images: &Images, findings: &mut Findings<'_>) -> Result<()> {
        for name in names(images)? {
            let Some(text) = name.to_str() else {
                findings.refuse(&name.to_string_lossy(), Line::Unrestricted, "no image has such a name");
                continue;
            };
            let Some((row, id)) = kinds::of(text) else {
                findings.refuse(text, Line::Unrestricted, "CRIU 4.2 writes no image of this name");
                continue;
            };
            if let Some(size) = findings.keep(text, images.size(text)) {
                self.bytes = self.bytes.saturating_add(size);
            }
            match row.treatment {
                Treatment::Judged(kind) => self.decode(images, text, kind, id, true, findings),
                Treatment::Decoded(kind, _) => self.decode(images, text, kind, id, false, findings),
                Treatment::Content => {}
                Treatment::Namespace(kind, namespace) => {
                    let allowed = self.allowed.namespaces.iter().any(|Namespace::Uts| namespace == "uts");
                    if !allowed {
                        findings.refuse(text, Line::Namespaces, format!("it is of a namespace ({namespace})"));
                    }
                    self.decode(images, text, kind, id, true, findings);
                }
                Treatment::Refused(why) => findings.refuse(text, Line::Unrestricted, why),
            }
        }
        Ok(())
    }

    fn decode(&mut self, images: &Images, image: &str, kind: Kind, id: u32, keep: bool, findings: &mut Findings<'_>) {
        let Some(messages) = findings.keep(image, images.messages(kind, id)) else { return };
        for message in messages {
            let Some(message) = findings.keep(image, message) else { return };
            if self.records.len() == RECORDS_LIMIT {
                return findings.refuse(image, Line::Unrestricted, "there are too many records to be judged");
            }
            if keep {
                self.records.push(Record { image: image.into(), kind, id, message });
            }
        }
    }

    /// The records of one kind.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.kind == kind)
    }

    /// PIDs and thread ids of the tree.
    pub(super) fn tids(&self) -> BTreeSet<u64> {
        self.of(Kind::Pstree)
            .flat_map(|record| record.message.number("pid").into_iter().chain(record.message.numbers("threads")))
            .collect()
    }

    /// Paths by the number that other records name them by.
    pub(super) fn paths(&self) -> HashMap<u64, PathBuf> {
        use std::os::unix::ffi::OsStrExt as _;
        let file = |record: &Record| {
            let file = record.message.message("reg")?;
            let path = std::ffi::OsStr::from_bytes(file.bytes("name")?);
            Some((file.number("id")?, PathBuf::from(path)))
        };
        self.of(Kind::Files).filter_map(file).collect()
    }
}

pub(super) fn names(images: &Images) -> Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStrExt as _;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let failed = |errno: nix::errno::Errno| Error::io("list the directory", images.path())(errno.into());
    let mut names = Vec::new();
    for entry in Dir::openat(images, ".", flags, Mode::empty()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", chain(source)))
}
