//! Files that the tree held open by a name that was gone while they had another (`--link-remap`).
//!
//! CRIU gives such a file a name of its own, `link_remap.N`, in the directory of the name that is gone, and the images
//! name that. A `--leave-running` dump deletes it again in the end, and so does the first restore: the second one then
//! fails. So its content is kept in the checkpoint while the tree is held at post-dump, the name is put back before every
//! restore, and after a dump or restore none is left.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::linkat;
use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use super::directory::Directory;
use super::manifest::{make_copy, store, store_copy};
use super::names::REMAPS;
use super::root::Root;
use super::seen::Seen;
use super::sums;
use crate::error::{Error, Result};
use crate::images::{Images, Object, RemapTarget};

/// A directory with more names than this is not searched for another name of the file.
const SEARCH_LIMIT: usize = 1 << 16;
/// How CRIU's names for such files begin.
const CRIU_NAME: &[u8] = b"link_remap.";

/// The link remaps of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Remaps(Vec<Remap>);

/// One file for which CRIU made a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remap {
    /// CRIU's name for it, in the mount namespace of the tree.
    #[serde(with = "super::text")]
    pub path: PathBuf,
    /// Another name of the same file in the same directory.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "super::text::option")]
    pub other: Option<PathBuf>,
    /// The file at the dump.
    pub seen: Seen,
    /// Its extended attributes, each value in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// Its name in `DIR/remaps`, where its content is kept; absent for what is no plain file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<u32>,
}

impl Remaps {
    /// Keeps the content of every link remap of the images in `DIR/remaps`. While the tree is held at post-dump: CRIU's
    /// names are there only then.
    ///
    /// # Errors
    /// [`Error::Image`] if the images cannot be read, [`Error::Io`] if a file cannot be read or kept.
    pub fn keep(images: &Images, root: &Path, directory: impl AsFd, path: &Path) -> Result<Self> {
        let links = links(images)?;
        if links.is_empty() {
            return Ok(Self::default());
        }
        let root = Root::open(root)?;
        let store = store(&Directory::new(directory.as_fd(), path), REMAPS)?;
        let keep = |(number, path)| keep(&root, &store, number, path);
        (0u32..).zip(links).map(keep).collect::<Result<_>>().map(Self)
    }

    /// Whether the images have any, so that [`keep`](Self::keep) has something to do.
    ///
    /// # Errors
    /// [`Error::Image`] if the images cannot be read.
    pub fn are_in(images: &Images) -> Result<bool> {
        links(images).map(|links| !links.is_empty())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The remaps.
    pub fn remaps(&self) -> &[Remap] {
        &self.0
    }

    /// How much room their content takes, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.0.iter().filter(|remap| remap.kept.is_some()).map(|remap| remap.seen.size_bytes).sum()
    }

    /// Removes the names that CRIU left, where they still are the files of this dump. After a dump, killing or not.
    ///
    /// # Errors
    /// [`Error::Io`] for the first that cannot be removed, after trying all.
    pub fn clear(&self, root: &Path) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let root = Root::open(root)?;
        all(self.0.iter().map(|remap| remove(&root, &remap.path, &remap.seen)))
    }

    /// Puts CRIU's names back before a restore: as a link to the other name where that is still the same file with the same
    /// size, else as a copy of the kept content. What it returns removes what is left of them, at the latest when dropped.
    ///
    /// # Errors
    /// [`Error::RemapTaken`] if another file has such a name, [`Error::Io`] if one cannot be made. Nothing is left then.
    pub fn put_back(&self, root: &Path, directory: impl AsFd, path: &Path) -> Result<PutBack> {
        let mut put_back = PutBack { root: Root::open(root)?, made: Vec::new() };
        let checkpoint = Directory::new(directory.as_fd(), path);
        for remap in &self.0 {
            let made = make(&put_back.root, &checkpoint, remap)?;
            put_back.made.push((remap.path.clone(), made));
        }
        Ok(put_back)
    }
}

/// CRIU's names, there for one restore.
#[derive(Debug)]
pub struct PutBack {
    root: Root,
    made: Vec<(PathBuf, Seen)>,
}

impl PutBack {
    /// Removes those that CRIU has not removed itself.
    ///
    /// # Errors
    /// [`Error::Io`] for the first that cannot be removed, after trying all.
    pub fn clear(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        let made = std::mem::take(&mut self.made);
        all(made.iter().map(|(path, seen)| remove(&self.root, path, seen)))
    }
}

impl Drop for PutBack {
    fn drop(&mut self) {
        // Whoever wants to know calls clear.
        let _ = self.remove();
    }
}

fn all(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let mut first = Ok(());
    for result in results {
        first = first.and(result);
    }
    first
}

/// The paths of the names that CRIU made for the unlinked files of a dump, in the mount namespace of the tree.
///
/// # Errors
/// [`Error::Image`] if the images cannot be read.
pub fn links(images: &Images) -> Result<BTreeSet<PathBuf>> {
    let target = |target| if let RemapTarget::Link(file) = target { Some(file) } else { None };
    let targets: BTreeSet<u32> = images.remaps()?.iter().filter_map(|remap| target(remap.target)).collect();
    if targets.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut paths = HashMap::new();
    for file in images.files()? {
        let file = file?;
        if let (true, Object::Regular(regular)) = (targets.contains(&file.id), file.object) {
            paths.insert(file.id, regular.path);
        }
    }
    Ok(paths.into_values().filter(|path| path.is_absolute() && is_criu_name(path)).collect())
}

