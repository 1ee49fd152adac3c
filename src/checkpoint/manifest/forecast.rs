//! Which files the images of a running tree would name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::build_id::build_id;
use super::compare::padded_hex;
use super::{Manifest, OutsideFile, Use};
use crate::checkpoint::root::Root;
use crate::checkpoint::seen::Seen;
use crate::error::Result;
use crate::process::{Descriptor, Kind, MappingKind, Place, Task, Tree};

impl Manifest {
    /// The files outside that the images of a tree would name if it were dumped now, with what is seen of them below `root`, the
    /// root of the tree's mount namespace. The tree runs on, so it is a forecast: it may open other files before its dump.
    ///
    /// A file that the tree may write to has no size here, as it is not the one that CRIU will insist on. Reads the headers of
    /// programs and libraries, and no other content: [`Manifest::hash`] does.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if there is no such `root`.
    pub fn forecast(tree: &Tree, root: &Path) -> Result<Self> {
        let root = Root::open(root)?;
        let mut uses: BTreeMap<&Path, BTreeSet<Use>> = BTreeMap::new();
        let mut written = BTreeSet::new();
        let mut add = |path, use_| {
            if super::collect::is_outside(path) {
                uses.entry(path).or_default().insert(use_);
            }
        };
        for task in tree.tasks.iter().filter(|task| !task.is_zombie()) {
            places(task).for_each(|(place, use_)| add(&place.path, use_));
            for descriptor in task.descriptors.iter().filter(|descriptor| is_named(descriptor)) {
                add(&descriptor.path, if descriptor.reads() { Use::Read } else { Use::Write });
                if descriptor.writes() {
                    written.insert(descriptor.path.as_path());
                }
            }
        }
        for (_, mapping) in tree.mapped_files.iter().filter(|(_, mapping)| mapping.kind == MappingKind::File) {
            add(&mapping.path, Use::Mapped);
            if mapping.shared && mapping.writable {
                written.insert(mapping.path.as_path());
            }
        }
        let found = uses.into_iter().map(|(path, uses)| look(&root, path, uses, written.contains(path)));
        Ok(Self(found.collect()))
    }

    /// The same for another host, where a file with this inode and this time is another.
    pub fn elsewhere(mut self) -> Self {
        for seen in self.0.iter_mut().filter_map(|file| file.seen.as_mut()) {
            (seen.device, seen.inode, seen.born_ns) = (0, 0, None);
        }
        self
    }
}

fn places(task: &Task) -> impl Iterator<Item = (&Place, Use)> {
    let places =
        [(&task.program, Use::Executable), (&task.directory, Use::CurrentDirectory), (&task.root, Use::RootDirectory)];
    places.into_iter().filter_map(|(place, use_)| Some((place.as_ref().filter(|place| !place.deleted)?, use_)))
}

/// Whether an image would name it by its path. A terminal is made anew.
fn is_named(descriptor: &Descriptor) -> bool {
    let is_device = || {
        let device = descriptor.status.map_or(0, |status| status.special_device);
        !is_terminal(device)
    };
    !descriptor.deleted
        && match descriptor.kind {
            Kind::Regular | Kind::Directory | Kind::Symlink | Kind::Fifo => true,
            Kind::CharacterDevice => is_device(),
            _ => false,
        }
}

/// By the major numbers of terminals: consoles, /dev/tty and its like, both ends of Unix98 pseudo-terminals.
fn is_terminal(device: u64) -> bool {
    matches!(libc::major(device), 4 | 5 | 128..=143)
}

fn look(root: &Root, path: &Path, uses: BTreeSet<Use>, is_written: bool) -> OutsideFile {
    let mut file = OutsideFile {
        path: path.to_owned(),
        uses: uses.into_iter().collect(),
        size_bytes: None,
        mode: None,
        build_id: None,
        seen: None,
        blake3: None,
        kept: None,
    };
    // What cannot be looked at is for CRIU to judge.
    let Ok(metadata) = root.look(path) else { return file };
    file.mode = Some(std::os::unix::fs::MetadataExt::mode(&metadata));
    file.seen = Some(Seen::of(&metadata));
    if metadata.is_file() && !is_written && file.is_hashed() {
        file.size_bytes = Some(metadata.len());
        let found = root.read(path).and_then(|opened| build_id(&opened)).ok().flatten();
        file.build_id = found.map(|id| padded_hex(&id));
    }
    file
}
