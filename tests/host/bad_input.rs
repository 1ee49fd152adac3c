//! Wrong PIDs, directories and images: a clear error, its documented exit status, and nothing lost.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::{Ran, Running};
use crate::kill::has_parasite;
use crate::need::Need::{self, Cc, Criu, KernelThreads, Netns, Root};
use crate::need::kernel_thread;
use crate::situations::Situation;
use crate::until::{SOON, until};
use crate::victim::{self, Start, Victim};
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc];
/// Mounts are made in the tests' own namespace only.
const MOUNTS: &[Need] = &[Root, Criu, Cc, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_pid_that_does_not_exist", NEEDS, || refused_pid(no_such_pid()?, 66, &["no process"])),
        test("the_pid_of_a_kernel_thread", &[Root, Criu, Cc, KernelThreads], || {
            refused_pid(kernel_thread().ok_or("no kernel thread")?, 78, &["kernel"])
        }),
        test("the_pid_of_an_ancestor_of_crr", NEEDS, || {
            refused_pid(i32::try_from(std::process::id())?, 78, &["crr itself"])
        }),
        test("a_tree_that_is_traced_already", NEEDS, traced),
        test("a_dir_that_is_a_file", NEEDS, || refused_dir(|dir| Ok(fs::write(dir, "mine")?), 73)),
        test("a_dir_that_is_not_empty", NEEDS, || {
            refused_dir(
                |dir| {
                    fs::create_dir(dir)?;
                    Ok(fs::write(dir.join("mine"), "mine")?)
                },
                73,
            )
        }),
        test("a_dir_that_is_a_checkpoint_already", NEEDS, already_a_checkpoint),
        test("a_dir_that_others_may_write", NEEDS, others_may_write),
        test("a_dir_on_a_read_only_file_system", MOUNTS, read_only),
        test("a_dir_that_is_a_mount_point", MOUNTS, mount_point),
        test("a_dir_that_has_no_room", MOUNTS, no_room),
        test("a_dir_that_fills_up_in_mid_dump", MOUNTS, fills_up),
        test("restoring_a_directory_that_does_not_exist", NEEDS, || refused_restore(|_| Ok(()), 66)),
        test("restoring_an_empty_directory", NEEDS, || refused_restore(|dir| Ok(fs::create_dir(dir)?), 65)),
        test("restoring_truncated_images", NEEDS, || damaged(truncated)),
        test("restoring_flipped_images", NEEDS, || damaged(flipped)),
        test("restoring_images_of_a_newer_crr", NEEDS, newer_crr),
        test("restoring_while_a_pid_is_taken", NEEDS, pid_taken),
        test("restoring_without_a_file_of_the_tree", NEEDS, || outside_changed(|file| Ok(fs::remove_file(file)?), 68)),
        test("restoring_with_a_file_of_another_size", NEEDS, || {
            outside_changed(|file| Ok(fs::write(file, "another size")?), 68)
        }),
        test("restoring_with_a_file_of_another_mode", NEEDS, || {
            outside_changed(|file| Ok(fs::set_permissions(file, Permissions::from_mode(0o644))?), 68)
        }),
        test("restoring_with_other_content_is_a_warning_and_with_strict_files_an_error", NEEDS, other_content),
        test("restoring_images_that_a_third_user_owns", NEEDS, third_user),
        test("restoring_images_that_others_may_write", NEEDS, || {
            untrusted(|dir| Ok(fs::set_permissions(dir.join("inventory.img"), Permissions::from_mode(0o666))?))
        }),
    ]
}

fn subject() -> Result<Victim, Failed> {
    let victim = Victim::start(&programs::program("tree")?, &["2"])?;
    victim.await_ticks(2)?;
    Ok(victim)
}

/// The message says what and what to do, in a few words each.
fn explains(ran: &Ran, words: &[&str]) -> Outcome {
    for word in words {
        ensure!(
            ran.stderr.to_lowercase().contains(&word.to_lowercase()),
            "the error does not say `{word}`: {}",
            ran.stderr
        );
    }
    ensure!(!ran.stderr.contains("panicked"), "crr panicked: {}", ran.stderr);
    Ok(())
}

