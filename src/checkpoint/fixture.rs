//! Small sets of images for tests: a task with some files, written as CRIU writes them.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use protobuf::{Message, MessageField};

use crate::images::{Images, Kind};
use crate::proto::images::{fdinfo, fown, fs as directories, mm, pstree, regfile, remap_file_path as remap, vma};

const COMMON_MAGIC: u32 = 0x5456_4319;
const PID: u32 = 7;
/// CRIU's `VMA_FILE_PRIVATE`.
const FILE_PRIVATE: u32 = 1 << 6;

/// One task whose executable is file 1, which maps file 2, whose directories are file 3, and which has the others open.
#[derive(Default)]
pub(crate) struct Fixture {
    files: BTreeMap<u32, regfile::Reg_file_entry>,
    remaps: Vec<remap::Remap_file_path_entry>,
}

impl Fixture {
    /// A file that is as it is in the filesystem, but called `path`.
    pub(crate) fn file(mut self, id: u32, path: &Path, flags: i32, now: Option<&Metadata>) -> Self {
        let mut entry = regfile::Reg_file_entry::new();
        entry.set_id(id);
        entry.set_flags(flags as u32);
        entry.set_pos(0);
        entry.set_name(path.as_os_str().as_bytes().to_vec());
        let mut owner = fown::Fown_entry::new();
        owner.set_uid(0);
        owner.set_euid(0);
        owner.set_signum(0);
        owner.set_pid_type(0);
        owner.set_pid(0);
        entry.fown = MessageField::some(owner);
        let appends = flags & libc::O_ACCMODE == libc::O_WRONLY && flags & libc::O_APPEND != 0;
        if let Some(now) = now {
            entry.set_mode(now.mode());
            if now.is_file() && !appends {
                entry.set_size(now.len());
            }
        }
        self.files.insert(id, entry);
        self
    }

    pub(crate) fn build_id(mut self, id: u32, build_id: &[u8]) -> Self {
        let words = build_id.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        self.files.get_mut(&id).unwrap().build_id = words;
        self
    }

    pub(crate) fn remap(mut self, file: u32, target: u32, kind: remap::Remap_type) -> Self {
        let mut entry = remap::Remap_file_path_entry::new();
        entry.set_orig_id(file);
        entry.set_remap_id(target);
        entry.set_remap_type(kind);
        self.remaps.push(entry);
        self
    }

    /// Writes the images into a directory.
    pub(crate) fn write(&self, dir: &Path) -> Images {
        let mut task = pstree::Pstree_entry::new();
        task.set_pid(PID);
        task.set_ppid(0);
        task.set_pgid(PID);
        task.set_sid(PID);
        task.threads = vec![PID];
        write(dir, Kind::Pstree, &[task]);
        let files: Vec<_> = self.files.values().map(open_file).collect();
        write(dir, Kind::Files, &files);
        write(dir, Kind::Memory, &[memory()]);
        let mut directory = directories::Fs_entry::new();
        directory.set_cwd_id(3);
        directory.set_root_id(3);
        write(dir, Kind::Directories, &[directory]);
        if !self.remaps.is_empty() {
            write(dir, Kind::Remaps, &self.remaps);
        }
        Images::open(dir).unwrap()
    }
}

fn open_file(entry: &regfile::Reg_file_entry) -> fdinfo::File_entry {
    let mut file = fdinfo::File_entry::new();
    file.set_type(fdinfo::Fd_types::REG);
    file.set_id(entry.id());
    file.reg = MessageField::some(entry.clone());
    file
}

fn memory() -> mm::Mm_entry {
    let mut memory = mm::Mm_entry::new();
    let descriptor = <mm::Mm_entry as protobuf::MessageFull>::descriptor();
    for field in descriptor.fields().filter(|field| field.is_required()) {
        let value = field.singular_default_value().to_box();
        field.set_singular_field(&mut memory, value);
    }
    memory.set_exe_file_id(1);
    let mut mapping = vma::Vma_entry::new();
    mapping.set_start(0x1000);
    mapping.set_end(0x2000);
    mapping.set_pgoff(0);
    mapping.set_shmid(2);
    mapping.set_prot(1);
    mapping.set_flags(2);
    mapping.set_status(1 | FILE_PRIVATE);
    mapping.set_fd(-1);
    memory.vmas = vec![mapping];
    memory
}

fn write<M: Message>(dir: &Path, kind: Kind, records: &[M]) {
    let mut bytes = [COMMON_MAGIC.to_le_bytes(), kind.magic().to_le_bytes()].concat();
    for record in records {
        let record = record.write_to_bytes().unwrap();
        bytes.extend(u32::try_from(record.len()).unwrap().to_le_bytes());
        bytes.extend(record);
    }
    fs::write(dir.join(kind.file_name(PID)), bytes).unwrap();
}
