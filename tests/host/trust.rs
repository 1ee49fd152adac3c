//! Restore runs what the images say, as root: whose checkpoints are believed.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::dumped::{Dumped, start};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::{Outcome, crr, ensure, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

const LIMIT: Duration = Duration::from_secs(120);
/// Users that no machine has.
const SOMEBODY: u32 = 54_321;
const SOMEBODY_ELSE: u32 = 54_322;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_checkpoint_in_tmp_restores", NEEDS, in_tmp),
        test("what_others_own_or_may_write_is_refused_and_restores_when_trusted", NEEDS, each_alone),
        test("an_image_that_is_a_link_is_judged_by_its_target_and_not_restored", NEEDS, linked_image),
        test("everything_that_is_not_to_be_believed_is_named_at_once", NEEDS, all_at_once),
        test("a_link_of_somebody_elses_on_the_way_is_refused", NEEDS, links),
        test("sudo_restores_from_the_callers_home_and_from_nobody_elses", NEEDS, home),
        test("in_a_sticky_directory_the_next_name_must_be_roots_or_the_callers", NEEDS, sticky),
        test("a_dump_to_where_others_may_write_is_refused_and_the_tree_runs_on", NEEDS, dump),
        test("rm_and_unlock_believe_no_more_than_restore", NEEDS, removal),
    ]
}

fn mode(path: &Path, mode: u32) -> Outcome {
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

fn owner(path: &Path, uid: u32) -> Outcome {
    Ok(chown(path, Some(uid), Some(uid))?)
}

/// A directory and all that is in it.
fn owner_of_all(path: &Path, uid: u32) -> Outcome {
    lchown(path, Some(uid), Some(uid))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            owner_of_all(&entry?.path(), uid)?;
        }
    }
    Ok(())
}

/// `crr` as root started it for a user by sudo.
fn sudo<S: AsRef<OsStr>>(uid: u32, words: impl IntoIterator<Item = S>) -> Result<crr::Ran, Failed> {
    crr::Running::start(crr::command().args(words).env("SUDO_UID", uid.to_string()))?.end(LIMIT)
}

fn names(said: &str, path: &Path) -> Outcome {
    ensure!(said.contains(&format!("`{}`", path.display())), "{} is not named: {said}", path.display());
    Ok(())
}

fn in_tmp() -> Outcome {
    let is_sticky = fs::metadata("/tmp")?.permissions().mode() & 0o1777 == 0o1777;
    ensure!(is_sticky, "/tmp is not a sticky directory that all may write");
    let mut dumped = Dumped::pair()?;
    let place = PathBuf::from(format!("/tmp/crr-host-in-tmp.{}", std::process::id()));
    fs::rename(&dumped.images, &place)?;
    let outcome = dumped.comes_back_from(&place, &[]).map(drop);
    fs::remove_dir_all(&place)?;
    outcome
}

/// What makes a checkpoint unbelievable; gives the path that must be named.
type Spoil = fn(&Dumped) -> Result<PathBuf, Failed>;

const SPOILS: &[(&str, Spoil)] = &[
    ("DIR is somebody's", |dumped| {
        owner(&dumped.images, SOMEBODY)?;
        Ok(dumped.images.clone())
    }),
    ("DIR may be written by its group", |dumped| {
        mode(&dumped.images, 0o770)?;
        Ok(dumped.images.clone())
    }),
    ("DIR may be written by all", |dumped| {
        mode(&dumped.images, 0o702)?;
        Ok(dumped.images.clone())
    }),
    ("DIR is sticky and may be written by all", |dumped| {
        mode(&dumped.images, 0o1777)?;
        Ok(dumped.images.clone())
    }),
    ("an image is somebody's", |dumped| {
        let path = dumped.images.join("pages-1.img");
        owner(&path, SOMEBODY)?;
        Ok(path)
    }),
    ("crr.json may be written by its group", |dumped| {
        let path = dumped.images.join("crr.json");
        mode(&path, 0o660)?;
        Ok(path)
    }),
    ("a file that restore does not read may be written by all", |dumped| {
        let path = dumped.images.join("dump.log");
        fs::write(&path, "")?;
        mode(&path, 0o606)?;
        Ok(path)
    }),
    ("the directory above is somebody's", |dumped| {
        owner(dumped.victim.directory(), SOMEBODY)?;
        Ok(dumped.victim.directory().to_path_buf())
    }),
    ("the directory above may be written by its group", |dumped| {
        mode(dumped.victim.directory(), 0o770)?;
        Ok(dumped.victim.directory().to_path_buf())
    }),
];

fn each_alone() -> Outcome {
    for (what, spoil) in SPOILS {
        let mut dumped = Dumped::pair()?;
        let named = spoil(&dumped)?;
        let said = dumped.refused(67, &[]).map_err(|failed| format!("{what}: {failed:?}"))?;
        names(&said, &named)?;
        ensure!(said.contains("--trust-images"), "{what}: the option is not named: {said}");
        dumped.comes_back(&["--trust-images"]).map_err(|failed| format!("{what}: {failed:?}"))?;
    }
    Ok(())
}

/// A link in DIR is judged by what it leads to; as an image no link is taken.
fn linked_image() -> Outcome {
    let dumped = Dumped::pair()?;
    let (image, elsewhere) = (dumped.images.join("pages-1.img"), dumped.victim.directory().join("pages"));
    fs::rename(&image, &elsewhere)?;
    owner(&elsewhere, SOMEBODY)?;
    symlink(&elsewhere, &image)?;
    names(&dumped.refused(67, &[])?, &elsewhere)?;
    names(&dumped.refused(65, &["--trust-images", "--no-verify"])?, &image)?;
    fs::remove_file(&elsewhere)?;
    let said = dumped.refused(67, &[])?;
    names(&said, &image)?;
    ensure!(said.contains("leads nowhere"), "{said}");
    Ok(())
}

