//! Files: those whose names are gone, hidden, or of another mount namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::process::{Descriptor, FileStatus, Kind, Mapping, MappingKind, Mount, Place, Task};
use crate::request::DumpSwitch;

use super::devices;
use super::examine::{Examination, described, lacks, need};
use super::needs::Need;
use super::report::Choice;
use super::terminals::terminal_of;

/// CRIU's own ghost limit.
const CRIU_GHOST_LIMIT: u64 = 1024 * 1024;
/// What the limit is rounded up to, so that a file that still grows does not pass it.
const GHOST_STEP: u64 = 1024 * 1024;

/// A file that a task holds by a path.
struct Held<'a> {
    pid: i32,
    /// How the task holds it: `descriptor 5`, `its program`.
    by: String,
    path: &'a Path,
    deleted: bool,
    status: FileStatus,
    filesystem: &'a str,
    /// The task's mount namespace.
    namespace: u64,
}

/// The names that were looked up, so that a library of a hundred tasks is looked up once.
type Seen = BTreeSet<(u64, u64, u64)>;

pub(super) fn look(examination: &mut Examination<'_>) {
    let views = views(examination);
    let hidden = hidden_mounts(examination);
    let mut seen = Seen::new();
    let mut ghosts = BTreeMap::new();
    let tree = examination.tree;
    for task in &tree.tasks {
        for descriptor in &task.descriptors {
            look_at_descriptor(examination, task, descriptor, &views, &hidden, &mut seen, &mut ghosts);
        }
        look_at_program(examination, task);
        let places = [
            ("its program", &task.program),
            ("its working directory", &task.directory),
            ("its root directory", &task.root),
        ];
        for (by, place) in places {
            if let Some(place) = place {
                look_at_place(examination, task, by, place, &views, &mut seen, &mut ghosts);
            }
        }
        for mapping in task.memory.notable.iter().filter(|mapping| mapping.kind == MappingKind::Deleted) {
            look_at_mapping(examination, task, mapping, &views, &mut seen, &mut ghosts);
        }
    }
    for (pid, mapping) in &tree.mapped_files {
        if let Some(task) = tree.task(*pid) {
            look_at_mapping(examination, task, mapping, &views, &mut seen, &mut ghosts);
        }
    }
    look_at_ghosts(examination, &ghosts);
}

/// The directory through which the root of each mount namespace is seen from here.
fn views(examination: &Examination<'_>) -> BTreeMap<u64, PathBuf> {
    let tree = examination.tree;
    let mut views = BTreeMap::from([(tree.own_namespaces.mnt, PathBuf::from("/"))]);
    for task in &tree.tasks {
        views.entry(task.namespaces.mnt).or_insert_with(|| PathBuf::from(format!("/proc/{}/root", task.pid())));
    }
    views
}

/// The mounts of all namespaces that another one hides.
fn hidden_mounts(examination: &Examination<'_>) -> BTreeSet<i32> {
    let hidden = |mounts: &Vec<Mount>| {
        mounts.iter().filter(|mount| mount.is_hidden(mounts)).map(|mount| mount.id).collect::<Vec<_>>()
    };
    examination.tree.mounts.values().flat_map(hidden).collect()
}

fn mount_by_id<'a>(examination: &Examination<'a>, id: i32) -> Option<&'a Mount> {
    examination.tree.mounts.values().flatten().find(|mount| mount.id == id)
}

fn look_at_descriptor(
    examination: &mut Examination<'_>,
    task: &Task,
    descriptor: &Descriptor,
    views: &BTreeMap<u64, PathBuf>,
    hidden: &BTreeSet<i32>,
    seen: &mut Seen,
    ghosts: &mut BTreeMap<(u64, u64), Ghost>,
) {
    let Some(status) = descriptor.status else { return };
    let by_path = match descriptor.kind {
        Kind::Regular | Kind::Directory | Kind::Symlink | Kind::Fifo => true,
        Kind::CharacterDevice => devices::is_dumped_by_path(status.special_device),
        _ => false,
    };
    if !by_path || is_external(examination, descriptor, &status) {
        return;
    }
    let by = format!("descriptor {}", descriptor.fd);
    let Some(mount) = mount_by_id(examination, descriptor.mount) else {
        // CRIU looks at no mount of a shell job's terminal.
        let handed_over = terminal_of(descriptor).is_some()
            && (examination.intent.has(DumpSwitch::ShellJob) || examination.needs.shell_job.is_some());
        if !handed_over {
            examination.findings.will_not(
                "other-mount-namespace",
                task.pid(),
                format!(
                    "{by} of {} is {}, opened on a mount that the tree does not have",
                    described(task),
                    descriptor.path.display()
                ),
                "close it before the dump, or open it anew from within the tree's own mount namespace",
            );
        }
        return;
    };
    if hidden.contains(&mount.id) {
        examination.findings.will_not(
            "hidden-mount",
            task.pid(),
            format!("{by} of {} is {}, on a mount that another one hides", described(task), descriptor.path.display()),
            "unmount what was mounted over it, or close the file",
        );
        return;
    }
    let held = Held {
        pid: task.pid(),
        by,
        path: &descriptor.path,
        deleted: descriptor.deleted,
        status,
        filesystem: &mount.filesystem,
        namespace: task.namespaces.mnt,
    };
    look_at_held(examination, task, &held, views, seen, ghosts);
}

