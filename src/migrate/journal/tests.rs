use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::*;
use crate::error::RecordProblem;
use crate::migrate::machine::{SourceRecord, TargetRecord};

const PLACE_OF_CHILD: &str = "CRR_TEST_JOURNAL";
const MOMENT_OF_CHILD: &str = "CRR_TEST_MOMENT";
const MOMENTS: [Moment; 5] = [Moment::Made, Moment::Written, Moment::Flushed, Moment::Renamed, Moment::Removed];

fn id() -> Id {
    Id::from_bytes([9; 16]).unwrap()
}

fn entry(record: SourceRecord) -> Entry {
    Entry {
        tasks: vec![RecordedTask { pid: 7, start: 8 }],
        cgroups: vec![TaskCgroup { pid: 7, path: "/sys/fs/cgroup/freezer/x".into() }],
        reuse: vec![RecordedReuse { pid: 7, fd: 3, value: 1 }],
        tables: vec!["inet crr-fence-0909090909090909".into()],
        hold: Some("/sys/fs/cgroup/freezer/crr/migration-0909090909090909".into()),
        addresses: vec![RecordedAddress { address: [10, 0, 0, 1].into(), prefix: 24, device: "eth0".into() }],
        images: Some("/dev/shm/crr/x".into()),
        reason: Some("no room".into()),
        ..Entry::new(id(), State::Source(record), "ssh://b").unwrap()
    }
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn record_on_disk(place: &Path) -> Option<SourceRecord> {
    let mut listed = Journal::list(place).unwrap();
    assert_eq!(listed.len(), 1);
    match listed.remove(0).entry.unwrap()?.state {
        State::Source(record) => Some(record),
        State::Target(_) => None,
    }
}

#[test]
fn what_is_written_is_read_by_whoever_takes_it_up() {
    let place = place();
    let mut journal = Journal::create(place.path(), id()).unwrap();
    journal.write(&entry(SourceRecord::Intent)).unwrap();
    let held = entry(SourceRecord::Held);
    journal.write(&held).unwrap();
    let taken = Journal::take_up(place.path(), id()).unwrap_err();
    assert!(matches!(&taken, Error::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock), "{taken:?}");
    assert!(Journal::list(place.path()).unwrap()[0].is_held);
    drop(journal);

    assert!(!Journal::list(place.path()).unwrap()[0].is_held);
    let (mut journal, read) = Journal::take_up(place.path(), id()).unwrap().unwrap();
    assert_eq!(read, held);
    assert_eq!(read.boot().unwrap(), super::super::machine::Boot::Same);
    assert!(read.touches_tree());
    journal.erase().unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn another_boot_is_told_from_this_one() {
    let old = Entry { boot_id: "0".into(), ..entry(SourceRecord::Commit) };
    assert_eq!(old.boot().unwrap(), super::super::machine::Boot::Another);
    let again = old.now(State::Target(TargetRecord::Running)).unwrap();
    assert_eq!(again.boot().unwrap(), super::super::machine::Boot::Same);
    assert!(!again.touches_tree());
}

#[test]
fn there_is_one_journal_of_an_id_and_one_holder() {
    let place = place();
    let journal = Journal::create(place.path(), id()).unwrap();
    let again = Journal::create(place.path(), id()).unwrap_err();
    assert!(matches!(&again, Error::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists), "{again:?}");
    drop(journal);
    // One without a record is of no migration.
    assert!(Journal::take_up(place.path(), id()).unwrap().is_none());
    assert!(!place.path().join(id().to_string()).exists());
}

#[test]
fn every_torn_or_changed_record_is_an_error_and_not_an_absence() {
    let bytes = entry(SourceRecord::Commit).to_bytes().unwrap();
    assert_eq!(Entry::parse(&bytes), Ok(entry_again(&bytes)));
    // The last byte is the end of the line.
    for length in 0..bytes.len() - 1 {
        assert!(Entry::parse(&bytes[..length]).is_err(), "cut to {length}");
    }
    for at in 0..bytes.len() - 1 {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Entry::parse(&changed).is_err(), "byte {at}");
    }
    let place = place();
    let mut journal = Journal::create(place.path(), id()).unwrap();
    journal.write(&entry(SourceRecord::Commit)).unwrap();
    fs::write(journal.path().join(NAME), &bytes[..40]).unwrap();
    drop(journal);
    assert!(matches!(Journal::take_up(place.path(), id()), Err(Error::Journal { .. })));
    assert!(matches!(Journal::list(place.path()).unwrap()[0].entry, Err(Error::Journal { .. })));
}

fn entry_again(bytes: &[u8]) -> Entry {
    Entry::parse(bytes).unwrap()
}

#[test]
fn an_unknown_version_is_refused_by_its_number() {
    let bytes = entry(SourceRecord::Held).to_bytes().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for version in [0, 2, 99] {
        let other = text.replacen("\"version\":1", &format!("\"version\":{version}"), 1);
        assert_eq!(Entry::parse(other.as_bytes()), Err(RecordProblem::Version { found: version, known: 1 }));
    }
    let foreign = text.replacen("crr migration", "crr checkpoint", 1);
    assert_eq!(Entry::parse(foreign.as_bytes()), Err(RecordProblem::Magic));
}

#[test]
fn a_place_that_others_may_write_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Journal::create(place.path(), id()).is_err());
    assert!(Journal::list(place.path()).is_err());
    assert!(Journal::list(&place.path().join("absent")).unwrap().is_empty());
}