fn no_such_pid() -> Result<i32, Failed> {
    let highest: i32 = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    (2..highest)
        .rev()
        .find(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        .ok_or_else(|| Failed::from("all PIDs are taken"))
}

fn refused_pid(pid: i32, code: i32, words: &[&str]) -> Outcome {
    let directory = tempfile::tempdir()?;
    let images = directory.path().join("images");
    let ran = crr::dump(pid, &images, &[])?.must_exit(code, "crr dump")?;
    explains(&ran, words)?;
    ensure!(!images.exists(), "DIR was made");
    Ok(())
}

fn traced() -> Outcome {
    let Start::Ready(victim) = Situation::named("traced_by_outside").start()? else {
        return Err("the situation cannot be made".into());
    };
    let tracer = victim.said("outside ").first().cloned().unwrap_or_default();
    let ran = crr::dump(victim.pid(), &victim.images(), &[])?.must_exit(78, "crr dump")?;
    explains(&ran, &["trace", &tracer])?;
    victim.self_check()
}

/// A dump to a DIR prepared in some way is refused; the tree runs on and what was in DIR is as it was.
fn refused_dir(prepare: impl FnOnce(&Path) -> Outcome, code: i32) -> Outcome {
    let victim = subject()?;
    let images = victim.images();
    prepare(&images)?;
    let before = listing(&images);
    let ran = crr::dump(victim.pid(), &images, &[])?.must_exit(code, "crr dump")?;
    explains(&ran, &[&images.to_string_lossy()])?;
    ensure!(listing(&images) == before, "DIR was changed: {:?} became {:?}", before, listing(&images));
    victim.await_ticks(2)?;
    victim.self_check()
}

/// The names below a path and their sizes.
fn listing(path: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = vec![(path.to_owned(), fs::metadata(path).map(|file| file.len()).unwrap_or_default())];
    found.extend(
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| (entry.path(), entry.metadata().map_or(0, |m| m.len()))),
    );
    found.sort();
    found
}

fn already_a_checkpoint() -> Outcome {
    let victim = subject()?;
    let images = victim.images();
    crr::dump(victim.pid(), &images, &["--leave-running"])?.must_pass("crr dump")?;
    let before = listing(&images);
    crr::dump(victim.pid(), &images, &[])?.must_exit(73, "a second crr dump to the same DIR")?;
    ensure!(listing(&images) == before, "the first checkpoint was changed");
    victim.self_check()
}

fn others_may_write() -> Outcome {
    let victim = subject()?;
    let open = victim.directory().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, Permissions::from_mode(0o777))?;
    let ran = crr::dump(victim.pid(), &open.join("images"), &[])?;
    ensure!(matches!(ran.code, 67 | 73), "exit status {}: {}", ran.code, ran.stderr);
    explains(&ran, &[&open.to_string_lossy()])?;
    victim.self_check()
}

/// A tmpfs at `place` in the victim's directory.
fn tmpfs(victim: &Victim, options: &str, flags: MsFlags) -> Result<PathBuf, Failed> {
    let place = victim.directory().join("small");
    fs::create_dir(&place)?;
    mount(Some("small"), &place, Some("tmpfs"), flags, Some(options))?;
    Ok(place)
}

fn read_only() -> Outcome {
    let victim = subject()?;
    let place = tmpfs(&victim, "size=1m", MsFlags::MS_RDONLY)?;
    let ran = crr::dump(victim.pid(), &place.join("images"), &[])?.must_exit(73, "crr dump")?;
    explains(&ran, &["cannot be written"])?;
    victim.self_check()
}

fn mount_point() -> Outcome {
    let victim = subject()?;
    let place = tmpfs(&victim, "size=100m,mode=0700", MsFlags::empty())?;
    let ran = crr::dump(victim.pid(), &place, &[])?.must_exit(73, "crr dump")?;
    explains(&ran, &["mount point"])?;
    victim.self_check()
}

fn no_room() -> Outcome {
    let victim = Victim::start(&programs::program("memory")?, &["64"])?;
    let place = tmpfs(&victim, "size=16m,mode=0700", MsFlags::empty())?;
    // The preflight compares its estimate with what is free.
    let ran = crr::dump(victim.pid(), &place.join("images"), &[])?.must_exit(78, "crr dump")?;
    explains(&ran, &["free", "16 MiB"])?;
    ensure!(fs::read_dir(&place)?.next().is_none(), "something is left in {}", place.display());
    victim.self_check()
}

fn fills_up() -> Outcome {
    let victim = Victim::start(&programs::program("memory")?, &["64"])?;
    victim.await_ticks(2)?;
    let place = tmpfs(&victim, "size=200m,mode=0700", MsFlags::empty())?;
    let (tree, images) = (victim.tree(), place.join("images"));
    let running = Running::start(crr::command().env("CRR_TEST_PAUSE_AT", "pre-dump").args([
        "dump",
        "--pid",
        &victim.pid().to_string(),
        "--dir",
        &images.to_string_lossy(),
    ]))?;
    until("crr to stop", SOON, || (victim::state(running.pid()) == Some('T')).then_some(()))?;
    // Somebody else fills the file system after the free space was looked at.
    let mut other = File::create(place.join("other"))?;
    while other.write_all(&[0; 1 << 16]).is_ok() {}
    kill(Pid::from_raw(running.pid()), Signal::SIGCONT)?;
    let ran = running.end(SOON)?;
    ensure!(matches!(ran.code, 74 | 80), "exit status {}: {}", ran.code, ran.stderr);
    explains(&ran, &["space"])?;
    ensure!(!images.exists(), "DIR is there");
    ensure!(!images.with_extension("partial").exists(), "DIR.partial is there");
    victim.await_ticks(2)?;
    victim.self_check()?;
    ensure!(tree.iter().all(|pid| !has_parasite(*pid)), "CRIU's parasite stays");
    Ok(())
}

