//! What the readers say about the tree of victim.c.

use std::ffi::OsStr;
use std::net::Ipv4Addr;

use super::*;
use crate::proto::images as proto;
use crate::proto::images::core::Core_entry;

fn root_and_others() -> (Images, Task, Vec<Task>) {
    let images = good();
    let mut tasks = images.tasks().expect("a good image");
    let root = tasks.remove(0);
    (images, root, tasks)
}

fn all_files(images: &Images) -> Vec<OpenFile> {
    images.files().expect("a good image").map(|file| file.expect("a good record")).collect()
}

fn regular(files: &[OpenFile], name: &str) -> RegularFile {
    let found = files.iter().find_map(|file| match &file.object {
        Object::Regular(file) if file.path.file_name() == Some(OsStr::new(name)) => Some(file.clone()),
        _ => None,
    });
    found.expect(name)
}

#[test]
fn the_inventory_is_that_of_a_dump() {
    let inventory = good().inventory().expect("a good image");
    assert_eq!(inventory.version, Inventory::SUPPORTED_VERSION);
    assert!(!inventory.pre_dump && !inventory.tcp_close);
    assert_eq!(inventory.security_module, SecurityModule::None);
    assert!(inventory.root_ids.is_some() && inventory.run_id.is_some());
}

#[test]
fn the_tree_has_a_root_with_a_thread_a_zombie_and_a_child() {
    let (images, root, others) = root_and_others();
    assert_eq!((root.ppid, root.sid, root.threads.len()), (0, root.pid, 2));
    assert_eq!(images.core(root.pid).expect("a good image").comm(), Some(OsStr::new("victim")));
    let thread = images.core(root.threads[1]).expect("a good image");
    assert_eq!((thread.comm(), &thread.task), (Some(OsStr::new("second")), &None));
    assert_eq!(others.len(), 2);
    assert!(others.iter().all(|task| task.ppid == root.pid));
    let states: Vec<_> =
        others.iter().map(|task| images.core(task.pid).expect("a good image").task.expect("a leader").state).collect();
    assert_eq!(states, [TaskState::Zombie, TaskState::Stopped]);
}

#[test]
fn the_signal_at_the_parents_death_is_that_of_the_task_or_of_one_of_its_threads() {
    let (home, images) = copy();
    let root = images.tasks().expect("readable")[0].clone();
    assert_eq!(images.parent_death_signal(&root).expect("readable"), None);
    for (place, signal) in root.threads.iter().zip([15, 10]).collect::<Vec<_>>().into_iter().rev() {
        let path = home.path().join(Kind::Core.file_name(*place));
        let mut core: Vec<Core_entry> = messages(Kind::Core, &std::fs::read(&path).expect("readable"));
        core[0].thread_core.as_mut().expect("a thread").set_pdeath_sig(signal);
        std::fs::write(&path, image(Kind::Core, [&core[0] as &dyn protobuf::MessageDyn])).expect("written");
        assert_eq!(images.parent_death_signal(&root).expect("readable"), Some(signal));
    }
    assert!(root.threads.len() > 1);
}

#[test]
fn a_zombie_has_its_exit_status_and_nothing_else() {
    let (images, _, others) = root_and_others();
    let core = images.core(others[0].pid).expect("a good image");
    assert_eq!(core.task.expect("a leader").exit_code, 7 << 8);
    assert!(core.thread.is_none());
    assert!(matches!(images.ids(others[0].pid), Err(Error::Image { source: ImageFault::Missing, .. })));
}

#[test]
fn credentials_are_those_of_root() {
    let (images, root, _) = root_and_others();
    let thread = images.core(root.pid).expect("a good image").thread.expect("alive");
    let credentials = thread.credentials.expect("merged into the core");
    assert_eq!([credentials.uid, credentials.euid, credentials.gid, credentials.fsgid], [0; 4]);
    assert_ne!(credentials.permitted & (1 << 21), 0, "CAP_SYS_ADMIN");
    assert_eq!(credentials.permitted, credentials.effective);
    assert_eq!(thread.seccomp, Seccomp::Disabled);
}

