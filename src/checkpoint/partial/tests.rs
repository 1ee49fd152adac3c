//! What DIR and its surroundings are after each way a dump can end.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::process::Command;

use super::*;
use crate::checkpoint::{Caller, Sums};

/// The step that the child process is killed at, and its DIR.
const KILL_AT: &str = "CRR_TEST_KILL_AT";
const KILL_DIR: &str = "CRR_TEST_KILL_DIR";

fn create(dir: &Path) -> Partial {
    Partial::create(dir, Trust::owners()).unwrap()
}

fn refused(dir: &Path) -> DirectoryProblem {
    match Partial::create(dir, Trust::owners()) {
        Err(Error::Directory { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

fn write(partial: &Partial, name: &str) {
    fs::write(partial.partial_path().join(name), name).unwrap();
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_published_checkpoint_is_dir_and_nothing_else_is_left() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("img");
    let mut partial = create(&dir);
    assert_eq!(names(above.path()), ["img.partial"]);
    assert_eq!(mode(&above.path().join("img.partial")), 0o700);
    write(&partial, INVENTORY);
    let mut steps = Vec::new();
    partial.publish(Flush::Disk, |step| steps.push(step)).unwrap();
    assert_eq!(steps, [Step::Flushed, Step::Renamed, Step::PlaceFlushed]);
    assert_eq!(partial.partial_path(), dir);
    drop(partial.finish(Record::default()).unwrap());
    assert_eq!(names(above.path()), ["img"]);
    assert_eq!(names(&dir), [INVENTORY]);
}

#[test]
fn the_descriptor_is_the_same_directory_before_and_after() {
    let above = tempfile::tempdir().unwrap();
    let mut partial = create(&above.path().join("img"));
    let before = fstat(&partial).unwrap().st_ino;
    partial.publish(Flush::Leave, |_| {}).unwrap();
    assert_eq!(fstat(&partial).unwrap().st_ino, before);
    assert_eq!(fs::metadata(above.path().join("img")).unwrap().ino(), before);
}

#[test]
fn an_abandoned_dump_leaves_dir_as_it_was_and_its_log() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("img");
    let partial = create(&dir);
    write(&partial, "dump.log");
    write(&partial, "pages-1.img");
    fs::set_permissions(partial.partial_path().join("dump.log"), fs::Permissions::from_mode(0o644)).unwrap();
    let kept = partial.abandon(Some("dump.log"), |_| {}).unwrap();
    assert_eq!(kept, Some(above.path().canonicalize().unwrap().join("img.failed.log")));
    assert_eq!(names(above.path()), ["img.failed.log"]);
    assert_eq!(mode(&above.path().join("img.failed.log")), 0o600);
    // A dump that failed before CRIU had a log leaves none, and does not touch the one before.
    assert_eq!(create(&dir).abandon(Some("dump.log"), |_| {}).unwrap(), None);
    assert_eq!(names(above.path()), ["img.failed.log"]);
}

#[test]
fn a_dropped_dump_leaves_nothing_until_the_tree_may_be_gone() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("img");
    let partial = create(&dir);
    write(&partial, INVENTORY);
    drop(partial);
    assert!(names(above.path()).is_empty());
    let mut partial = create(&dir);
    write(&partial, INVENTORY);
    partial.publish(Flush::Leave, |_| {}).unwrap();
    drop(partial);
    assert!(names(above.path()).is_empty());
    let mut partial = create(&dir);
    write(&partial, INVENTORY);
    partial.publish(Flush::Leave, |_| {}).unwrap();
    partial.stay();
    drop(partial);
    assert_eq!(names(&dir), [INVENTORY]);
}

#[test]
fn an_empty_dir_comes_back_with_its_owner_and_mode() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("img");
    fs::create_dir(&dir).unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        chown(&dir, Some(4242), Some(4243)).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2751)).unwrap();
    let before = fs::metadata(&dir).unwrap();
    let mut partial = create(&dir);
    write(&partial, INVENTORY);
    write(&partial, "dump.log");
    partial.publish(Flush::Leave, |_| {}).unwrap();
    assert_eq!((mode(&dir), names(&dir).len()), (0o700, 2));
    partial.abandon(Some("dump.log"), |_| {}).unwrap();
    let after = fs::metadata(&dir).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_eq!(names(above.path()), ["img", "img.failed.log"]);
    assert!(names(&dir).is_empty());
}

