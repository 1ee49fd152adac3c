//! The manifest of a small set of images, and what is found when the files change.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime};

use super::*;
use crate::checkpoint::fixture::Fixture;
use crate::proto::images::remap_file_path::Remap_type;

/// A root directory with a program, a library, a log and some more, the images of a task that uses them, and a checkpoint.
struct World {
    dir: tempfile::TempDir,
    manifest: Manifest,
}

const FILES: [(u32, &str, i32); 8] = [
    (1, "/bin/program", libc::O_RDONLY),
    (2, "/lib/library", libc::O_RDONLY),
    (3, "/work", libc::O_RDONLY),
    (4, "/work/data", libc::O_RDWR),
    (5, "/work/log", libc::O_WRONLY | libc::O_APPEND),
    (6, "/work/pipe", libc::O_RDWR),
    (7, "/work/data", libc::O_RDONLY),
    (8, "/work/out", libc::O_WRONLY),
];

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for made in ["root/bin", "root/lib", "root/work", "images"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        let root = dir.path().join("root");
        fs::copy(std::env::current_exe().unwrap(), root.join("bin/program")).unwrap();
        // Some compilers make of these tests a program that is too large to be hashed.
        File::options().write(true).open(root.join("bin/program")).unwrap().set_len(1 << 20).unwrap();
        for (name, content) in
            [("lib/library", "code"), ("work/data", "data"), ("work/log", "log"), ("work/out", "out")]
        {
            fs::write(root.join(name), content).unwrap();
        }
        nix::unistd::mkfifo(&root.join("work/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let id = build_id::build_id(&File::open(root.join("bin/program")).unwrap()).unwrap();
        let images = fixture(&root);
        let images = if let Some(id) = &id { images.build_id(1, id) } else { images };
        let images = images.write(&dir.path().join("images"));
        let manifest = Manifest::collect(&images, &root, None).unwrap();
        Self { manifest, dir }
    }

    fn hashed() -> Self {
        let mut world = Self::new();
        let root = world.root();
        world.manifest.hash(&root).unwrap();
        world
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn get(&self, path: &str) -> &OutsideFile {
        self.manifest.files().iter().find(|file| file.path == Path::new(path)).unwrap()
    }

    fn differences(&self) -> Vec<(String, DifferenceKind)> {
        let found = self.manifest.compare(&self.root()).unwrap();
        found.into_iter().map(|difference| (difference.path.display().to_string(), difference.kind)).collect()
    }

    /// Writes a file anew with the time it had, as a package manager might.
    fn write_with_time_of_old(&self, path: &str, content: &str) {
        let time = fs::metadata(self.at(path)).unwrap().modified().unwrap();
        fs::remove_file(self.at(path)).unwrap();
        fs::write(self.at(path), content).unwrap();
        File::options().write(true).open(self.at(path)).unwrap().set_modified(time).unwrap();
    }
}

fn fixture(root: &Path) -> Fixture {
    FILES.iter().fold(Fixture::default(), |fixture, (id, path, flags)| {
        let now = fs::metadata(root.join(path.trim_start_matches('/'))).unwrap();
        fixture.file(*id, Path::new(path), *flags, Some(&now))
    })
}

#[test]
fn what_was_changed_after_the_tree_went_on_does_not_count_as_seen() {
    let world = World::new();
    let images = crate::images::Images::open(world.dir.path().join("images")).unwrap();
    let seen = |held| {
        let manifest = Manifest::collect(&images, &world.root(), held).unwrap();
        let data = manifest.files().iter().find(|file| file.path == Path::new("/work/data")).unwrap();
        data.seen.is_some()
    };
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    assert!(seen(None) && seen(Some(now + hour)));
    assert!(!seen(Some(now - hour)));
    // Another file of the same name, as old as it may look: what the tree had is gone.
    let (data, other) = (world.root().join("work/data"), world.root().join("work/other"));
    fs::write(&other, "data").unwrap();
    File::open(&other).unwrap().set_modified(now - hour).unwrap();
    fs::rename(&other, &data).unwrap();
    assert!(!seen(Some(now - hour / 2)));
}

#[test]
fn every_file_is_named_once_with_all_its_uses() {
    let world = World::new();
    let shown: Vec<_> = world.manifest.files().iter().map(|file| (file.path.to_str().unwrap(), &*file.uses)).collect();
    assert_eq!(
        shown,
        [
            ("/bin/program", &[Use::Executable][..]),
            ("/lib/library", &[Use::Mapped]),
            ("/work", &[Use::CurrentDirectory, Use::RootDirectory]),
            ("/work/data", &[Use::Read]),
            ("/work/log", &[Use::Write]),
            ("/work/out", &[Use::Write]),
            ("/work/pipe", &[Use::Read]),
        ]
    );
    let data = world.get("/work/data");
    let now = fs::metadata(world.at("/work/data")).unwrap();
    assert_eq!((data.size_bytes, data.mode), (Some(4), Some(now.mode())));
    assert_eq!(data.seen.as_ref().unwrap().inode, now.ino());
    assert_eq!(world.get("/work/log").size_bytes, None);
}

#[test]
fn what_the_images_hold_or_get_from_elsewhere_is_not_outside() {
    let dir = tempfile::tempdir().unwrap();
    let flags = libc::O_RDWR;
    let images = Fixture::default()
        .file(1, Path::new("/bin/true"), flags, None)
        .file(2, Path::new("/dev/null"), flags, None)
        .file(3, Path::new("/"), flags, None)
        .file(4, Path::new("/tmp/unlinked"), flags, None)
        .file(5, Path::new("/tmp/link_remap.5"), 0, None)
        .file(6, Path::new("/tmp/deleted"), flags, None)
        .file(7, Path::new("/proc/7/status"), flags, None)
        .file(8, Path::new("memfd:x"), flags, None)
        .remap(4, 5, Remap_type::LINKED)
        .remap(6, 1, Remap_type::GHOST)
        .write(dir.path());
    let manifest = Manifest::named_by(&images).unwrap();
    let paths: Vec<_> = manifest.files().iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/", "/bin/true", "/dev/null"]);
}

#[test]
fn nothing_differs_where_nothing_has_changed() {
    assert_eq!(World::new().differences(), []);
    assert_eq!(World::hashed().differences(), []);
}

#[test]
fn what_is_read_or_mapped_is_hashed_and_what_is_only_written_is_not() {
    let world = World::hashed();
    assert_eq!(world.get("/lib/library").blake3.as_deref(), Some(&*blake3::hash(b"code").to_hex()));
    assert!(world.get("/bin/program").blake3.is_some() && world.get("/work/data").blake3.is_some());
    for path in ["/work", "/work/log", "/work/out", "/work/pipe"] {
        assert_eq!(world.get(path).blake3, None, "{path}");
    }
}

#[test]
fn a_file_that_changed_before_it_could_be_hashed_has_no_hash() {
    let mut world = World::new();
    fs::write(world.at("/work/data"), "atad").unwrap();
    let later = SystemTime::now() + Duration::from_secs(10);
    File::options().write(true).open(world.at("/work/data")).unwrap().set_modified(later).unwrap();
    let root = world.root();
    world.manifest.hash(&root).unwrap();
    assert_eq!(world.get("/work/data").blake3, None);
    assert_eq!(world.differences(), [("/work/data".into(), DifferenceKind::Modified)]);
}

#[test]
fn a_descriptor_of_a_link_is_compared_with_the_link_and_not_with_what_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let (root, link) = (dir.path().join("root"), dir.path().join("root/link"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    fs::write(root.join("target"), "data").unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    let now = fs::symlink_metadata(&link).unwrap();
    let images = Fixture::default()
        .file(1, Path::new("/link"), libc::O_PATH | libc::O_NOFOLLOW, Some(&now))
        .file(2, Path::new("/target"), libc::O_RDONLY, None)
        .write(&dir.path().join("images"));
    let mut manifest = Manifest::collect(&images, &root, None).unwrap();
    manifest.hash(&root).unwrap();
    let seen = manifest.files()[0].seen.as_ref().unwrap();
    assert_eq!((seen.inode, seen.kind()), (now.ino(), SFlag::S_IFLNK));
    assert_eq!(manifest.compare(&root).unwrap(), []);
    // Where it leads to is nothing to CRIU; that it is a link is.
    fs::remove_file(root.join("target")).unwrap();
    let found = manifest.compare(&root).unwrap();
    assert_eq!(found.iter().map(|difference| &*difference.path).collect::<Vec<_>>(), [Path::new("/target")]);
    fs::remove_file(&link).unwrap();
    fs::write(&link, "data").unwrap();
    let found = manifest.compare(&root).unwrap();
    assert!(matches!(&found[0].kind, DifferenceKind::Type { .. }), "{found:?}");
}

#[test]
fn everything_criu_would_refuse_is_named_at_once() {
    let world = World::hashed();
    fs::remove_file(world.at("/lib/library")).unwrap();
    fs::write(world.at("/work/data"), "longer data").unwrap();
    fs::set_permissions(world.at("/work/out"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(world.at("/work/pipe")).unwrap();
    fs::write(world.at("/work/pipe"), "").unwrap();
    let found = world.differences();
    let names: Vec<_> = found.iter().map(|(path, _)| &**path).collect();
    assert_eq!(names, ["/lib/library", "/work/data", "/work/out", "/work/pipe"]);
    assert_eq!(found[0].1, DifferenceKind::Missing);
    assert_eq!(found[1].1, DifferenceKind::Size { expected_bytes: 4, found_bytes: 11 });
    assert!(matches!(found[2].1, DifferenceKind::Mode { found, .. } if found == 0o100_600));
    assert!(matches!(found[3].1, DifferenceKind::Type { .. }));
    assert!(found.iter().all(|(_, kind)| kind.is_fatal()));
}

#[test]
fn a_log_that_grows_is_no_difference() {
    let world = World::hashed();
    fs::write(world.at("/work/log"), "log and more").unwrap();
    assert_eq!(world.differences(), []);
}

#[test]
fn another_content_of_the_same_size_is_found_though_the_time_is_the_same() {
    let world = World::hashed();
    world.write_with_time_of_old("/lib/library", "edoc");
    world.write_with_time_of_old("/work/data", "data");
    let found = world.differences();
    assert_eq!(found, [("/lib/library".into(), DifferenceKind::Content)]);
    assert!(!found[0].1.is_fatal());
}

#[test]
fn another_build_of_the_same_size_is_found() {
    let world = World::hashed();
    let Some(id) = world.get("/bin/program").build_id.clone() else {
        // This toolchain makes programs without a build-id; CRIU then has none to compare either.
        return assert_eq!(world.differences(), []);
    };
    let mut content = fs::read(world.at("/bin/program")).unwrap();
    let bytes: Vec<u8> = (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();
    let at = content.windows(bytes.len()).position(|window| window == bytes).unwrap();
    content[at] ^= 1;
    fs::write(world.at("/bin/program"), content).unwrap();
    assert!(matches!(&world.differences()[..], [(path, DifferenceKind::BuildId { .. })] if path == "/bin/program"));
}

#[test]
fn a_checkpoint_of_the_criu_program_is_compared_by_what_its_images_say() {
    let world = World::new();
    let images = crate::images::Images::open(world.dir.path().join("images")).unwrap();
    let manifest = Manifest::named_by(&images).unwrap();
    assert_eq!(manifest.compare(&world.root()).unwrap(), []);
    fs::write(world.at("/work/data"), "longer data").unwrap();
    fs::write(world.at("/lib/library"), "edoc").unwrap();
    let found = manifest.compare(&world.root()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].to_string(), "`/work/data` has 11 bytes and had 4");
}

#[test]
fn kept_files_are_put_where_they_are_missing_and_nowhere_else() {
    let mut world = World::new();
    let checkpoint = tempfile::tempdir().unwrap();
    let directory = File::open(checkpoint.path()).unwrap();
    fs::set_permissions(world.at("/bin/program"), fs::Permissions::from_mode(0o755)).unwrap();
    let root = world.root();
    world.manifest.keep(&root, &directory, checkpoint.path()).unwrap();
    world.manifest.hash(&root).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("lib")).unwrap();
    fs::write(elsewhere.path().join("lib/library"), "another").unwrap();
    let made = world.manifest.put_back(elsewhere.path(), &directory, checkpoint.path()).unwrap();
    let made: Vec<_> = made.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(made, ["/bin/program", "/work", "/work/data", "/work/log", "/work/out"]);
    assert_eq!(fs::read_to_string(elsewhere.path().join("lib/library")).unwrap(), "another");
    let left = world.manifest.compare(elsewhere.path()).unwrap();
    let left: Vec<_> = left.iter().map(|difference| difference.path.to_str().unwrap()).collect();
    // The library that was there, and the pipe that is no file to keep.
    assert_eq!(left, ["/lib/library", "/work/pipe"]);
    let program = fs::metadata(elsewhere.path().join("bin/program")).unwrap();
    assert_eq!(program.mode() & 0o7777, 0o755);
    assert_eq!(
        world.manifest.put_back(elsewhere.path(), &directory, checkpoint.path()).unwrap(),
        Vec::<PathBuf>::new()
    );
}

#[test]
fn what_is_written_in_json_is_read_again() {
    let world = World::hashed();
    let text = serde_json::to_string(&world.manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), world.manifest);
}