fn all_at_once() -> Outcome {
    let dumped = Dumped::pair()?;
    let files = ["inventory.img", "pstree.img", "crr.json"].map(|name| dumped.images.join(name));
    owner(&files[0], SOMEBODY)?;
    mode(&files[1], 0o666)?;
    owner(&files[2], SOMEBODY_ELSE)?;
    mode(&dumped.images, 0o777)?;
    owner(dumped.victim.directory(), SOMEBODY)?;
    let said = dumped.refused(67, &[])?;
    for path in files.iter().map(PathBuf::as_path).chain([&*dumped.images, dumped.victim.directory()]) {
        names(&said, path)?;
    }
    for word in [format!("user {SOMEBODY}"), format!("user {SOMEBODY_ELSE}"), "mode 0666".into(), "mode 0777".into()] {
        ensure!(said.contains(&word), "`{word}` is not said: {said}");
    }
    Ok(())
}

fn links() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let place = dumped.victim.directory().to_path_buf();
    let link = place.join("link");
    symlink(&place, &link)?;
    let through = link.join("images");
    dumped.comes_back_from(&through, &[])?;
    lchown(&link, Some(SOMEBODY), Some(SOMEBODY))?;
    names(&dumped.refused_from(&through, 67, &[])?, &link)?;
    dumped.comes_back_from(&through, &["--trust-images"]).map(drop)
}

fn home() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let home = dumped.victim.directory().join("home");
    fs::create_dir(&home)?;
    let images = home.join("images");
    fs::rename(&dumped.images, &images)?;
    owner(&home, SOMEBODY)?;
    let text = images.to_str().ok_or("no UTF-8")?.to_owned();
    let restore = ["restore", "-d", "--dir", &text];
    // First root's own in the user's home, as `sudo crr dump` makes it, then one that the user has copied.
    for whose in [0, SOMEBODY] {
        owner_of_all(&images, whose)?;
        names(&dumped.refused_from(&images, 67, &[])?, &home)?;
        let refused = sudo(SOMEBODY_ELSE, restore)?.must_exit(67, "sudo by another user")?;
        names(&refused.stderr, &home)?;
        dumped.nothing_runs()?;
        sudo(SOMEBODY, restore)?.must_pass("sudo by the user whose home it is")?;
        dumped.intact()?;
    }
    // A third user's file is not believed in anybody's home.
    owner(&images.join("pstree.img"), SOMEBODY_ELSE)?;
    let refused = sudo(SOMEBODY, restore)?.must_exit(67, "a third user's image")?;
    names(&refused.stderr, &images.join("pstree.img"))?;
    dumped.nothing_runs()
}

fn sticky() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let place = dumped.victim.directory().join("shared");
    fs::create_dir(&place)?;
    mode(&place, 0o1777)?;
    let images = place.join("images");
    fs::rename(&dumped.images, &images)?;
    dumped.comes_back_from(&images, &[])?;
    // Who owns a sticky directory may take away what is in it.
    owner(&place, SOMEBODY)?;
    names(&dumped.refused_from(&images, 67, &[])?, &place)?;
    owner(&place, 0)?;
    owner(&images, SOMEBODY)?;
    names(&dumped.refused_from(&images, 67, &[])?, &images)
}

fn dump() -> Outcome {
    let victim = start("plain")?;
    let pid = victim.pid();
    let place = victim.directory().join("shared");
    fs::create_dir(&place)?;
    let spoils: [(&str, u32, u32); 3] = [("group", 0o770, 0), ("all", 0o777, 0), ("somebody's", 0o700, SOMEBODY)];
    let images = place.join("images");
    for (what, bits, uid) in spoils {
        mode(&place, bits)?;
        owner(&place, uid)?;
        let refused = crr::dump(pid, &images, &[])?.must_exit(67, what)?;
        names(&refused.stderr, &place)?;
        ensure!(fs::read_dir(&place)?.next().is_none(), "{what}: a refused dump made something");
        victim.self_check()?;
    }
    crr::dump(pid, &images, &["--trust-images", "--leave-running"])?.must_pass("a dump that trusts")?;
    // For whose home it is nothing is wrong with it.
    let other = place.join("other");
    let words = ["dump", "--leave-running", "--pid", &pid.to_string(), "--dir", other.to_str().ok_or("no UTF-8")?];
    sudo(SOMEBODY, words)?.must_pass("sudo crr dump to a home")?;
    mode(&place, 0o1777)?;
    owner(&place, 0)?;
    crr::dump(pid, &place.join("third"), &["--leave-running"])?.must_pass("a dump to a sticky directory")?;
    victim.self_check()
}

fn removal() -> Outcome {
    let dumped = Dumped::pair()?;
    let place = dumped.victim.directory();
    owner(place, SOMEBODY)?;
    for verb in ["rm", "unlock"] {
        let refused = crr::crr([OsStr::new(verb), dumped.images.as_os_str()])?.must_exit(67, verb)?;
        names(&refused.stderr, place)?;
        ensure!(dumped.images.join("inventory.img").exists(), "{verb} removed something");
    }
    for verb in ["unlock", "rm"] {
        let words = [OsStr::new(verb), OsStr::new("--trust-images"), dumped.images.as_os_str()];
        crr::crr(words)?.must_pass(verb)?;
    }
    ensure!(!dumped.images.exists(), "rm left the checkpoint");
    Ok(())
}
