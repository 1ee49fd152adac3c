//! A checkpoint of crr is a CRIU image directory: the criu program restores it, and crr restores what the criu program dumped.
//! What crr leaves on the machine, and what it does not.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use ::crr::checkpoint::{Checkpoint, Trust};
use libtest_mimic::{Failed, Trial};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::dumped::{Dumped, end, snapshot, start};
use crate::need::Need::{self, Cc, Criu, Iptables, Netns, Pty, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, need, network, terminal, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const PTY: &[Need] = &[Root, Criu, Cc, Netns, Pty];
const TCP: &[Need] = &[Root, Criu, Cc, Netns, Iptables];

/// Situations, and the options that the criu program must be given to dump them.
const SITUATIONS: &[(&str, &[&str])] = &[
    ("plain", &[]),
    ("posix_lock", &["--file-locks"]),
    ("flock_inherited", &["--file-locks"]),
    ("ofd_lock", &["--file-locks"]),
    ("deleted_small", &[]),
    ("deleted_2m", &["--ghost-limit", "4M"]),
    ("unix_dgram_outside", &["--ext-unix-sk"]),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, words) in SITUATIONS {
        trials.push(test(format!("criu_restores_{name}_that_crr_dumped"), NEEDS, || dumped_by_crr(name)));
        trials.push(test(format!("crr_restores_{name}_that_criu_dumped"), NEEDS, || dumped_by_criu(name, words)));
    }
    trials.extend([
        test("criu_restores_a_link_remap_that_crr_dumped_once_its_name_is_put_back", NEEDS, link_remap_of_crr),
        test("crr_restores_a_link_remap_that_criu_dumped", NEEDS, link_remap_of_criu),
        test("criu_restores_a_shell_job_that_crr_dumped", PTY, shell_job_of_crr),
        test("crr_restores_a_shell_job_that_criu_dumped", PTY, shell_job_of_criu),
        test("criu_restores_tcp_connections_that_crr_dumped", TCP, || {
            network::established(restored_by_criu, &["--tcp-established"], &[])
        }),
        test("criu_restores_tcp_connections_that_crr_dumped_with_iptables", TCP, || {
            network::established(restored_by_criu, &["--tcp-established", "--network-lock", "iptables"], &[])
        }),
        test("crr_restores_tcp_connections_that_criu_dumped", TCP, || {
            network::established(restored_by_crr, &["--tcp-established"], &["--tcp-established"])
        }),
        test("crr_restores_tcp_connections_that_criu_dumped_with_nftables", TCP, || {
            let dump = &["--tcp-established", "--network-lock", "nftables"];
            network::established(restored_by_crr, dump, &["--tcp-established"])
        }),
        test("a_dump_leaves_every_file_outside_dir_as_it_was", NEEDS, nothing_outside),
        test("three_restores_leave_the_checkpoint_as_it_was", NEEDS, thrice),
        test("a_checkpoint_on_a_read_only_mount_restores", NEEDS, read_only),
        test("a_checkpoint_is_for_its_owner_alone_whatever_the_umask", NEEDS, modes),
    ]);
    trials
}

/// The options of a restore by the criu program, from crr.json alone.
fn recorded(images: &Path) -> Result<Vec<String>, Failed> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(images.join("crr.json"))?)?;
    let options = &record["checkpoint"]["options"];
    let switches = options["switches"].as_array().into_iter().flatten();
    let mut words: Vec<String> = switches.filter_map(|switch| Some(format!("--{}", switch.as_str()?))).collect();
    if let Some(tcp) = options["tcp"].as_str() {
        words.push(format!("--tcp-{tcp}"));
    }
    if let Some(method) = options["network_lock"].as_str() {
        words.extend(["--network-lock".to_owned(), method.to_owned()]);
    }
    Ok(words)
}

fn criu_restores(images: &Path) -> Outcome {
    let words = recorded(images)?;
    let words = std::iter::once("-d").chain(words.iter().map(String::as_str));
    crr::criu("restore", images, words, SOON)?.must_pass("criu restore")?;
    Ok(())
}

fn dumped_by_crr(name: &str) -> Outcome {
    let mut dumped = Dumped::situation(name, &[])?;
    criu_restores(&dumped.images)?;
    dumped.intact()?;
    // What the criu program adds, its log and statistics, does not keep crr from restoring it.
    dumped.comes_back(&[]).map(drop)
}

