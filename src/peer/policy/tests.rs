//! Images of the real CRIU (tests/images/tree), edited by a hostile peer: each edit is refused for its line and no other.

mod documents;
mod edits;
mod hostile;

use std::fs;
use std::path::Path;

use super::*;
use crate::images::{Images, Kind};
use crate::peer::Name;
use crate::proto::images::core::Core_entry;
use crate::proto::images::fdinfo::File_entry;
use crate::proto::images::ghost_file::Ghost_file_entry;
use crate::proto::images::memfd::Memfd_inode_entry;

/// Images that a policy accepts, to be edited.
struct Set {
    home: tempfile::TempDir,
    policy: String,
}

/// What the peer may bring; the home directory of the test stands for HOME.
const POLICY: &str = "[peer.b]
uids = [1000]
gids = [1000]
open = [\"/dev/null\", \"HOME/files\"]
write = [\"HOME/files\"]
map = [\"HOME/files/victim\", \"HOME/files/home/shared\"]
create = [\"HOME/files/home\"]
addresses = [\"127.0.0.1\"]
ports = [\"1024-65535\"]
remotes = [\"127.0.0.0/8\"]
cgroups = [\"/crr\"]
max-tasks = 4
max-bytes = \"1M\"
";

impl Set {
    /// The tree as an ordinary user's without capabilities, and with files that are there.
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let set = Self { policy: POLICY.replace("HOME", home.path().to_str().expect("UTF-8")), home };
        fs::create_dir_all(set.file("home")).expect("made");
        fs::create_dir(set.images()).expect("made");
        for file in ["victim", "out", "home/regular", "home/shared"] {
            fs::write(set.file(file), "").expect("written");
        }
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/tree");
        for entry in fs::read_dir(tree).expect("part of the source") {
            let entry = entry.expect("readable");
            fs::copy(entry.path(), set.images().join(entry.file_name())).expect("copied");
        }
        let files = set.file("");
        set.edit::<File_entry>("files.img", |entries| {
            for entry in entries.iter_mut().filter_map(|entry| entry.reg.as_mut()) {
                let path = String::from_utf8(entry.name().to_vec()).expect("UTF-8");
                if let Some(rest) = path.strip_prefix("/tmp/crr-images.") {
                    let (_, rest) = rest.split_once('/').expect("a file");
                    entry.set_name(format!("{}{rest}", files.display()).into_bytes());
                }
            }
        });
        for core in set.named("core-") {
            set.edit::<Core_entry>(&core, |cores| cores.iter_mut().for_each(ordinary));
        }
        for ghost in set.named("ghost-file-") {
            set.edit_head::<Ghost_file_entry>(&ghost, |ghost| {
                ghost.set_uid(1000);
                ghost.set_gid(1000);
            });
        }
        set.edit::<Memfd_inode_entry>("memfd.img", |memfds| {
            for memfd in memfds {
                memfd.set_uid(1000);
                memfd.set_gid(1000);
            }
        });
        set
    }

    fn images(&self) -> std::path::PathBuf {
        self.home.path().join("images")
    }

    /// A file on the target, below the allowed directory.
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join("files").join(name)
    }

    /// Images whose names begin so.
    fn named(&self, start: &str) -> Vec<String> {
        let names = fs::read_dir(self.images()).expect("readable");
        let mut names: Vec<String> = names
            .map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"))
            .filter(|name| {
                name.starts_with(start) && fs::metadata(self.images().join(name)).is_ok_and(|file| file.len() > 8)
            })
            .collect();
        names.sort();
        names
    }

    /// The core of the root task.
    fn root(&self) -> String {
        let images = Images::open(self.images()).expect("readable");
        format!("core-{}.img", images.tasks().expect("readable")[0].pid)
    }

    /// Rewrites all records of an image. What the typed message does not know it keeps.
    fn edit<M: protobuf::MessageFull>(&self, name: &str, change: impl FnOnce(&mut Vec<M>)) {
        let path = self.images().join(name);
        let (kind, _) = Kind::of(name).expect("an image");
        let header = kind.header().into_iter().flatten().count() * 4;
        let bytes = fs::read(&path).expect("readable");
        let (head, mut rest) = bytes.split_at(header);
        let mut records = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk() {
            let (record, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            records.push(M::parse_from_bytes(record).expect("a record"));
            rest = after;
        }
        change(&mut records);
        fs::write(path, [head.to_vec(), records.iter().flat_map(encoded).collect()].concat()).expect("written");
    }

    /// Rewrites the first record of an image with raw bytes after it.
    fn edit_head<M: protobuf::MessageFull>(&self, name: &str, change: impl FnOnce(&mut M)) {
        let path = self.images().join(name);
        let bytes = fs::read(&path).expect("readable");
        let length = u32::from_le_bytes(bytes[8..12].try_into().expect("four")) as usize;
        let mut record = M::parse_from_bytes(&bytes[12..12 + length]).expect("a record");
        change(&mut record);
        fs::write(path, [&bytes[..8], &encoded(&record), &bytes[12 + length..]].concat()).expect("written");
    }

    /// Adds an image of this kind with these records.
    fn add(&self, name: &str, records: &[Vec<u8>]) {
        let (kind, _) = Kind::of(name).expect("an image");
        let mut bytes: Vec<u8> = kind.header().into_iter().flatten().flat_map(u32::to_le_bytes).collect();
        for record in records {
            bytes.extend((record.len() as u32).to_le_bytes());
            bytes.extend(record);
        }
        fs::write(self.images().join(name), bytes).expect("written");
    }

    fn allow(&mut self, line: &str) {
        self.policy.push_str(line);
        self.policy.push('\n');
    }

    fn judge(&self) -> Vec<Violation> {
        let policies = Policies::parse(&self.policy, "serve.toml".into()).expect("a policy");
        let peer: Name = "b".parse().expect("a name");
        judge(&Images::open(self.images()).expect("readable"), &policies.of_peer(&peer)).expect("listed")
    }
}

fn encoded<M: protobuf::Message>(record: &M) -> Vec<u8> {
    let record = record.write_to_bytes().expect("complete");
    [(record.len() as u32).to_le_bytes().to_vec(), record].concat()
}

/// What a user's program has, whatever the machine on which the images were made.
fn ordinary(core: &mut Core_entry) {
    if let Some(task) = core.tc.as_mut() {
        task.loginuid = Some(u32::MAX);
        task.oom_score_adj = Some(0);
        for limit in task.rlimits.as_mut().into_iter().flat_map(|limits| &mut limits.rlimits) {
            limit.set_cur(0);
            limit.set_max(0);
        }
    }
    let Some(thread) = core.thread_core.as_mut() else { return };
    thread.sched_nice = Some(0);
    thread.sched_policy = Some(0);
    thread.seccomp_mode = None;
    thread.seccomp_filter = None;
    let credentials = thread.creds.as_mut().expect("credentials");
    for id in [&mut credentials.uid, &mut credentials.euid, &mut credentials.suid, &mut credentials.fsuid] {
        *id = Some(1000);
    }
    for id in [&mut credentials.gid, &mut credentials.egid, &mut credentials.sgid, &mut credentials.fsgid] {
        *id = Some(1000);
    }
    credentials.groups = vec![1000];
    credentials.set_secbits(0);
    credentials.lsm_profile = None;
    credentials.lsm_sockcreate = None;
    for set in [&mut credentials.cap_inh, &mut credentials.cap_prm, &mut credentials.cap_eff, &mut credentials.cap_amb]
    {
        set.iter_mut().for_each(|word| *word = 0);
    }
}

fn texts(found: &[Violation]) -> String {
    found.iter().map(|violation| format!("{violation}\n")).collect()
}

#[test]
fn images_that_ask_for_no_more_than_is_allowed_are_accepted() {
    let found = Set::new().judge();
    assert!(found.is_empty(), "{}", texts(&found));
}

#[test]
fn nobody_may_bring_anything_by_default() {
    let mut set = Set::new();
    set.policy = String::new();
    let found = set.judge();
    let lines: std::collections::BTreeSet<Line> = found.iter().map(|violation| violation.line).collect();
    let expected =
        [Line::Uids, Line::Gids, Line::Open, Line::Write, Line::Map, Line::Create, Line::Addresses, Line::Ports];
    assert_eq!(lines, expected.into_iter().collect(), "{}", texts(&found));
}

#[test]
fn an_unrestricted_peer_is_held_to_its_limits_only() {
    let mut set = Set::new();
    set.policy = "[peer.b]\nunrestricted = true\n".into();
    fs::write(set.images().join("unknown.img"), "x").expect("written");
    assert!(set.judge().is_empty());
    set.allow("max-tasks = 3\nmax-bytes = 1000");
    let found = set.judge();
    assert_eq!(found.iter().map(|violation| violation.line).collect::<Vec<_>>(), [Line::MaxTasks, Line::MaxBytes]);
}

#[test]
fn everything_is_told_at_once_with_image_task_value_and_line() {
    let set = Set::new();
    let root = set.root();
    set.edit::<Core_entry>(&root, |cores| {
        let credentials = cores[0].thread_core.as_mut().and_then(|thread| thread.creds.as_mut()).expect("credentials");
        credentials.set_euid(0);
        credentials.cap_eff[0] = 1 << 21;
    });
    fs::write(set.images().join("pages-x.img"), "").expect("written");
    let pid: u32 = root.trim_start_matches("core-").trim_end_matches(".img").parse().expect("a number");
    let text = texts(&set.judge());
    let expected = format!(
        "pages-x.img: CRIU 4.2 writes no image of this name ([peer.b] unrestricted)\n\
         {root}: task {pid}: its euid is 0 ([peer.b] uids)\n\
         {root}: task {pid}: its effective set has sys_admin ([peer.b] capabilities)\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn there_is_a_hostile_edit_for_each_line() {
    let tested: std::collections::BTreeSet<Line> = hostile::CASES.iter().map(|case| case.line).collect();
    let all: std::collections::BTreeSet<Line> = Line::ALL.iter().copied().collect();
    // Time is not in the images: the migration holds it.
    let untested: Vec<_> = all.difference(&tested).collect();
    assert_eq!(untested, [&Line::MaxSeconds]);
}
