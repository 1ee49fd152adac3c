//! What `check_set` finds.

use std::fs;

use protobuf::MessageDyn;

use super::*;
use crate::proto::images::ipc_desc::Ipc_desc_entry;
use crate::proto::images::ipc_shm::Ipc_shm_entry;
use crate::proto::images::pagemap::{Pagemap_entry, Pagemap_head};
use crate::proto::images::{inventory::Inventory_entry, pstree::Pstree_entry};

fn problems(images: &Images) -> Vec<String> {
    images.check_set().expect("readable").iter().map(Problem::to_string).collect()
}

fn rewrite<M: protobuf::MessageFull>(home: &Path, kind: Kind, change: impl FnOnce(&mut Vec<M>)) {
    let path = home.join(kind.file_name(0));
    let mut all = messages(kind, &fs::read(&path).expect("readable"));
    change(&mut all);
    fs::write(path, image(kind, all.iter().map(|message| message as &dyn MessageDyn))).expect("written");
}

#[test]
fn a_set_that_criu_made_is_whole() {
    assert_eq!(problems(&good()), [""; 0]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    // These CRIU writes only where there is something to say, and nothing else tells that there was.
    let unknown = ["filelocks.img", "pipes-data.img", "sk-queues.img", "seccomp.img", "stats-dump", "timens-0.img"];
    for entry in fs::read_dir(tree()).expect("readable") {
        let name = entry.expect("readable").file_name().into_string().expect("ASCII");
        let (home, images) = copy();
        let size = fs::metadata(home.path().join(&name)).expect("there").len();
        fs::remove_file(home.path().join(&name)).expect("removed");
        let found = images.check_set().expect("readable");
        if unknown.contains(&name.as_str()) || size == 0 {
            assert!(found.is_empty(), "{name}: {found:?}");
            continue;
        }
        let about_it = match name.as_str() {
            // What it names is left over.
            "remap-fpath.img" => "ghost-file-1.img",
            _ => &name,
        };
        assert!(found.iter().any(|problem| problem.to_string().contains(about_it)), "{name}: {found:?}");
    }
}

#[test]
fn a_file_that_is_cut_short_is_named() {
    for entry in fs::read_dir(tree()).expect("readable") {
        let name = entry.expect("readable").file_name().into_string().expect("ASCII");
        let bytes = fs::read(tree().join(&name)).expect("readable");
        if name == "stats-dump" || bytes.is_empty() {
            continue;
        }
        // The content of a ghost without chunks may have any length.
        let end = if name.starts_with("ghost") { 40 } else { bytes.len() };
        for length in [0, 6, end / 2, end - 1] {
            let (home, images) = copy();
            fs::write(home.path().join(&name), &bytes[..length]).expect("written");
            let found = problems(&images);
            assert!(found.iter().any(|problem| problem.contains(&name)), "{name} cut to {length}: {found:?}");
        }
    }
}

#[test]
fn everything_wrong_is_found_at_once() {
    let (home, images) = copy();
    for entry in fs::read_dir(tree()).expect("readable") {
        let name = entry.expect("readable").file_name();
        let name = name.to_str().expect("ASCII");
        if name.starts_with("mm-") || name.starts_with("fs-") {
            fs::remove_file(home.path().join(name)).expect("removed");
        }
    }
    assert_eq!(problems(&images).len(), 4);
}

#[test]
fn a_task_lost_from_the_tree_leaves_images_that_belong_to_none() {
    let (home, images) = copy();
    rewrite(home.path(), Kind::Pstree, |tasks: &mut Vec<Pstree_entry>| drop(tasks.pop()));
    let found = images.check_set().expect("readable");
    assert!(!found.is_empty());
    assert!(found.iter().all(|problem| matches!(problem, Problem::Unclaimed { .. }) && !problem.prevents_restore()));
}

#[test]
fn a_root_lost_from_the_tree_leaves_orphans() {
    let (home, images) = copy();
    rewrite(home.path(), Kind::Pstree, |tasks: &mut Vec<Pstree_entry>| drop(tasks.remove(0)));
    let found = images.check_set().expect("readable");
    assert_eq!(found.iter().filter(|problem| matches!(problem, Problem::NoParent { .. })).count(), 2);
}

#[test]
fn a_file_lost_from_files_img_is_missed_by_what_refers_to_it() {
    let whole = messages::<crate::proto::images::fdinfo::File_entry>(
        Kind::Files,
        &fs::read(tree().join("files.img")).expect("readable"),
    );
    for (place, file) in whole.iter().enumerate() {
        let (home, images) = copy();
        let lost = file.id();
        rewrite(home.path(), Kind::Files, |files: &mut Vec<crate::proto::images::fdinfo::File_entry>| {
            drop(files.remove(place));
        });
        let found = images.check_set().expect("readable");
        let named = |problem: &Problem| matches!(problem, Problem::NoFile { id, .. } if *id == lost);
        assert!(found.iter().any(named), "{lost}: {found:?}");
    }
}

#[test]
fn an_empty_directory_is_one_problem() {
    let home = TempDir::new().expect("a temporary directory");
    let images = Images::open(home.path()).expect("just made");
    assert_eq!(problems(&images), ["`inventory.img` is missing, which every restore needs"]);
}

#[test]
fn a_pre_dump_is_called_one() {
    let (home, images) = copy();
    rewrite(home.path(), Kind::Inventory, |all: &mut Vec<Inventory_entry>| all[0].set_pre_dump_mode(1));
    assert!(matches!(images.check_set().expect("readable")[..], [Problem::PreDump]));
}

#[test]
fn another_format_is_named() {
    let (home, images) = copy();
    rewrite(home.path(), Kind::Inventory, |all: &mut Vec<Inventory_entry>| all[0].set_img_version(3));
    assert_eq!(problems(&images), ["the images have format version 3, and only 2 can be restored"]);
}

/// Replaces the pagemap of the root task in `home` by one with these ranges: address in pages, pages, flags.
fn pagemap(home: &Path, ranges: &[(u64, u64, u32)]) -> String {
    let root = good().tasks().expect("good")[0].pid;
    let of = PagemapOf::Task(root);
    let pages_id = good().pagemap(of).expect("good").pages_id();
    let head = Pagemap_head { pages_id: Some(pages_id), ..Default::default() };
    let entry = |&(address, pages, flags): &(u64, u64, u32)| Pagemap_entry {
        vaddr: Some(address * 4096),
        compat_nr_pages: Some(0),
        nr_pages: Some(pages),
        flags: Some(flags),
        ..Default::default()
    };
    let entries: Vec<_> = ranges.iter().map(entry).collect();
    let all = std::iter::once(&head as &dyn MessageDyn).chain(entries.iter().map(|entry| entry as &dyn MessageDyn));
    fs::write(home.join(of.file_name()), image(Kind::Pagemap, all)).expect("written");
    let stored: u64 = ranges.iter().filter(|range| range.2 & 4 != 0).map(|range| range.1).sum();
    let pages = fs::File::create(home.join(format!("pages-{pages_id}.img"))).expect("made");
    pages.set_len(stored * 4096).expect("made");
    of.file_name()
}

#[test]
fn pages_in_parents_are_looked_for_in_the_parents() {
    let (home, images) = copy();
    let (parent, _) = copy();
    let (grandparent, _) = copy();
    let name = pagemap(home.path(), &[(10, 2, 6), (12, 8, 1), (40, 1, 1)]);
    assert_eq!(problems(&images), [format!("9 pages of `{name}` are in parent images, and there is no `parent`")]);

    std::os::unix::fs::symlink(parent.path(), home.path().join("parent")).expect("linked");
    pagemap(parent.path(), &[(0, 15, 4), (15, 10, 1), (40, 4, 4)]);
    assert_eq!(problems(&images), [format!("5 pages of `{name}` should be in the parent images and are not")]);

    std::os::unix::fs::symlink(grandparent.path(), parent.path().join("parent")).expect("linked");
    pagemap(grandparent.path(), &[(15, 3, 4), (19, 1, 4)]);
    assert_eq!(problems(&images), [format!("1 pages of `{name}` should be in the parent images and are not")]);

    pagemap(grandparent.path(), &[(15, 5, 4)]);
    assert_eq!(problems(&images), [""; 0]);

    std::fs::remove_file(parent.path().join("parent")).expect("removed");
    std::os::unix::fs::symlink(parent.path(), parent.path().join("parent")).expect("linked");
    assert_eq!(problems(&images), [format!("5 pages of `{name}` should be in the parent images and are not")]);
}

#[test]
fn a_parent_that_leads_nowhere_is_not_no_parent() {
    let (home, images) = copy();
    pagemap(home.path(), &[(1, 1, 1)]);
    std::os::unix::fs::symlink("/nonexistent/images", home.path().join("parent")).expect("linked");
    assert_eq!(
        problems(&images),
        [format!(
            "cannot open the parent images `{}/parent`: No such file or directory (os error 2)",
            home.path().display()
        )]
    );
}

#[test]
fn pages_left_with_a_page_server_are_counted() {
    let (home, images) = copy();
    let name = pagemap(home.path(), &[(1, 1, 6), (2, 7, 2)]);
    assert_eq!(problems(&images), [format!("7 pages of `{name}` are in no image: a page server was to send them")]);
}

#[test]
fn two_thousand_tasks_are_checked() {
    let (home, images) = copy();
    let root = images.tasks().expect("good")[0].pid;
    let child = images.tasks().expect("good")[2].pid;
    rewrite(home.path(), Kind::Pstree, |tasks: &mut Vec<Pstree_entry>| {
        for pid in 1_000_000..1_002_000 {
            let mut task = tasks[2].clone();
            task.set_pid(pid);
            task.set_ppid(root);
            task.threads = vec![pid];
            tasks.push(task);
        }
    });
    for pid in 1_000_000..1_002_000 {
        for kind in [Kind::Core, Kind::Ids, Kind::Memory, Kind::Directories, Kind::Pagemap] {
            let (from, to) = (home.path().join(kind.file_name(child)), home.path().join(kind.file_name(pid)));
            fs::hard_link(from, to).expect("linked");
        }
    }
    assert_eq!(problems(&images), [""; 0]);
    fs::remove_file(home.path().join("mm-1001999.img")).expect("removed");
    assert_eq!(problems(&images), ["`mm-1001999.img` is missing, which task 1001999 needs"]);
}

#[test]
fn system_v_shared_memory_belongs_to_the_ipc_namespace_of_the_tree() {
    let (home, images) = copy();
    let ids = images.core(images.tasks().expect("readable")[0].pid).expect("readable").ids;
    let namespace = ids.or_else(|| images.ids(images.tasks().ok()?[0].pid).ok()).and_then(|ids| ids.ipc_namespace);
    let name = Kind::IpcSharedMemory.file_name(namespace.expect("CRIU gives every namespace a number"));
    // The first segment of a namespace has the id 0.
    fs::copy(home.path().join("pagemap-shmem-9589.img"), home.path().join("pagemap-shmem-0.img")).expect("copied");
    assert_eq!(problems(&images), ["`pagemap-shmem-0.img` belongs to no task of the tree"]);

    let mut segment = Ipc_shm_entry::new();
    segment.set_size(4096);
    segment.set_in_pagemaps(true);
    let desc = segment.desc.mut_or_insert_default();
    for set in [
        Ipc_desc_entry::set_key,
        Ipc_desc_entry::set_uid,
        Ipc_desc_entry::set_gid,
        Ipc_desc_entry::set_cuid,
        Ipc_desc_entry::set_cgid,
        Ipc_desc_entry::set_mode,
        Ipc_desc_entry::set_id,
    ] {
        set(desc, 0);
    }
    let bytes = image(Kind::IpcSharedMemory, [&segment as &dyn MessageDyn]);
    fs::write(home.path().join(&name), &bytes).expect("written");
    assert_eq!(problems(&images), [""; 0]);

    fs::remove_file(home.path().join("pagemap-shmem-0.img")).expect("removed");
    assert_eq!(problems(&images), ["`pagemap-shmem-0.img` is missing, which shared memory 0 needs"]);
    fs::write(home.path().join(&name), &bytes[..bytes.len() - 1]).expect("written");
    assert!(problems(&images).iter().any(|problem| problem.contains(&name)));
}