fn refused_restore(prepare: impl FnOnce(&Path) -> Outcome, code: i32) -> Outcome {
    let directory = tempfile::tempdir()?;
    let images = directory.path().join("images");
    prepare(&images)?;
    let ran = crr::restore(&images, &[])?.must_exit(code, "crr restore")?;
    explains(&ran, &[&images.to_string_lossy()])
}

/// A victim that is gone, and its checkpoint.
fn dumped() -> Result<(Victim, Vec<i32>), Failed> {
    let mut victim = subject()?;
    let tree = victim.tree();
    crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    Ok((victim, tree))
}

fn truncated(image: &Path) -> Outcome {
    let length = fs::metadata(image)?.len();
    Ok(File::options().write(true).open(image)?.set_len(length / 2)?)
}

fn flipped(image: &Path) -> Outcome {
    let mut bytes = fs::read(image)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    Ok(fs::write(image, bytes)?)
}

/// Every image of a checkpoint, damaged one at a time: no restore of it passes, and nothing runs afterwards. With the image
/// put back it does.
fn damaged(damage: fn(&Path) -> Outcome) -> Outcome {
    let (victim, tree) = dumped()?;
    let images = victim.images();
    let mut seen = 0;
    for (image, length) in listing(&images) {
        if image.extension().is_none_or(|extension| extension != "img") || length < 8 {
            continue;
        }
        let whole = fs::read(&image)?;
        damage(&image)?;
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ran = crr::restore(&images, &[])?.must_exit(65, &format!("crr restore with {name} damaged"))?;
        explains(&ran, &[&name])?;
        ensure!(tree.iter().all(|pid| victim::state(*pid).is_none()), "something was restored with {name} damaged");
        fs::write(&image, whole)?;
        seen += 1;
    }
    ensure!(seen > 8, "only {seen} images were damaged");
    crr::restore(&images, &[])?.must_pass("crr restore with all images whole")?;
    victim.self_check()
}

fn newer_crr() -> Outcome {
    let (victim, _) = dumped()?;
    let path = victim.images().join("crr.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    let version = record["version"].as_u64().ok_or("crr.json has no version")?;
    record["version"] = (version + 1).into();
    fs::write(&path, serde_json::to_vec(&record)?)?;
    let ran = crr::restore(&victim.images(), &[])?.must_exit(65, "crr restore")?;
    explains(&ran, &[&(version + 1).to_string()])
}

fn pid_taken() -> Outcome {
    let victim = subject()?;
    let images = victim.images();
    crr::dump(victim.pid(), &images, &["--leave-running"])?.must_pass("crr dump")?;
    let ran = crr::restore(&images, &[])?.must_exit(83, "crr restore")?;
    explains(&ran, &[&victim.pid().to_string()])?;
    victim.self_check()
}

/// A checkpoint of a program that has the file `file` open.
fn with_file() -> Result<(Victim, PathBuf), Failed> {
    let Start::Ready(mut victim) = Situation::named("file_read").start()? else {
        return Err("the situation cannot be made".into());
    };
    let tree = victim.tree();
    crr::dump(victim.pid(), &victim.images(), &[])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    let file = victim.work().join("file");
    Ok((victim, file))
}

fn outside_changed(change: impl FnOnce(&Path) -> Outcome, code: i32) -> Outcome {
    let (victim, file) = with_file()?;
    change(&file)?;
    let ran = crr::restore(&victim.images(), &[])?.must_exit(code, "crr restore")?;
    explains(&ran, &[&file.to_string_lossy()])?;
    ensure!(!victim.is_there(), "something was restored");
    Ok(())
}

fn other_content() -> Outcome {
    let (victim, file) = with_file()?;
    let length = fs::metadata(&file)?.len();
    fs::write(&file, vec![b'y'; usize::try_from(length)?])?;
    let ran = crr::restore(&victim.images(), &["--strict-files"])?.must_exit(68, "crr restore --strict-files")?;
    explains(&ran, &[&file.to_string_lossy()])?;
    let ran = crr::restore(&victim.images(), &[])?.must_pass("crr restore")?;
    explains(&ran, &[&file.to_string_lossy()])
}

fn untrusted(change: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let (victim, _) = dumped()?;
    let images = victim.images();
    change(&images)?;
    let ran = crr::restore(&images, &[])?.must_exit(67, "crr restore")?;
    explains(&ran, &["--trust-images"])?;
    ensure!(!victim.is_there(), "something was restored");
    crr::restore(&images, &["--trust-images"])?.must_pass("crr restore --trust-images")?;
    victim.self_check()
}

fn third_user() -> Outcome {
    untrusted(|dir| Ok(chown(dir, Some(1234), Some(1234))?))
}
