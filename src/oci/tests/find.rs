use super::*;

use std::fs;

use crate::Error;

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn put(root: &Path, id: &str, files: &[(&str, &str)]) {
    fs::create_dir_all(root.join(id)).expect("made");
    for (name, content) in files {
        fs::write(root.join(id).join(name), content).expect("written");
    }
}

fn find(root: &Path, id: &str) -> crate::Result<Container> {
    Container::find(Some(root), &id.parse()?)
}

fn problem(result: crate::Result<Container>) -> Problem {
    match result {
        Err(Error::Container { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_is_found_by_its_runtimes_file() {
    let home = home();
    put(home.path(), "oci-r1", &[("state.json", SAMPLES[1].state)]);
    put(home.path(), "k", &[("status", CRUN[1].1), ("config.json", PLAIN)]);
    let runc = find(home.path(), "oci-r1").expect("found");
    assert_eq!((runc.runtime(), runc.init().pid), (Runtime::Runc, 7030));
    assert_eq!(runc.bundle(), Some(Path::new("/srv/bundle")));
    assert!(runc.cgroup_paths().is_some_and(|paths| paths.contains_key("")));
    assert_eq!(runc.exec_fifo(), home.path().join("oci-r1/exec.fifo"));
    let crun = find(home.path(), "k").expect("found");
    assert_eq!((crun.runtime(), crun.init().pid), (Runtime::Crun, 1895));
    assert_eq!(crun.configuration().rootfs, Path::new("/srv/bundle/rootfs"));
    assert_eq!(crun.configuration().mounts.len(), 7);
    assert!(matches!(crun.record(), Record::Crun(status, _) if status.cgroup() == Path::new("/oci-k1")));
}

#[test]
fn what_is_no_container_is_an_error_with_a_cure() {
    let home = home();
    put(home.path(), "empty", &[]);
    put(home.path(), "garbage", &[("state.json", "{\"id\": ")]);
    put(home.path(), "other", &[("state.json", SAMPLES[0].state)]);
    put(home.path(), "huge", &[("state.json", &" ".repeat(FILE_LIMIT as usize + 1))]);
    put(home.path(), "directory", &[]);
    fs::create_dir(home.path().join("directory/state.json")).expect("made");
    put(home.path(), "fifo", &[]);
    nix::unistd::mkfifo(&home.path().join("fifo/state.json"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    std::os::unix::fs::symlink("other", home.path().join("link")).expect("made");
    assert_eq!(problem(find(home.path(), "nothing")), Problem::NoContainer);
    assert_eq!(problem(find(home.path(), "link")), Problem::NoContainer);
    assert_eq!(problem(find(home.path(), "empty")), Problem::NoState);
    assert_eq!(problem(find(home.path(), "other")), Problem::OtherId("oci-p1".into()));
    assert_eq!(problem(find(home.path(), "huge")), Problem::TooLarge(FILE_LIMIT));
    assert_eq!(problem(find(home.path(), "directory")), Problem::NotPlain);
    assert_eq!(problem(find(home.path(), "fifo")), Problem::NotPlain);
    assert!(matches!(problem(find(home.path(), "garbage")), Problem::Malformed(_)));
    for id in ["nothing", "empty", "other", "huge", "directory", "fifo", "garbage", "../x"] {
        let error = find(home.path(), id).expect_err(id);
        assert!(matches!(error, Error::Option { .. }) || error.hint().is_some(), "{error}");
    }
}

#[test]
fn all_containers_below_a_root_are_listed() {
    let home = home();
    put(home.path(), "oci-p1", &[("state.json", SAMPLES[0].state)]);
    put(home.path(), "broken", &[("state.json", "")]);
    put(home.path(), ".cache", &[]);
    put(home.path(), "not an id", &[]);
    fs::write(home.path().join("file"), "").expect("written");
    let listed = list(home.path()).expect("listed");
    let found: Vec<_> = listed.iter().map(|each| (each.id.as_str(), each.container.is_ok())).collect();
    assert_eq!(found, [("broken", false), ("oci-p1", true)]);
    assert!(list(&home.path().join("none")).expect("listed").is_empty());
    assert!(list(&home.path().join("file")).is_err());
}

#[test]
fn a_bundle_without_its_parts_is_an_error_with_a_cure() {
    let home = home();
    let bundle = |name: &str| home.path().join(name);
    put(home.path(), "no-config", &[]);
    put(home.path(), "no-rootfs", &[("config.json", PLAIN)]);
    put(home.path(), "whole", &[("config.json", PLAIN)]);
    fs::create_dir(bundle("real")).expect("made");
    std::os::unix::fs::symlink("../real", bundle("whole").join("rootfs")).expect("made");
    for (name, what) in [("no-config", "no config.json"), ("no-rootfs", "rootfs` is no directory")] {
        let error = Bundle::open(&bundle(name)).expect_err(name);
        assert!(error.to_string().contains(what) && error.hint().is_some(), "{error}");
    }
    assert!(matches!(Bundle::open(&bundle("none")), Err(Error::Io { .. })));
    let whole = Bundle::open(&bundle("whole")).expect("a bundle");
    // runc refuses a root file system behind a symbolic link.
    assert_eq!(whole.rootfs(), bundle("real").canonicalize().expect("there"));
    assert_eq!(whole.configuration().rootfs, whole.rootfs());
}

#[test]
fn a_state_is_written_whole_and_for_root_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = home();
    let path = home.path().join("state.json");
    fs::write(&path, "old").expect("written");
    // What a former process left.
    let leftover = home.path().join(format!(".state.json.{}.crr", std::process::id()));
    fs::write(&leftover, "half").expect("written");
    let restored = state(&SAMPLES[0]).restored(&live()).expect("patched");
    restored.write(home.path()).expect("written");
    assert_eq!(State::read(&path).expect("read").to_json(), restored.to_json());
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!leftover.exists());
    assert!(restored.write(&home.path().join("none")).is_err());
}