pub(crate) fn criu_dumps(victim: &mut Victim, words: &[&str]) -> Result<Vec<i32>, Failed> {
    let (images, tree, pid) = (victim.images(), victim.tree(), victim.pid().to_string());
    fs::create_dir(&images)?;
    crr::criu("dump", &images, ["-t", pid.as_str()].iter().chain(words), SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    Ok(tree)
}

/// First as the images show it to be needed, then as criu wants to be told.
fn dumped_by_criu(name: &str, words: &[&str]) -> Outcome {
    let mut victim = start(name)?;
    let tree = criu_dumps(&mut victim, words)?;
    let images = victim.images();
    let given: Vec<&str> = words.iter().copied().filter(|word| *word != "4M" && *word != "--ghost-limit").collect();
    for words in [&[][..], &given] {
        crr::restore(&images, words)?.must_pass(&format!("crr restore {words:?}"))?;
        victim.self_check()?;
        end(&mut victim, &tree)?;
    }
    Ok(())
}

/// CRIU uses the name up; crr leaves none behind, and keeps the content in the checkpoint.
fn link_remap_of_crr() -> Outcome {
    let mut dumped = Dumped::situation("unlinked_linked", &["--link-remap"])?;
    let images = dumped.images.clone();
    let checkpoint = Checkpoint::open(&images, Trust::owners())?;
    let remaps = checkpoint.record().ok_or("no crr.json")?.remaps.clone();
    let put_back = remaps.put_back(Path::new("/"), &checkpoint, &images)?;
    criu_restores(&images)?;
    put_back.clear()?;
    dumped.intact()
}

fn link_remap_of_criu() -> Outcome {
    let mut victim = start("unlinked_linked")?;
    criu_dumps(&mut victim, &["--link-remap"])?;
    let ran = crr::restore(&victim.images(), &[])?.must_pass("crr restore")?;
    ensure!(ran.stderr.contains("--link-remap"), "not said: {}", ran.stderr);
    victim.self_check()
}

/// By the shell whose job it was.
fn shell_job_of_crr() -> Outcome {
    let (victim, mut keyboard) = terminal::dumped()?;
    let (words, criu) = (recorded(&victim.images())?, need::criu().ok_or("no criu")?);
    ensure!(words.iter().any(|word| word == "--shell-job"), "recorded: {words:?}");
    let (criu, images) = (criu.display(), victim.images());
    writeln!(keyboard, "{criu} restore -d -D {} {}; echo status $?", images.display(), words.join(" "))?;
    let status = until("the exit status of criu", SOON, || victim.said("status ").first().cloned())?;
    ensure!(status == "0", "criu exited with {status}");
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()
}

fn shell_job_of_criu() -> Outcome {
    let mut victim = start("shell_job")?;
    criu_dumps(&mut victim, &["--shell-job"])?;
    let pidfile = victim.directory().join("pid");
    let ran = crr::restore_to(&victim.images(), &pidfile, true)?.must_pass("crr restore")?;
    ensure!(ran.stderr.contains("--shell-job"), "what was turned on is not said: {}", ran.stderr);
    ensure!(fs::read_to_string(&pidfile)?.trim() == victim.pid().to_string(), "another PID");
    victim.self_check()
}

fn restored_by_criu(victim: &mut Victim, at_dump: &[&str], _: &[&str]) -> Outcome {
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, at_dump)?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    criu_restores(&images)
}

fn restored_by_crr(victim: &mut Victim, at_dump: &[&str], at_restore: &[&str]) -> Outcome {
    criu_dumps(victim, at_dump)?;
    let images = victim.images();
    let refused = crr::restore(&images, &[])?.must_exit(79, "a restore without a choice")?;
    ensure!(refused.stderr.contains("--tcp-established"), "the choice is not named: {}", refused.stderr);
    crr::restore(&images, at_restore)?.must_pass("crr restore")?;
    Ok(())
}

/// The tree stands still but for the dump, so that every change is the dump's.
fn nothing_outside() -> Outcome {
    let place = tempfile::tempdir()?;
    for name in ["file_read", "file_append", "deleted_2m", "posix_lock", "fifo", "unix_listen", "o_tmpfile"] {
        for how in ["--leave-running", "--leave-stopped"] {
            let victim = start(name)?;
            let before = snapshot(victim.directory())?;
            crr::dump(victim.pid(), &place.path().join(format!("{name}{how}")), &[how])?.must_pass("crr dump")?;
            let after = snapshot(victim.directory())?;
            ensure!(before == after, "{name} {how}: {before:#?} became {after:#?}");
        }
    }
    Ok(())
}

fn thrice() -> Outcome {
    let mut dumped = Dumped::situation("deleted_2m", &[])?;
    let before = snapshot(&dumped.images)?;
    for _ in 0..3 {
        let said = dumped.comes_back(&[])?.stderr;
        ensure!(!said.contains("sum"), "{said}");
        let after = snapshot(&dumped.images)?;
        ensure!(before == after, "{before:#?} became {after:#?}");
    }
    Ok(())
}

fn read_only() -> Outcome {
    let mut dumped = Dumped::pair()?;
    let point = dumped.victim.directory().join("read-only");
    fs::create_dir(&point)?;
    let none = None::<&str>;
    mount(Some(&dumped.images), &point, none, MsFlags::MS_BIND, none)?;
    mount(none, &point, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    ensure!(fs::write(point.join("x"), "").is_err(), "the mount can be written");
    let outcome = dumped.comes_back_from(&point, &[]).map(drop);
    umount2(&point, MntFlags::MNT_DETACH)?;
    outcome
}

fn modes() -> Outcome {
    for umask in ["000", "777"] {
        let victim = start("unlinked_linked")?;
        let images = victim.images();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_crr"), "dump"]);
        command.args(["--pid", &victim.pid().to_string(), "--link-remap", "--with-files", "--dir"]).arg(&images);
        let ran = crr::Running::start(command.process_group(0))?.end(SOON)?;
        ran.must_pass(&format!("crr dump under umask {umask}"))?;
        let mut pending = vec![images];
        let mut files = 0;
        while let Some(path) = pending.pop() {
            let metadata = fs::symlink_metadata(&path)?;
            let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
            let mode = metadata.permissions().mode() & 0o7777;
            ensure!(mode == wanted, "umask {umask}: {} has mode {mode:04o}", path.display());
            if metadata.is_dir() {
                pending.extend(fs::read_dir(&path)?.filter_map(|entry| Some(entry.ok()?.path())));
            } else {
                files += 1;
            }
        }
        ensure!(files > 10, "only {files} files");
    }
    Ok(())
}