#[test]
fn each_dir_that_cannot_be_dumped_to_is_told_apart() {
    let above = tempfile::tempdir().unwrap();
    let path = |name: &str| above.path().join(name);
    fs::write(path("file"), "").unwrap();
    fs::create_dir(path("full")).unwrap();
    fs::write(path("full/notes"), "").unwrap();
    fs::create_dir(path("checkpoint")).unwrap();
    fs::write(path("checkpoint/inventory.img"), "").unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    assert_eq!(refused(&path("file")), DirectoryProblem::NotADirectory);
    assert_eq!(refused(&path("file/below")), DirectoryProblem::NotADirectory);
    assert_eq!(refused(&path("dangling")), DirectoryProblem::NotADirectory);
    assert_eq!(refused(&path("full")), DirectoryProblem::NotEmpty("notes".into()));
    assert_eq!(refused(&path("checkpoint")), DirectoryProblem::HoldsCheckpoint);
    assert_eq!(refused(&path("none/below")), DirectoryProblem::ParentMissing);
    assert_eq!(refused(Path::new("/")), DirectoryProblem::NoName);
    assert_eq!(refused(Path::new("/proc")), DirectoryProblem::MountPoint);
    assert_eq!(refused(Path::new("/sys/img")), DirectoryProblem::Unwritable);
    assert_eq!(names(above.path()), ["checkpoint", "dangling", "file", "full"]);
}

#[test]
fn a_link_to_an_empty_directory_stays_a_link() {
    let above = tempfile::tempdir().unwrap();
    fs::create_dir(above.path().join("real")).unwrap();
    symlink("real", above.path().join("link")).unwrap();
    let mut partial = create(&above.path().join("link"));
    write(&partial, INVENTORY);
    partial.publish(Flush::Leave, |_| {}).unwrap();
    assert!(above.path().join("link").is_symlink());
    assert_eq!(names(&above.path().join("real")), [INVENTORY]);
}

#[test]
fn a_place_that_others_may_write_is_refused_unless_it_is_sticky() {
    let above = tempfile::tempdir().unwrap();
    let place = above.path().join("open");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Partial::create(&place.join("img"), Trust::owners()).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("mode 0777"), "{error}");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).unwrap();
    drop(create(&place.join("img")));
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    drop(Partial::create(&place.join("img"), Trust::Anyone).unwrap());
}

#[test]
fn a_partial_of_a_killed_crr_is_removed_and_one_in_use_is_not() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("img");
    let stale = above.path().join("img.partial");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("pages-1.img"), "half").unwrap();
    let partial = create(&dir);
    assert!(names(&stale).is_empty());
    assert!(matches!(refused(&dir), DirectoryProblem::InUse(_)));
    write(&partial, INVENTORY);
    assert_eq!(names(&stale), [INVENTORY]);
}

#[test]
fn a_users_directory_of_that_name_is_left_alone() {
    let above = tempfile::tempdir().unwrap();
    let stale = above.path().join("img.partial");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("thesis.txt"), "mine").unwrap();
    assert!(
        matches!(refused(&above.path().join("img")), DirectoryProblem::ForeignPartial(_, name) if name == "thesis.txt")
    );
    assert_eq!(names(&stale), ["thesis.txt"]);
    fs::remove_dir_all(&stale).unwrap();
    fs::write(&stale, "a file").unwrap();
    assert!(matches!(refused(&above.path().join("img")), DirectoryProblem::ForeignPartial(..)));
}

#[test]
fn a_dir_filled_in_the_meantime_is_not_replaced() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("img");
    let mut partial = create(&dir);
    write(&partial, INVENTORY);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("thesis.txt"), "mine").unwrap();
    let error = partial.publish(Flush::Disk, |_| {}).unwrap_err();
    assert!(matches!(error, Error::Directory { problem: DirectoryProblem::NotEmpty(_), .. }), "{error}");
    assert!(!partial.is_published());
    partial.abandon(None, |_| {}).unwrap();
    assert_eq!((names(above.path()), names(&dir)), (vec!["img".to_string()], vec!["thesis.txt".to_string()]));
}

#[test]
fn sums_and_statistics_are_added_to_a_record_that_is_whole_before() {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("img");
    let mut partial = create(&dir);
    write(&partial, INVENTORY);
    let record = Record { crr: "0.1.0".into(), ..Record::default() };
    record.write(&partial, &partial.partial_path(), Flush::Disk).unwrap();
    partial.publish(Flush::Disk, |_| {}).unwrap();
    let mut checkpoint = partial.finish(record.clone()).unwrap();
    assert_eq!(Checkpoint::open(&dir, Trust::owners()).unwrap().record(), Some(&record));
    let sums = Sums::of(&checkpoint, checkpoint.path()).unwrap();
    checkpoint.complete(Some(sums.clone()), None, Flush::Disk).unwrap();
    let opened = Checkpoint::open(&dir, Trust::owners()).unwrap();
    assert_eq!(opened.record().unwrap().sums.as_ref(), Some(&sums));
    sums.verify(&opened, opened.path()).unwrap();
}