#[test]
fn descriptors_lead_to_files() {
    let (images, root, others) = root_and_others();
    let files = all_files(&images);
    let ids = images.ids(root.pid).expect("a good image");
    let descriptors = images.descriptors(ids.files).expect("a good image");
    assert_eq!(descriptors.iter().map(|descriptor| descriptor.fd).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    for descriptor in &descriptors {
        let file = files.iter().find(|file| file.id == descriptor.file).expect("in files.img");
        assert_eq!(file.file_type, descriptor.file_type);
    }
    let child = images.ids(others[1].pid).expect("a good image");
    assert_ne!(child.files, ids.files);
    assert_eq!(images.descriptors(child.files).expect("a good image").len(), descriptors.len());
}

#[test]
fn a_regular_file_has_path_size_mode_and_position() {
    let files = all_files(&good());
    let file = regular(&files, "regular");
    assert!(file.path.is_absolute());
    assert_eq!((file.size, file.position, file.external), (Some(10), 4, false));
    assert_eq!(file.mode.map(|mode| mode & 0o7777), Some(0o640));
    assert_eq!(file.flags & libc::O_ACCMODE as u32, libc::O_RDWR as u32);
}

#[test]
fn the_executable_and_the_directories_are_files_too() {
    let (images, root, _) = root_and_others();
    let files = all_files(&images);
    let memory = images.memory(root.pid).expect("a good image");
    let executable = regular(&files, "victim");
    assert_eq!(memory.executable, executable.id);
    assert_eq!(executable.build_id.map(|id| id.len()), Some(20));
    assert!(memory.mappings.iter().any(|mapping| mapping.file() == Some(executable.id)));
    let shared = regular(&files, "shared").id;
    assert!(memory.mappings.iter().any(|mapping| mapping.file() == Some(shared)));
    let directories = images.directories(root.pid).expect("a good image");
    assert_eq!(directories.current, regular(&files, "home").id);
    assert!(files.iter().any(|file| file.id == directories.root));
}

#[test]
fn the_deleted_file_is_a_ghost() {
    let images = good();
    let remaps = images.remaps().expect("a good image");
    let [Remap { file, target: RemapTarget::Ghost(ghost) }] = remaps[..] else { panic!("{remaps:?}") };
    assert_eq!(file, regular(&all_files(&images), "deleted").id);
    let ghost = images.ghost(ghost).expect("a good image");
    assert_eq!((ghost.mode & 0o7777, ghost.size, ghost.uid), (0o600, None, 0));
}

#[test]
fn sockets_pipes_memfd_and_lock_are_as_they_were() {
    let (images, root, _) = root_and_others();
    let files = all_files(&images);
    let inet: Vec<&InetSocket> = files
        .iter()
        .filter_map(|file| if let Object::Inet(socket) = &file.object { Some(socket) } else { None })
        .collect();
    let [listener] = inet[..] else { panic!("{inet:?}") };
    assert_eq!(listener.local.map(|local| local.ip()), Some(Ipv4Addr::LOCALHOST.into()));
    assert_eq!((listener.state, listener.peer, listener.is_tcp_connection()), (SocketState::Listen, None, false));
    let unix: Vec<&UnixSocket> = files
        .iter()
        .filter_map(|file| if let Object::Unix(socket) = &file.object { Some(socket) } else { None })
        .collect();
    let [one, other] = unix[..] else { panic!("{unix:?}") };
    assert_eq!((one.peer, other.peer), (other.inode, one.inode));
    let pipes: Vec<u32> = files
        .iter()
        .filter_map(|file| if let Object::Pipe(pipe) = &file.object { Some(pipe.pipe) } else { None })
        .collect();
    assert_eq!(pipes, [pipes[0]; 2]);
    let memfds = images.memfds().expect("a good image");
    let sealed = memfds.iter().find(|memfd| memfd.name == "sealed").expect("there");
    assert_eq!((sealed.size, sealed.seals), (4096, libc::F_SEAL_SEAL as u32));
    let locks = images.locks().expect("a good image");
    assert_eq!(locks.iter().map(|lock| (lock.pid, lock.flag)).collect::<Vec<_>>(), [(root.pid as i32, 2)]);
}

#[test]
fn stored_pages_fill_their_file() {
    let (images, root, _) = root_and_others();
    let pagemap = images.pagemap(PagemapOf::Task(root.pid)).expect("a good image");
    let file = images.path().join(format!("pages-{}.img", pagemap.pages_id()));
    let ranges: Vec<PageRange> = pagemap.map(|range| range.expect("a good record")).collect();
    assert!(ranges.iter().all(|range| range.place == Place::Stored));
    let pages: u64 = ranges.iter().map(|range| range.pages).sum();
    assert_eq!(std::fs::metadata(file).expect("there").len(), pages * 4096);
    let statistics = images.dump_statistics().expect("a good image");
    assert!(statistics.pages_written >= pages && statistics.frozen > std::time::Duration::ZERO);
}

#[test]
fn the_count_of_old_pagemaps_is_read() {
    use proto::pagemap::{Pagemap_entry, Pagemap_head};
    let head = Pagemap_head { pages_id: Some(3), ..Default::default() };
    let entry = Pagemap_entry { vaddr: Some(4096), compat_nr_pages: Some(2), ..Default::default() };
    let bytes = self::image(Kind::Pagemap, [&head as &dyn protobuf::MessageDyn, &entry]);
    let reader =
        Reader::new(&bytes[..], bytes.len() as u64, PathBuf::from("old"), Kind::Pagemap).expect("a good header");
    let ranges: Vec<_> = Pagemap::new(reader).expect("a head").map(|range| range.expect("good")).collect();
    assert_eq!(ranges, [PageRange { address: 4096, pages: 2, place: Place::Stored }]);
}

#[test]
fn names_need_not_be_utf8() {
    let mut message: proto::core::Core_entry = messages(Kind::Core, &core_of_root()).remove(0);
    let thread = message.thread_core.as_mut().expect("alive");
    thread.comm = Some(b"half \xd0".to_vec());
    let bytes = self::image(Kind::Core, [&message as &dyn protobuf::MessageDyn]);
    let reader = Reader::new(&bytes[..], bytes.len() as u64, PathBuf::from("core"), Kind::Core).expect("a good header");
    let core: Core = reader.only().expect("a good record");
    assert_eq!(core.comm().map(|comm| comm.as_encoded_bytes()), Some(&b"half \xd0"[..]));
}

#[test]
fn links_are_not_followed_and_pipes_do_not_block() {
    let (home, images) = copy();
    let inventory = home.path().join("inventory.img");
    std::fs::rename(&inventory, home.path().join("elsewhere")).expect("renamed");
    std::os::unix::fs::symlink("elsewhere", &inventory).expect("linked");
    assert!(matches!(images.inventory(), Err(Error::Image { source: ImageFault::NotAFile, .. })));
    std::fs::remove_file(&inventory).expect("removed");
    nix::unistd::mkfifo(&inventory, Mode::S_IRWXU).expect("made");
    assert!(matches!(images.inventory(), Err(Error::Image { source: ImageFault::NotAFile, .. })));
}

#[test]
fn errors_name_the_file_and_the_words_of_the_cause() {
    let (home, images) = copy();
    std::fs::write(home.path().join("pstree.img"), b"\x19\x43\x56\x54\0\0\0\0").expect("written");
    let error = images.tasks().expect_err("another magic");
    assert!(error.to_string().ends_with("pstree.img`"), "{error}");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert_eq!(cause, "it has 0x00000000 at byte 4 where 0x50273030 is due");
}

fn core_of_root() -> Vec<u8> {
    let (images, root, _) = root_and_others();
    std::fs::read(images.path().join(Kind::Core.file_name(root.pid))).expect("readable")
}
