//! What the files of `files.img` are used for.

use std::collections::HashSet;

use super::super::scene::{REGULAR, Scene};
use crate::images::Kind;
use crate::images::message::Message;

/// Numbers of files with a path, by what refers to them. A file may be in several.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// A descriptor.
    pub(super) opened: HashSet<u64>,
    /// A mapping, or the executable.
    pub(super) mapped: HashSet<u64>,
    /// A mapping that writes to the file.
    pub(super) written: HashSet<u64>,
    /// A current directory or root.
    pub(super) directories: HashSet<u64>,
    /// A terminal.
    pub(super) terminals: HashSet<u64>,
    /// The name that stands in for a file that was unlinked, and the file.
    pub(super) linked: HashSet<u64>,
    /// A file without a name: its content is in the images.
    pub(super) ghosts: HashSet<u64>,
}

const FILE_PRIVATE: u64 = 1 << 6;
const FILE_SHARED: u64 = 1 << 7;
const AIO_RING: u64 = 1 << 13;
const MEMFD: u64 = 1 << 14;
const PROT_WRITE: u64 = libc::PROT_WRITE as u64;

/// The file that a mapping is of.
pub(super) fn mapped_file(mapping: &Message) -> Option<u64> {
    let status = mapping.number("status")?;
    let of_file = status & (FILE_PRIVATE | FILE_SHARED) != 0 && status & (AIO_RING | MEMFD) == 0;
    of_file.then(|| mapping.number("shmid"))?
}

/// Whether a file is written by being opened so, or may be afterwards.
pub(super) fn writes(flags: u64) -> bool {
    flags & (libc::O_ACCMODE | libc::O_TRUNC | libc::O_CREAT) as u64 != 0
}

/// Whether mapping it opens the file for writing, or writing to the mapping writes to it.
fn is_written(mapping: &Message) -> bool {
    let number = |field| mapping.number(field).unwrap_or(0);
    let shared = number("status") & FILE_SHARED != 0 || number("flags") & libc::MAP_SHARED as u64 != 0;
    mapping.number("fdflags").is_some_and(writes) || (shared && number("prot") & PROT_WRITE != 0)
}

impl Uses {
    pub(super) fn of(scene: &Scene<'_>) -> Self {
        let mut uses = Self::default();
        for record in scene.of(Kind::Descriptors).filter(|record| record.message.number("type") == Some(REGULAR)) {
            uses.opened.extend(record.message.number("id"));
        }
        for record in scene.of(Kind::Files) {
            let path = |part: &str| record.message.message(part).and_then(|part| part.number("regf_id"));
            uses.opened.extend(path("fifo"));
            uses.terminals.extend(path("tty"));
        }
        for record in scene.of(Kind::Memory) {
            uses.mapped.extend(record.message.number("exe_file_id"));
            for mapping in record.message.messages("vmas") {
                let Some(file) = mapped_file(mapping) else { continue };
                uses.mapped.insert(file);
                if is_written(mapping) {
                    uses.written.insert(file);
                }
            }
        }
        for record in scene.of(Kind::Directories) {
            uses.directories
                .extend(record.message.number("cwd_id").into_iter().chain(record.message.number("root_id")));
        }
        for record in scene.of(Kind::Remaps) {
            let number = |field| record.message.number(field);
            match number("remap_type") {
                Some(1) => uses.ghosts.extend(number("orig_id")),
                Some(0) => uses.linked.extend(number("orig_id").into_iter().chain(number("remap_id"))),
                // Judged where remaps are.
                _ => {}
            }
        }
        uses
    }

    /// Whether nothing refers to it but, perhaps, a name that stands in for it.
    pub(super) fn is_unused(&self, file: u64) -> bool {
        let referring = [&self.opened, &self.mapped, &self.directories, &self.terminals, &self.linked];
        !referring.iter().any(|uses| uses.contains(&file))
    }
}