/// A dump from beginning to end, killed at the step that the environment names.
#[test]
#[ignore = "the process that killing_crr_at_any_step_loses_nothing starts and kills"]
fn dump_to_be_killed() {
    let (Ok(step), Some(dir)) = (std::env::var(KILL_AT), std::env::var_os(KILL_DIR)) else {
        panic!("only to be run by the test that kills it");
    };
    let kill = |reached: &str| {
        if reached == step {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    };
    let mut partial = Partial::create(Path::new(&dir), Trust::owners()).unwrap();
    kill("made");
    write(&partial, INVENTORY);
    write(&partial, "dump.log");
    kill("written");
    let record = Record::new(Default::default(), Default::default());
    record.write(&partial, &partial.partial_path(), Flush::Disk).unwrap();
    kill("recorded");
    partial.publish(Flush::Disk, |reached| kill(&format!("publish {reached:?}"))).unwrap();
    if std::env::var_os("CRR_TEST_FAIL").is_some() {
        partial.abandon(Some("dump.log"), |reached| kill(&format!("abandon {reached:?}"))).unwrap();
        kill("abandoned");
        return;
    }
    let mut checkpoint = partial.finish(record).unwrap();
    kill("finished");
    let sums = Sums::of(&checkpoint, checkpoint.path()).unwrap();
    checkpoint.complete(Some(sums), None, Flush::Disk).unwrap();
    kill("completed");
}

/// Runs [`dump_to_be_killed`] up to a step.
fn killed_at(step: &str, dir: &Path, fails: bool) {
    use std::os::unix::process::ExitStatusExt as _;

    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "checkpoint::partial::tests::dump_to_be_killed"]);
    command.env(KILL_AT, step).env(KILL_DIR, dir);
    if fails {
        command.env("CRR_TEST_FAIL", "1");
    }
    let output = command.output().unwrap();
    let killed = output.status.signal() == Some(9);
    assert!(killed, "{step} was not reached: {}", String::from_utf8_lossy(&output.stdout));
}

/// DIR is whole and can be restored.
fn assert_whole(dir: &Path, step: &str) {
    let opened = Checkpoint::open(dir, Trust::owners()).unwrap_or_else(|error| panic!("{step}: {error}"));
    assert!(opened.record().is_some(), "{step}");
    assert_eq!(names(dir), ["crr.json", "dump.log", INVENTORY], "{step}");
}

#[test]
fn killing_crr_at_any_step_loses_nothing() {
    for was_there in [false, true] {
        for (step, published) in [
            ("made", false),
            ("written", false),
            ("recorded", false),
            ("publish Flushed", false),
            ("publish Renamed", true),
            ("publish PlaceFlushed", true),
            ("finished", true),
            ("completed", true),
        ] {
            let above = tempfile::tempdir().unwrap();
            let dir = above.path().join("img");
            if was_there {
                fs::create_dir(&dir).unwrap();
            }
            killed_at(step, &dir, false);
            if published {
                assert_eq!(names(above.path()), ["img"], "{step}");
                assert_whole(&dir, step);
                continue;
            }
            let left: &[&str] = if was_there { &["img", "img.partial"] } else { &["img.partial"] };
            assert_eq!(names(above.path()), left, "{step}");
            assert!(!was_there || names(&dir).is_empty(), "{step}");
            // The next dump takes no notice.
            let mut next = create(&dir);
            write(&next, INVENTORY);
            next.publish(Flush::Leave, |_| {}).unwrap();
            assert_eq!(names(&dir), [INVENTORY], "{step}");
        }
    }
}

#[test]
fn killing_crr_while_it_takes_a_failed_dump_back_leaves_dir_whole_or_as_it_was() {
    for (step, left) in [
        ("abandon RenamedBack", &["img.partial"][..]),
        ("abandon Restored", &["img", "img.partial"]),
        ("abandon LogKept", &["img", "img.failed.log", "img.partial"]),
        ("abandon Cleared", &["img", "img.failed.log", "img.partial"]),
        ("abandoned", &["img", "img.failed.log"]),
    ] {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("img");
        fs::create_dir(&dir).unwrap();
        killed_at(step, &dir, true);
        assert_eq!(names(above.path()), left, "{step}");
        drop(create(&dir));
        assert!(!above.path().join("img.partial").exists(), "{step}");
    }
}

#[test]
fn a_partial_of_another_user_is_not_touched() {
    let above = tempfile::tempdir().unwrap();
    let stale = above.path().join("img.partial");
    fs::create_dir(&stale).unwrap();
    let trust = if nix::unistd::geteuid().is_root() {
        chown(&stale, Some(4242), None).unwrap();
        Trust::owners()
    } else {
        // Seen by someone else, it is we who are the stranger.
        Trust::Owners(Caller::user(4242))
    };
    let error = Partial::create(&above.path().join("img"), trust).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert!(stale.exists());
}
