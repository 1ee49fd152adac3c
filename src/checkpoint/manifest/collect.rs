//! Which files the images name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::compare::padded_hex;
use super::{Manifest, OutsideFile, Use};
use crate::checkpoint::root::Root;
use crate::checkpoint::seen::Seen;
use crate::error::{Error, ImageFault, Result};
use crate::images::{Images, Object, RegularFile, RemapTarget};

impl Manifest {
    /// The files outside that the images name, with what is seen of them below `root`, the root of the tree's mount
    /// namespace (`/proc/PID/root` of its first task, or `/`). Reads no content.
    ///
    /// Where the tree runs on since `held`, nothing counts as seen of a file that was changed, or given its name, since then:
    /// that is not what it had.
    ///
    /// Left out is what the images hold themselves (deleted files, link remaps, memfds) or a restore gets from elsewhere
    /// (`--external`), and what is in /proc.
    ///
    /// # Errors
    /// [`Error::Image`] if an image cannot be read, [`Error::Io`] if there is no such `root`.
    pub fn collect(images: &Images, root: &Path, held: Option<SystemTime>) -> Result<Self> {
        let root = Root::open(root)?;
        let held = held.and_then(|held| held.duration_since(UNIX_EPOCH).ok());
        let held = held.map(|held| (i64::try_from(held.as_secs()).unwrap_or(i64::MAX), i64::from(held.subsec_nanos())));
        let is_of_then = |metadata: &Metadata| held.is_none_or(|held| (metadata.ctime(), metadata.ctime_nsec()) < held);
        let mut manifest = Self::named_by(images)?;
        for file in &mut manifest.0 {
            // One that is hidden by now, by a mount or another name, is for CRIU to judge.
            file.seen = file.look(&root).ok().filter(is_of_then).map(|metadata| Seen::of(&metadata));
        }
        Ok(manifest)
    }

    /// The same from the images alone, for a checkpoint without crr.json: what CRIU insists on, and no more.
    ///
    /// # Errors
    /// [`Error::Image`] if an image cannot be read.
    pub fn named_by(images: &Images) -> Result<Self> {
        let uses = uses(images)?;
        let mut inside = inside(images)?;
        let mut regulars = Vec::new();
        for file in images.files()? {
            let file = file?;
            match file.object {
                Object::Regular(regular) => regulars.push((file.id, regular)),
                // A terminal is made anew, or the restorer's own takes its place: its number may be another then.
                Object::Terminal(terminal) => inside.extend(terminal.path),
                _ => {}
            }
        }
        let mut files: BTreeMap<PathBuf, OutsideFile> = BTreeMap::new();
        for (id, regular) in regulars {
            if regular.external || inside.contains(&id) || !is_outside(&regular.path) {
                continue;
            }
            let mut uses = uses.get(&id).cloned().unwrap_or_default();
            // One without a size was open for writing only, or is no plain file.
            if uses.is_empty() {
                uses.insert(open_use(&regular));
            }
            add(&mut files, regular, uses);
        }
        Ok(Self(files.into_values().collect()))
    }
}

fn add(files: &mut BTreeMap<PathBuf, OutsideFile>, regular: RegularFile, uses: BTreeSet<Use>) {
    let file = files.entry(regular.path).or_insert_with_key(|path| OutsideFile {
        path: path.clone(),
        uses: Vec::new(),
        size_bytes: None,
        mode: None,
        build_id: None,
        seen: None,
        blake3: None,
        kept: None,
    });
    file.uses.extend(uses);
    file.uses.sort();
    file.uses.dedup();
    file.size_bytes = file.size_bytes.or(regular.size);
    file.mode = file.mode.or(regular.mode);
    file.build_id = file.build_id.take().or(regular.build_id.map(|id| padded_hex(&id)));
}

/// Whether the path is one of a file that lies on a disk, or of a device.
pub(super) fn is_outside(path: &Path) -> bool {
    path.is_absolute() && !path.starts_with("/proc")
}

fn open_use(file: &RegularFile) -> Use {
    const ACCESS: u32 = libc::O_ACCMODE as u32;
    if file.flags & ACCESS == libc::O_WRONLY as u32 { Use::Write } else { Use::Read }
}

/// The files that the images themselves bring: those without a path, and the stand-ins for these.
fn inside(images: &Images) -> Result<HashSet<u32>> {
    let mut inside = HashSet::new();
    for remap in images.remaps()? {
        inside.insert(remap.file);
        if let RemapTarget::Link(file) = remap.target {
            inside.insert(file);
        }
    }
    Ok(inside)
}

/// What is run, mapped or some task's directory; all else is open.
fn uses(images: &Images) -> Result<HashMap<u32, BTreeSet<Use>>> {
    let mut uses: HashMap<u32, BTreeSet<Use>> = HashMap::new();
    for task in images.tasks()? {
        if let Some(memory) = present(images.memory(task.pid))? {
            uses.entry(memory.executable).or_default().insert(Use::Executable);
            for file in memory.mappings.iter().filter_map(|mapping| mapping.file()) {
                uses.entry(file).or_default().insert(Use::Mapped);
            }
        }
        if let Some(directories) = present(images.directories(task.pid))? {
            uses.entry(directories.current).or_default().insert(Use::CurrentDirectory);
            uses.entry(directories.root).or_default().insert(Use::RootDirectory);
        }
    }
    Ok(uses)
}

/// A zombie has neither memory nor directories.
fn present<T>(image: Result<T>) -> Result<Option<T>> {
    match image {
        Ok(image) => Ok(Some(image)),
        Err(Error::Image { source: ImageFault::Missing, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