#[test]
fn a_record_that_cannot_be_written_leaves_the_old_one() {
    let place = place();
    let mut journal = Journal::create(place.path(), id()).unwrap();
    journal.write(&entry(SourceRecord::Held)).unwrap();
    // In the way of the new file.
    fs::create_dir(journal.path().join(NEW)).unwrap();
    let unwritten = journal.write(&entry(SourceRecord::Commit)).unwrap_err();
    assert_eq!(unwritten.stands, Stands::Before);
    assert_eq!(record_on_disk(place.path()), Some(SourceRecord::Held));
    fs::remove_dir(journal.path().join(NEW)).unwrap();
    journal.write(&entry(SourceRecord::Commit)).unwrap();
    assert_eq!(record_on_disk(place.path()), Some(SourceRecord::Commit));
}

/// Writes HELD, stops at the moment of its environment while it writes COMMIT and removes it again.
#[test]
#[ignore = "the child of a_writer_that_is_killed_leaves_the_old_record_or_the_new_one"]
fn child() {
    let place = PathBuf::from(std::env::var_os(PLACE_OF_CHILD).unwrap());
    let moment = std::env::var(MOMENT_OF_CHILD).unwrap();
    let mut stop = |seen: Moment| {
        if format!("{seen:?}") == moment {
            raise(Signal::SIGSTOP).unwrap();
        }
    };
    let mut journal = Journal::create(&place, id()).unwrap();
    journal.write(&entry(SourceRecord::Held)).unwrap();
    journal.write_seen(&entry(SourceRecord::Commit), &mut stop).unwrap();
    journal.erase_seen(&mut stop).unwrap();
}

#[test]
fn a_writer_that_is_killed_leaves_the_old_record_or_the_new_one() {
    for moment in MOMENTS {
        let place = place();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "migrate::journal::tests::child", "--ignored"])
            .env(PLACE_OF_CHILD, place.path())
            .env(MOMENT_OF_CHILD, format!("{moment:?}"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP), "{moment:?}");
        let listed = Journal::list(place.path()).unwrap();
        assert!(listed[0].is_held, "{moment:?}");
        kill(pid, Signal::SIGKILL).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));

        let expected = match moment {
            Moment::Made | Moment::Written | Moment::Flushed => Some(SourceRecord::Held),
            Moment::Renamed => Some(SourceRecord::Commit),
            Moment::Removed => None,
        };
        assert_eq!(record_on_disk(place.path()), expected, "{moment:?}");
        // Whoever takes it up goes on as if nothing had been.
        match Journal::take_up(place.path(), id()).unwrap() {
            Some((mut journal, _)) => {
                journal.write(&entry(SourceRecord::Done)).unwrap();
                assert_eq!(record_on_disk(place.path()), Some(SourceRecord::Done));
                journal.erase().unwrap();
            }
            None => assert_eq!(expected, None),
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{moment:?}");
    }
}
