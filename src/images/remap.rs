//! `remap-fpath.img`, `ghost-file-ID.img`, `fs-PID.img` and `filelocks.img`: paths that files no longer have, and other small
//! things about files.

use std::path::PathBuf;

use super::name;
use super::record::Record;
use crate::proto::images::{file_lock, fs, ghost_file, remap_file_path as proto};

/// A file that had no path when it was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remap {
    /// The [`OpenFile`](super::OpenFile) without a path.
    pub file: u32,
    /// What stands in for it.
    pub target: RemapTarget,
}

/// What stands in for a file without a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemapTarget {
    /// A name that CRIU gave it at the dump (`link_remap.N`): the [`OpenFile`](super::OpenFile) with that path.
    Link(u32),
    /// A copy of its content: the number of its ghost image.
    Ghost(u32),
    /// /proc of a process that had ended: its PID.
    Process(u32),
    /// A kind unknown to this version.
    Other(i32, u32),
}

impl Record for Remap {
    type Message = proto::Remap_file_path_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        // Before there was a type, the top bit made a ghost.
        const GHOST: u32 = 1 << 31;
        let id = message.remap_id();
        let target = match message.remap_type.map(|kind| kind.value()) {
            None if id & GHOST != 0 => RemapTarget::Ghost(id & !GHOST),
            None | Some(0) => RemapTarget::Link(id),
            Some(1) => RemapTarget::Ghost(id),
            Some(2) => RemapTarget::Process(id),
            Some(other) => RemapTarget::Other(other, id),
        };
        Ok(Self { file: message.orig_id(), target })
    }
}

/// A deleted file whose content is in the images.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GhostFile {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// As `st_mode`.
    pub mode: u32,
    /// Its inode when it was dumped.
    pub inode: Option<u64>,
    /// Its size in bytes; old images do not say.
    pub size: Option<u64>,
    /// Where it led, if it was a symbolic link.
    pub link_target: Option<PathBuf>,
    /// Whether the content is stored without its holes.
    pub(super) chunks: bool,
}

impl Record for GhostFile {
    type Message = ghost_file::Ghost_file_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            uid: message.uid(),
            gid: message.gid(),
            mode: message.mode(),
            inode: message.ino,
            size: message.size,
            chunks: message.chunks(),
            link_target: message.symlnk_target.map(|target| name(Some(target)).into()),
        })
    }
}

/// The directories and umask of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Directories {
    /// The current directory, an [`OpenFile`](super::OpenFile).
    pub current: u32,
    /// The root directory, an [`OpenFile`](super::OpenFile).
    pub root: u32,
    /// Its umask.
    pub umask: Option<u32>,
}

impl Record for Directories {
    type Message = fs::Fs_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self { current: message.cwd_id(), root: message.root_id(), umask: message.umask })
    }
}

/// A lock on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lock {
    /// The task that holds it.
    pub pid: i32,
    /// Its descriptor of the file.
    pub fd: i32,
    /// 1 for fcntl(2), 2 for flock(2), 32 for a lease.
    pub flag: u32,
    /// `F_RDLCK`, `F_WRLCK`...
    pub lock_type: u32,
    /// First byte.
    pub start: i64,
    /// Bytes, 0 to the end of the file.
    pub length: i64,
}

impl Record for Lock {
    type Message = file_lock::File_lock_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            pid: message.pid(),
            fd: message.fd(),
            flag: message.flag(),
            lock_type: message.type_(),
            start: message.start(),
            length: message.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: u32, kind: Option<proto::Remap_type>) -> RemapTarget {
        let mut message = proto::Remap_file_path_entry::new();
        message.set_orig_id(7);
        message.set_remap_id(id);
        message.remap_type = kind.map(Into::into);
        Remap::from_message(message).expect("every number is taken").target
    }

    #[test]
    fn old_images_mark_a_ghost_by_the_top_bit() {
        assert_eq!(target((1 << 31) | 5, None), RemapTarget::Ghost(5));
        assert_eq!(target(5, None), RemapTarget::Link(5));
    }

    #[test]
    fn the_type_decides_where_there_is_one() {
        assert_eq!(target(5, Some(proto::Remap_type::GHOST)), RemapTarget::Ghost(5));
        assert_eq!(target(5, Some(proto::Remap_type::LINKED)), RemapTarget::Link(5));
        assert_eq!(target(5, Some(proto::Remap_type::PROCFS)), RemapTarget::Process(5));
    }
}