/// Whether the file was given as `--external file[MOUNT:INODE]`, both in hexadecimal.
fn is_external(examination: &Examination<'_>, descriptor: &Descriptor, status: &FileStatus) -> bool {
    !examination.intent.external.is_empty()
        && examination.intent.has_external(&format!("file[{:x}:{:x}]", descriptor.mount, status.inode))
}

fn look_at_place(
    examination: &mut Examination<'_>,
    task: &Task,
    by: &str,
    place: &Place,
    views: &BTreeMap<u64, PathBuf>,
    seen: &mut Seen,
    ghosts: &mut BTreeMap<(u64, u64), Ghost>,
) {
    let Some(status) = place.status else { return };
    if !is_mounted(examination, task, by, &place.path, &status) {
        return;
    }
    let filesystem = filesystem_of(examination, task, &place.path);
    let held = Held {
        pid: task.pid(),
        by: by.to_owned(),
        path: &place.path,
        deleted: place.deleted,
        status,
        filesystem: &filesystem,
        namespace: task.namespaces.mnt,
    };
    look_at_held(examination, task, &held, views, seen, ghosts);
}

fn look_at_mapping(
    examination: &mut Examination<'_>,
    task: &Task,
    mapping: &Mapping,
    views: &BTreeMap<u64, PathBuf>,
    seen: &mut Seen,
    ghosts: &mut BTreeMap<(u64, u64), Ghost>,
) {
    // The table of mappings has the device that the filesystem calls its own, which overlayfs and btrfs show to nobody
    // else; the link of the mapping leads to the file itself.
    let link = format!("/proc/{}/map_files/{:x}-{:x}", task.pid(), mapping.start, mapping.end);
    let Ok(status) = FileStatus::read(Path::new(&link)) else { return };
    if status.file_type() != libc::S_IFREG || !is_mounted(examination, task, "a mapping", &mapping.path, &status) {
        return;
    }
    let filesystem = filesystem_of(examination, task, &mapping.path);
    let held = Held {
        pid: task.pid(),
        by: "a mapping".into(),
        path: &mapping.path,
        deleted: mapping.kind == MappingKind::Deleted,
        status,
        filesystem: &filesystem,
        namespace: task.namespaces.mnt,
    };
    look_at_held(examination, task, &held, views, seen, ghosts);
}

/// Whether the mount that a file was found on is one of the tree's; says so if not.
fn is_mounted(examination: &mut Examination<'_>, task: &Task, by: &str, path: &Path, status: &FileStatus) -> bool {
    // Memory without a name is on a mount of the kernel's own.
    if status.mount <= 0 || is_memfd(path) || mount_by_id(examination, status.mount).is_some() {
        return true;
    }
    examination.findings.will_not(
        "other-mount-namespace",
        task.pid(),
        format!("{} ({by} of {}) is on a mount that the tree does not have", path.display(), described(task)),
        "start the program from within the mount namespace that it is to live in",
    );
    false
}

/// A program that was started from memory has no file that could be opened at the restore.
fn look_at_program(examination: &mut Examination<'_>, task: &Task) {
    let Some(program) = task.program.as_ref().filter(|program| is_memfd(&program.path)) else { return };
    examination.findings.warn(
        "program-in-memory",
        task.pid(),
        format!("{} runs a program from memory ({})", described(task), program.path.display()),
        "the dump passes, but CRIU cannot restore it: start the program from a file",
    );
}

/// `/memfd:name` is one component, which `starts_with` compares whole.
fn is_memfd(path: &Path) -> bool {
    path.to_string_lossy().starts_with("/memfd:")
}

fn filesystem_of(examination: &Examination<'_>, task: &Task, path: &Path) -> String {
    let mounts = examination.tree.mounts.get(&task.namespaces.mnt);
    mounts.and_then(|mounts| Mount::of_path(mounts, path)).map_or_else(String::new, |mount| mount.filesystem.clone())
}

/// `path`, which begins at the root of a mount namespace, as it is reached through `view`.
fn below(view: &Path, path: &Path) -> PathBuf {
    view.join(path.strip_prefix("/").unwrap_or(path))
}

