//! Whom a checkpoint is believed from. Owners can be set by root only; without root the caller is said to be another.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::checkpoint::Checkpoint;

const STRANGER: u32 = 4242;
const CALLER: u32 = 4343;

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap() };
        tree.checkpoint("img");
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn checkpoint(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o700)).unwrap();
        self.write(&format!("{name}/inventory.img"));
    }

    fn write(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
        self.chmod(name, 0o600);
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The reasons given, by name below this directory.
    fn reasons(&self, name: &str, trust: Trust) -> Vec<(String, DistrustReason)> {
        let found = match Checkpoint::open(&self.path(name), trust) {
            Ok(_) => Vec::new(),
            Err(Error::Untrusted { found, .. }) => found,
            Err(other) => panic!("{other}"),
        };
        let above = self.path("");
        let name = |path: &Path| path.strip_prefix(&above).unwrap_or(path).to_string_lossy().into_owned();
        let mut reasons: Vec<_> = found.iter().map(|distrust| (name(&distrust.path), distrust.why)).collect();
        reasons.sort_by(|a, b| a.0.cmp(&b.0));
        reasons
    }

    fn own(&self, name: &str) -> Vec<(String, DistrustReason)> {
        self.reasons(name, Trust::owners())
    }
}

fn writable(name: &str, mode: u32) -> (String, DistrustReason) {
    (name.into(), DistrustReason::Writable(mode))
}

fn owner(name: &str, uid: u32) -> (String, DistrustReason) {
    (name.into(), DistrustReason::Owner(uid))
}

