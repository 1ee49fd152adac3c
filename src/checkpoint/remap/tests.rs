//! Link remaps without CRIU: what it does to the names is done here by hand.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::checkpoint::fixture::Fixture;
use crate::proto::images::remap_file_path::Remap_type;

/// A file that lost its name `/work/gone`, and the link remap that a dump made of it. It is also called `/work/other`.
struct World {
    dir: tempfile::TempDir,
    remaps: Remaps,
}

const NAME: &str = "work/link_remap.9";

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for made in ["root/work", "images"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        let root = dir.path().join("root");
        fs::write(root.join("work/other"), "content").unwrap();
        fs::set_permissions(root.join("work/other"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(root.join("work/other"), root.join(NAME)).unwrap();
        let images = Fixture::default()
            .file(8, Path::new("/work/gone"), libc::O_RDWR, fs::metadata(root.join(NAME)).ok().as_ref())
            .file(9, &Path::new("/").join(NAME), 0, None)
            .remap(8, 9, Remap_type::LINKED)
            .write(&dir.path().join("images"));
        let path = dir.path().join("images");
        let remaps = Remaps::keep(&images, &root, File::open(&path).unwrap(), &path).unwrap();
        Self { dir, remaps }
    }

    /// One whose dump is over.
    fn dumped() -> Self {
        let world = Self::new();
        world.remaps.clear(&world.root()).unwrap();
        world
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn put_back(&self) -> Result<PutBack> {
        let path = self.dir.path().join("images");
        self.remaps.put_back(&self.root(), File::open(&path).unwrap(), &path)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.at("work"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn the_content_and_the_other_name_are_kept_and_criu_s_name_removed() {
    let world = World::new();
    let [remap] = world.remaps.remaps() else { panic!("{:?}", world.remaps) };
    assert_eq!(remap.path, Path::new("/work/link_remap.9"));
    assert_eq!(remap.other.as_deref(), Some(Path::new("/work/other")));
    assert_eq!(fs::read_to_string(world.dir.path().join("images/remaps/0")).unwrap(), "content");
    world.remaps.clear(&world.root()).unwrap();
    assert_eq!(world.names(), ["other"]);
    world.remaps.clear(&world.root()).unwrap();
}

#[test]
fn the_name_comes_back_as_a_link_to_the_same_file_each_time() {
    let world = World::dumped();
    for _ in 0..3 {
        let put_back = world.put_back().unwrap();
        assert_eq!(inode(&world.at(NAME)), inode(&world.at("work/other")));
        // As CRIU does in the end of a restore.
        fs::remove_file(world.at(NAME)).unwrap();
        put_back.clear().unwrap();
        assert_eq!(world.names(), ["other"]);
    }
}

#[test]
fn where_the_other_name_is_gone_or_another_file_the_kept_content_is_used() {
    let world = World::dumped();
    let before = world.remaps.remaps()[0].seen.clone();
    fs::remove_file(world.at("work/other")).unwrap();
    drop(world.put_back().unwrap());
    fs::write(world.at("work/other"), "other file").unwrap();
    let put_back = world.put_back().unwrap();
    assert_eq!(fs::read_to_string(world.at(NAME)).unwrap(), "content");
    let now = Seen::of(&fs::metadata(world.at(NAME)).unwrap());
    assert_eq!((now.mode, now.mtime_ns, now.uid), (before.mode, before.mtime_ns, before.uid));
    drop(put_back);
    assert_eq!(world.names(), ["other"]);
}

#[test]
fn a_file_that_has_another_size_by_now_is_not_what_criu_would_take() {
    let world = World::dumped();
    fs::write(world.at("work/other"), "much more content").unwrap();
    let _put_back = world.put_back().unwrap();
    assert_eq!(fs::read_to_string(world.at(NAME)).unwrap(), "content");
    assert_ne!(inode(&world.at(NAME)), inode(&world.at("work/other")));
}

#[test]
fn a_name_left_by_a_killed_restore_is_taken_over() {
    let world = World::dumped();
    std::mem::forget(world.put_back().unwrap());
    drop(world.put_back().unwrap());
    assert_eq!(world.names(), ["other"]);
    fs::remove_file(world.at("work/other")).unwrap();
    std::mem::forget(world.put_back().unwrap());
    drop(world.put_back().unwrap());
    assert!(world.names().is_empty());
}

#[test]
fn another_file_of_that_name_is_neither_used_nor_removed() {
    let world = World::dumped();
    fs::write(world.at(NAME), "of another checkpoint").unwrap();
    let error = world.put_back().unwrap_err();
    assert!(matches!(error, Error::RemapTaken { .. }), "{error}");
    world.remaps.clear(&world.root()).unwrap();
    assert_eq!(fs::read_to_string(world.at(NAME)).unwrap(), "of another checkpoint");
}

#[test]
fn a_recorded_name_that_is_none_of_criu_s_is_never_removed() {
    let world = World::dumped();
    let mut remap = world.remaps.remaps()[0].clone();
    remap.path = "/work/other".into();
    Remaps(vec![remap]).clear(&world.root()).unwrap();
    assert_eq!(world.names(), ["other"]);
}

#[test]
fn images_without_link_remaps_cost_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let images = Fixture::default().write(dir.path());
    let remaps = Remaps::keep(&images, Path::new("/"), File::open(dir.path()).unwrap(), dir.path()).unwrap();
    assert!(remaps.is_empty() && !dir.path().join("remaps").exists());
}