fn look_at_held(
    examination: &mut Examination<'_>,
    task: &Task,
    held: &Held<'_>,
    views: &BTreeMap<u64, PathBuf>,
    seen: &mut Seen,
    ghosts: &mut BTreeMap<(u64, u64), Ghost>,
) {
    // The files of /proc follow the processes; those of a terminal are made by the kernel.
    if matches!(held.filesystem, "proc" | "devpts") || is_memfd(held.path) {
        return;
    }
    let FileStatus { device, inode, links, .. } = held.status;
    if links == 0 {
        ghosts.entry((device, inode)).or_insert_with(|| Ghost {
            pid: held.pid,
            what: format!("{} ({} of {})", held.path.display(), held.by, described(task)),
            allocated_bytes: held.status.allocated_bytes,
            is_file: held.status.file_type() == libc::S_IFREG,
        });
        return;
    }
    if !held.deleted && !seen.insert((held.namespace, device, inode)) {
        return;
    }
    let Some(view) = views.get(&held.namespace) else { return };
    let path = below(view, held.path);
    let found =
        if held.status.file_type() == libc::S_IFLNK { FileStatus::read_link(&path) } else { FileStatus::read(&path) };
    match found {
        Ok(found) if !held.deleted && (found.device, found.inode) == (device, inode) => {}
        _ if held.deleted => {
            if lacks(examination.intent, DumpSwitch::LinkRemap) {
                need(&mut examination.needs.link_remap, held.pid, || {
                    format!(
                        "{} ({} of {}) was deleted, but has another name elsewhere",
                        held.path.display(),
                        held.by,
                        described(task)
                    )
                });
            }
        }
        Ok(_) => examination.findings.will_not(
            "name-taken",
            held.pid,
            format!(
                "{} ({} of {}) is another file by now: something was put or mounted in its place",
                held.path.display(),
                held.by,
                described(task)
            ),
            "move or unmount what took its place, or let the program open the file anew",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => examination.findings.will_not(
            "name-hidden",
            held.pid,
            format!(
                "{} ({} of {}) cannot be reached by that name: something is mounted over it",
                held.path.display(),
                held.by,
                described(task)
            ),
            "unmount what hides it, or close the file",
        ),
        Err(_) => {}
    }
}

/// A file without a name, which goes into the images whole.
struct Ghost {
    pid: i32,
    what: String,
    allocated_bytes: u64,
    is_file: bool,
}

fn look_at_ghosts(examination: &mut Examination<'_>, ghosts: &BTreeMap<(u64, u64), Ghost>) {
    let intent = examination.intent;
    let limit = intent.ghost_limit.map_or(CRIU_GHOST_LIMIT, u64::from);
    let mut largest: Option<&Ghost> = None;
    for ghost in ghosts.values().filter(|ghost| ghost.is_file) {
        examination.ghost_bytes = examination.ghost_bytes.saturating_add(ghost.allocated_bytes);
        let size = ghost.allocated_bytes;
        if size <= limit {
            examination.findings.note(
                "deleted-file",
                ghost.pid,
                format!("{} is deleted and still open: its {size} bytes go into the images", ghost.what),
                "",
            );
            continue;
        }
        let wanted = size.next_multiple_of(GHOST_STEP);
        let Ok(wanted) = u32::try_from(wanted) else {
            examination.findings.will_not(
                "deleted-file-too-large",
                ghost.pid,
                format!("{} is deleted and still open, and its {size} bytes are more than the 4 GiB that CRIU can take along", ghost.what),
                "let the program close the file",
            );
            continue;
        };
        if intent.ghost_limit.is_some() || wanted > intent.ghost_limit_at_most {
            let arguments = vec!["--ghost-limit".to_owned(), wanted.to_string()];
            examination.findings.choose(
                "deleted-file-large",
                ghost.pid,
                format!("{} is deleted and still open: its {size} bytes would have to go into the images", ghost.what),
                &format!("add --ghost-limit {wanted}, or let the program close the file"),
                vec![Choice {
                    arguments,
                    consequence: "the images grow by that much, and the dump takes longer".into(),
                }],
            );
        } else if largest.is_none_or(|largest| largest.allocated_bytes < size) {
            largest = Some(ghost);
        }
    }
    if let Some(ghost) = largest {
        let bytes = ghost.allocated_bytes;
        let why = format!("{} is deleted and still open: its {bytes} bytes go into the images", ghost.what);
        let limit = u32::try_from(bytes.next_multiple_of(GHOST_STEP)).unwrap_or(u32::MAX);
        examination.needs.ghost_limit = Some((limit, Need { pids: vec![ghost.pid], why }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_reached_through_the_view_of_its_namespace() {
        assert_eq!(below(Path::new("/"), Path::new("/a/b")), Path::new("/a/b"));
        assert_eq!(below(Path::new("/proc/7/root"), Path::new("/a/b")), Path::new("/proc/7/root/a/b"));
        assert_eq!(below(Path::new("/proc/7/root"), Path::new("/")), Path::new("/proc/7/root/"));
    }
}