/// Sets an owner. Only for root.
fn give(path: &Path, uid: u32) {
    nix::unistd::fchownat(nix::fcntl::AT_FDCWD, path, Some(uid.into()), None, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
        .expect("these tests of owners are run by root");
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_private_directory_in_the_sticky_tmp_is_believed() {
    assert_eq!(Tree::new().own("img"), []);
}

#[test]
fn everything_that_others_may_write_is_named_at_once() {
    let tree = Tree::new();
    tree.write("img/pages-1.img");
    fs::create_dir(tree.path("img/files")).unwrap();
    tree.write("img/files/0");
    tree.chmod("img", 0o777);
    tree.chmod("img/pages-1.img", 0o620);
    tree.chmod("img/files", 0o1777);
    tree.chmod("img/files/0", 0o602);
    let expected = [
        writable("img", 0o777),
        writable("img/files", 0o1777),
        writable("img/files/0", 0o602),
        writable("img/pages-1.img", 0o620),
    ];
    assert_eq!(tree.own("img"), expected);
    assert_eq!(tree.reasons("img", Trust::Anyone), []);
}

#[test]
fn a_directory_above_counts_and_a_sticky_one_depends_on_who_owns_the_next_name() {
    let tree = Tree::new();
    fs::create_dir(tree.path("above")).unwrap();
    tree.checkpoint("above/img");
    tree.chmod("above", 0o777);
    assert_eq!(tree.own("above/img"), [writable("above", 0o777)]);
    tree.chmod("above", 0o1777);
    assert_eq!(tree.own("above/img"), []);
    if is_root() {
        give(&tree.path("above/img"), STRANGER);
        assert_eq!(tree.own("above/img"), [owner("above/img", STRANGER)]);
    }
}

#[test]
fn what_a_third_user_owns_is_refused_and_what_the_caller_owns_is_not() {
    if !is_root() {
        // The same seen from the other side: this user is the third one.
        let tree = Tree::new();
        let reasons = tree.reasons("img", Trust::Owners(Caller::user(STRANGER)));
        assert!(reasons.iter().any(|(name, _)| name == "img"), "{reasons:?}");
        return;
    }
    let tree = Tree::new();
    tree.write("img/pages-1.img");
    let caller = Trust::Owners(Caller::user(CALLER));
    for name in ["img", "img/inventory.img", "img/pages-1.img"] {
        give(&tree.path(name), CALLER);
    }
    assert_eq!(tree.reasons("img", caller), []);
    let root_only = Trust::Owners(Caller::user(0));
    assert_eq!(tree.reasons("img", root_only).len(), 3);
    give(&tree.path("img/pages-1.img"), STRANGER);
    assert_eq!(tree.reasons("img", caller), [owner("img/pages-1.img", STRANGER)]);
}

#[test]
fn a_link_on_the_way_counts_by_its_owner_and_its_own_directory() {
    let tree = Tree::new();
    fs::create_dir(tree.path("open")).unwrap();
    symlink("../img", tree.path("open/link")).unwrap();
    assert_eq!(tree.own("open/link"), []);
    tree.chmod("open", 0o777);
    assert_eq!(tree.own("open/link"), [writable("open", 0o777)]);
    tree.chmod("open", 0o1777);
    assert_eq!(tree.own("open/link"), []);
    if is_root() {
        give(&tree.path("open/link"), STRANGER);
        assert_eq!(tree.own("open/link"), [owner("open/link", STRANGER)]);
    }
}

#[test]
fn links_inside_lead_to_files_that_count() {
    let tree = Tree::new();
    tree.checkpoint("before");
    tree.write("before/pages-1.img");
    symlink("../before", tree.path("img/parent")).unwrap();
    symlink("../before/pages-1.img", tree.path("img/pages-2.img")).unwrap();
    assert_eq!(tree.own("img"), []);
    tree.chmod("before/pages-1.img", 0o666);
    assert_eq!(tree.own("img"), [writable("before/pages-1.img", 0o666)]);
    symlink("nowhere", tree.path("img/pages-3.img")).unwrap();
    assert!(tree.own("img").contains(&("img/pages-3.img".into(), DistrustReason::Dangling)));
}

#[test]
fn links_in_a_circle_end() {
    let tree = Tree::new();
    for name in ["a", "b", "c"] {
        symlink(".", tree.path(&format!("img/{name}"))).unwrap();
    }
    assert_eq!(tree.own("img"), []);
    symlink("loop", tree.path("loop")).unwrap();
    let error = Checkpoint::open(&tree.path("loop"), Trust::owners()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn a_fifo_or_a_device_among_the_images_is_refused() {
    let tree = Tree::new();
    nix::unistd::mkfifo(&tree.path("img/pages-1.img"), Mode::S_IRUSR).unwrap();
    assert_eq!(tree.own("img"), [("img/pages-1.img".into(), DistrustReason::Kind)]);
}

#[test]
fn an_access_list_that_lets_another_write_shows_in_the_mode() {
    let tree = Tree::new();
    // system.posix_acl_access: version 2, then tag, permissions and id of each entry: owner rw, user 4242 rw, group none,
    // mask rw, others none.
    let entries =
        [(0x01u16, 6u16, u32::MAX), (0x02, 6, STRANGER), (0x04, 0, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let path = tree.path("img/inventory.img");
    let set = rustix::fs::setxattr(&path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty());
    set.expect("the filesystem of the temporary directory has access lists");
    assert_eq!(tree.own("img"), [writable("img/inventory.img", 0o660)]);
}

#[test]
fn the_caller_is_the_user_or_whoever_called_sudo() {
    assert_eq!(Caller::from_parts(1000, None), Caller::user(1000));
    assert_eq!(Caller::from_parts(0, None), Caller::user(0));
    assert_eq!(Caller::from_parts(0, Some("1000")), Caller::user(1000));
    // Only sudo sets it for root; any other user can set what they like.
    assert_eq!(Caller::from_parts(1000, Some("1001")), Caller::user(1000));
    assert_eq!(Caller::from_parts(0, Some("nonsense")), Caller::user(0));
}

#[test]
fn what_is_no_checkpoint_says_so() {
    let tree = Tree::new();
    fs::create_dir(tree.path("empty")).unwrap();
    fs::create_dir(tree.path("other")).unwrap();
    tree.write("other/notes");
    let problem = |name: &str| match Checkpoint::open(&tree.path(name), Trust::owners()) {
        Err(Error::Directory { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    use crate::error::DirectoryProblem as Problem;
    assert_eq!(problem("none"), Problem::NotFound);
    assert_eq!(problem("none/below"), Problem::NotFound);
    assert_eq!(problem("empty"), Problem::Empty);
    assert_eq!(problem("other"), Problem::NotACheckpoint);
    assert_eq!(problem("other/notes"), Problem::NotADirectory);
}
