//! That what refers to open files finds them, and that they find what they refer to.

use std::collections::HashSet;

use super::{Check, Needed, Problem};
use crate::error::ImageFault;
use crate::images::record::RECORDS_LIMIT;
use crate::images::{FileType, Kind, Memfd, Object, OpenFile, Remap, RemapTarget, SocketState, Terminal};

/// The open files of a set.
#[derive(Default)]
pub(super) struct Files {
    /// Whether files.img could be read; if not, all else about it would be noise.
    known: bool,
    ids: HashSet<u32>,
    typed: HashSet<(FileType, u32)>,
}

impl Check<'_> {
    /// Reads files.img and the images that its files need.
    pub(super) fn open_files(&mut self, tcp_close: bool) {
        let terminals = self.numbered(Kind::Terminals, |terminal: &Terminal| terminal.id.into());
        let memfds = self.numbered(Kind::Memfds, |memfd: &Memfd| memfd.inode);
        let shared = memfds.values().filter(|memfd| memfd.size > 0).map(|memfd| memfd.shared_memory);
        self.shared_memory.extend(shared);
        let Some(files) = self.keep(Needed::Restore, self.images.files()) else { return };
        for file in files {
            let Some(OpenFile { id, file_type, object }) = self.keep(Needed::Restore, file) else { return };
            if self.files.typed.len() as u64 >= RECORDS_LIMIT {
                let path = self.images.path.join(Kind::Files.file_name(0));
                let source = ImageFault::TooManyRecords { limit: RECORDS_LIMIT };
                self.problems.add(Problem::Unreadable(crate::Error::Image { path, source }));
                return;
            }
            self.files.ids.insert(id);
            self.files.typed.insert((file_type, id));
            let lost = |kind: Kind, number| Problem::NoObject { id, file: kind.file_name(0), number };
            match object {
                Object::Terminal(file) if !terminals.contains_key(&file.terminal.into()) => {
                    self.problems.add(lost(Kind::Terminals, file.terminal.into()));
                }
                Object::Memfd(file) if !memfds.contains_key(&file.inode.into()) => {
                    self.problems.add(lost(Kind::Memfds, file.inode.into()));
                }
                Object::Inet(socket) => {
                    let queues = socket.is_tcp_connection() && socket.state == SocketState::Established && !tcp_close;
                    if queues && !self.images.has(&Kind::TcpStream.file_name(socket.inode)) {
                        let file = Kind::TcpStream.file_name(socket.inode);
                        self.problems.add(Problem::Missing { file, needed: Needed::File(id) });
                    }
                }
                _ => {}
            }
        }
        self.files.known = true;
        self.remaps();
    }

    fn remaps(&mut self) {
        let Some(remaps) = self.keep(Needed::Restore, self.images.remaps()) else { return };
        for Remap { file, target } in remaps {
            match target {
                RemapTarget::Ghost(id) => {
                    self.ghosts.insert(id);
                    let ghost = Kind::Ghost.file_name(id);
                    if !self.images.has(&ghost) {
                        self.problems.add(Problem::Missing { file: ghost, needed: Needed::File(file) });
                    }
                }
                RemapTarget::Link(id) => self.refers(Kind::Remaps, 0, &[id]),
                _ => {}
            }
        }
    }

    /// The descriptors of the table `files_id`, which a task needs.
    pub(super) fn descriptors(&mut self, files_id: u32, needed: Needed) {
        let Some(descriptors) = self.keep(needed, self.images.descriptors(files_id)) else { return };
        let mut lost: Vec<u32> = descriptors
            .iter()
            .filter(|descriptor| {
                self.files.known && !self.files.typed.contains(&(descriptor.file_type, descriptor.file))
            })
            .map(|descriptor| descriptor.file)
            .collect();
        lost.sort_unstable();
        lost.dedup();
        for id in lost {
            self.problems.add(Problem::NoFile { file: Kind::Descriptors.file_name(files_id), id });
        }
    }

    /// That files.img has the files that the image of `kind` with the number `id` refers to.
    pub(super) fn refers(&mut self, kind: Kind, id: u32, files: &[u32]) {
        for &file in files.iter().filter(|file| self.files.known && !self.files.ids.contains(file)) {
            self.problems.add(Problem::NoFile { file: kind.file_name(id), id: file });
        }
    }
}