fn is_criu_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(CRIU_NAME))
}

fn keep(root: &Root, store: &Directory, number: u32, path: PathBuf) -> Result<Remap> {
    let (parent, name) = root.parent(&path)?;
    let seen = look(&parent, name)?.ok_or_else(|| Error::io("find", parent.path_of(name))(Errno::ENOENT.into()))?;
    let kept = (seen.kind() == SFlag::S_IFREG).then_some(number);
    let mut attributes = Attributes::default();
    if kept.is_some() {
        let failed = || Error::io("read", parent.path_of(name));
        let from = parent.file(name).map_err(failed())?;
        attributes = Attributes::of(&from).map_err(failed())?;
        store_copy(&from, store, number)?;
    }
    let other = other_name(&parent, &seen)?.map(|name| path.with_file_name(name));
    Ok(Remap { path, other, seen, attributes, kept })
}

/// Another name of the file in the directory, but none of CRIU's.
fn other_name(parent: &Directory, seen: &Seen) -> Result<Option<std::ffi::OsString>> {
    for entry in parent.entries_up_to(SEARCH_LIMIT)? {
        let name = entry.os_name();
        let may_be = entry.inode == seen.inode && !name.as_encoded_bytes().starts_with(CRIU_NAME);
        if may_be && look(parent, name)?.is_some_and(|found| found.is_same_file(seen)) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// What a name is itself; `None` if there is none.
fn look(parent: &Directory, name: &OsStr) -> Result<Option<Seen>> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let failed = || Error::io("look at", parent.path_of(name));
    match openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(Seen::of(&File::from(fd).metadata().map_err(failed())?))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(failed()(errno.into())),
    }
}

fn make(root: &Root, checkpoint: &Directory<impl AsFd>, remap: &Remap) -> Result<Seen> {
    let (parent, name) = root.parent(&remap.path)?;
    let taken = || Error::RemapTaken { path: root.path_of(&remap.path) };
    if let Some(found) = look(&parent, name)? {
        // Left by a dump or restore that was killed.
        if found.is_same_file(&remap.seen) {
            return Ok(found);
        }
        return match is_copy(checkpoint, &parent, name, remap, &found)? {
            // It may have been killed before they were there.
            true => give_attributes(&parent, name, remap).map(|()| found),
            false => Err(taken()),
        };
    }
    if let Some(linked) = link(&parent, name, remap)? {
        return Ok(linked);
    }
    let missing = || Error::io("put back", root.path_of(&remap.path))(Errno::ENOENT.into());
    let number = remap.kept.ok_or_else(missing)?;
    if !make_copy(&checkpoint.directory(OsStr::new(REMAPS))?, number, &remap.seen, &parent, name)? {
        return Err(taken());
    }
    if let Err(error) = give_attributes(&parent, name, remap) {
        parent.unlink(name, Type::File)?;
        return Err(error);
    }
    look(&parent, name)?.ok_or_else(missing)
}

fn give_attributes(parent: &Directory, name: &OsStr, remap: &Remap) -> Result<()> {
    if remap.attributes.is_empty() {
        return Ok(());
    }
    let given = parent.file(name).and_then(|file| remap.attributes.apply(&file));
    given.map_err(Error::io("set the extended attributes of", parent.path_of(name)))
}

/// A hard link to the other name, if that is still the file.
fn link(parent: &Directory, name: &OsStr, remap: &Remap) -> Result<Option<Seen>> {
    let Some(other) = remap.other.as_deref().and_then(Path::file_name) else { return Ok(None) };
    // With another size CRIU would refuse it; the kept content has the right one.
    let is_right = |found: &Seen| found.is_same_file(&remap.seen) && found.size_bytes == remap.seen.size_bytes;
    if !look(parent, other)?.as_ref().is_some_and(is_right) {
        return Ok(None);
    }
    if linkat(parent, other, parent, name, AtFlags::empty()).is_err() {
        return Ok(None);
    }
    match look(parent, name)? {
        Some(found) if is_right(&found) => Ok(Some(found)),
        _ => parent.unlink(name, Type::File).map(|()| None),
    }
}

/// Whether a file is the copy that an earlier [`Remaps::put_back`] made.
fn is_copy(
    checkpoint: &Directory<impl AsFd>,
    parent: &Directory,
    name: &OsStr,
    remap: &Remap,
    found: &Seen,
) -> Result<bool> {
    let alike = |seen: &Seen| (seen.size_bytes, seen.mode, seen.uid, seen.gid);
    let Some(number) = remap.kept.filter(|_| alike(found) == alike(&remap.seen)) else { return Ok(false) };
    let store = checkpoint.directory(OsStr::new(REMAPS))?;
    let hash = |directory: &Directory, name: &OsStr| {
        directory.file(name).and_then(sums::hash).map_err(Error::io("read", directory.path_of(name)))
    };
    Ok(hash(parent, name)? == hash(&store, OsStr::new(&number.to_string()))?)
}

/// Removes a name if it still is that file.
fn remove(root: &Root, path: &Path, seen: &Seen) -> Result<()> {
    if !is_criu_name(path) {
        return Ok(());
    }
    let (parent, name) = match root.parent(path) {
        Ok(found) => found,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match look(&parent, name)? {
        Some(found) if found.is_same_file(seen) => parent.unlink(name, Type::File),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
