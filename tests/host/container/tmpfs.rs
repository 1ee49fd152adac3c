//! The library's parts on a container of runc's: a session in an arena, and tmpfs mounts that are not in the images.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crr::checkpoint::RecordedTmpfs;
use crr::container::tmpfs::Tmpfs;
use crr::host::cgroup::{Layout, Membership};
use libtest_mimic::{Failed, Trial};

use crate::crr::Running;
use crate::kill::paused::{Kill, Paused};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, need, test, world};

use super::bed::Bed;
use super::bundle::Bundle;
use super::driver::{Deed, Driver, external, table};
use super::output::null_streams;
use super::runtime::Runtime::{self, Runc11, Runc13};
use super::snapshot::Snapshot;

const RUNC_1_1: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];
const RUNC_1_3: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc13)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("tmpfs::runc_1_1s_are_made_anew", RUNC_1_1, || world::alone(|| made_anew(Runc11))),
        test("tmpfs::runc_1_3s_are_made_anew", RUNC_1_3, || world::alone(|| made_anew(Runc13))),
        test("tmpfs::a_driver_killed_at_any_step_leaves_no_mount", RUNC_1_3, || world::alone(killed)),
    ]
}

/// Counts into a file of the root file system, which the container is told apart by.
const COUNTER: &str = "i=0; while true; do echo $i >> /count; i=$(expr $i + 1); sleep 0.1; done";

fn count(bundle: &Bundle) -> Vec<u64> {
    let text = fs::read_to_string(bundle.inside("count")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn await_count(bundle: &Bundle) -> Outcome {
    let from = count(bundle).len();
    until("the container to count", SOON, || (count(bundle).len() > from + 2).then_some(()))
}

/// What of the machine is to be as it was.
#[derive(PartialEq, Eq)]
struct Machine {
    mounts: String,
    run: Vec<PathBuf>,
}

impl Machine {
    fn look() -> Result<Self, Failed> {
        let mut run = fs::read_dir("/run")?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Failed>>()?;
        // Others use /run as well, and every CRIU outside leaves an empty file where it is no tmpfs.
        run.retain(|path| {
            let name = path.to_string_lossy();
            name.contains("cr") && !name.contains("kdat") && name != crr::arena::PLACE
        });
        run.sort();
        Ok(Self { mounts: fs::read_to_string("/proc/thread-self/mountinfo")?, run })
    }

    fn must_be_unchanged(&self) -> Outcome {
        let now = Self::look()?;
        ensure!(now.mounts == self.mounts, "the mounts were\n{}and are\n{}", self.mounts, now.mounts);
        ensure!(now.run == self.run, "/run had {:?} and has {:?}", self.run, now.run);
        let is_tmpfs = rustix::fs::statfs("/run")?.f_type as u64 == 0x0102_1994;
        let is_cached = Path::new("/run/criu.kdat").exists();
        ensure!(is_tmpfs || !is_cached, "CRIU's cache was put where no boot removes it");
        Ok(())
    }
}

fn driver(bed: &Bed, bundle: &Bundle) -> Result<Driver, Failed> {
    let images = bed.path("images");
    fs::create_dir(&images)?;
    let criu = need::criu().ok_or("no CRIU")?;
    Ok(Driver { criu, kept: bed.path("kept"), images, rootfs: bundle.inside("/") })
}

fn await_end(bed: &Bed) -> Outcome {
    until("the container to be gone", SOON, || bed.processes().is_empty().then_some(()))
}

fn counted_without_gap(bundle: &Bundle) -> Outcome {
    let count = count(bundle);
    ensure!(count.windows(2).all(|pair| pair[1] == pair[0] + 1), "it has not counted on: {count:?}");
    Ok(())
}

fn made_anew(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let (cgroups_before, machine) = (Snapshot::take(bed.tag()), Machine::look()?);
    let mut bundle = bed.bundle("bundle")?;
    bundle.shell(COUNTER);
    bundle.mount("tmpfs", "tmpfs", "/empty", &["nosuid", "noexec", "size=1m", "mode=1750"])?;
    bundle.mount("tmpfs", "tmpfs", "/full", &["nodev", "size=2m"])?;
    let container = bed.run("counter", &bundle, null_streams())?;
    await_count(&bundle)?;
    container
        .sh("chown 7:8 /empty; mkdir -m 3771 /empty/a; ln -s ../b /empty/a/link; mkfifo -m 604 /empty/a/fifo; \
        mknod /empty/a/node c 1 3; chown 5:6 /empty/a/node; : > /empty/file; echo content > /full/file")?;
    let seen = "ls -lnR /dev /empty /full /proc/acpi /sys/firmware | sed 's/[A-Z][a-z][a-z] .*:[0-9][0-9] //'";
    let (pid, content) = (container.pid()?, container.sh(seen)?);
    let (mounted, cgroups) = (table(pid)?, directories(pid)?);

    let left_out = Tmpfs::find(pid, |mount| external(mount).is_some())?;
    let recorded: Vec<RecordedTmpfs> = left_out.iter().map(|tmpfs| tmpfs.recorded().clone()).collect();
    let at = |path: &str| recorded.iter().find(|tmpfs| tmpfs.destination == Path::new(path));
    for path in ["/dev", "/dev/shm", "/empty"] {
        ensure!(at(path).is_some(), "{path} is not left out of the images: {recorded:?}");
    }
    ensure!(at("/full").is_none(), "content is left out of the images: {recorded:?}");
    let masks = recorded.iter().filter(|tmpfs| tmpfs.flags.contains("ro")).map(|tmpfs| &tmpfs.name);
    ensure!(masks.collect::<BTreeSet<_>>().len() == 1, "masks are made twice: {recorded:?}");
    container.sh("mkdir /empty/later")?;
    ensure!(left_out.iter().filter(|tmpfs| !tmpfs.is_unchanged()).count() == 1, "a new directory was not noticed");
    container.sh("rmdir /empty/later; echo content > /dev/shm/file")?;
    ensure!(left_out.iter().filter(|tmpfs| !tmpfs.is_unchanged()).count() == 1, "content was not noticed");
    container.sh("rm /dev/shm/file")?;
    ensure!(left_out.iter().all(Tmpfs::is_unchanged), "nothing is different");
    drop(left_out);

    let driver = driver(&bed, &bundle)?;
    let (_, dumped) = driver.run(&Deed::Dump(pid))?;
    await_end(&bed)?;
    let (pid, restored) = driver.run(&Deed::Restore(cgroups))?;
    println!("{}: dump {dumped:?}, restore {restored:?}", runtime.name());
    await_count(&bundle)?;
    counted_without_gap(&bundle)?;
    let now = table(pid)?;
    ensure!(now == mounted, "mounts: {mounted:#?} became {now:#?}");
    let now = inside(pid, seen)?;
    ensure!(now == content, "what is in them: {content} became {now}");
    bed.clear()?;
    machine.must_be_unchanged()?;
    cgroups_before.must_be_unchanged()
}

/// At these a restore is refused by the end of CRIU's socket; later the container runs.
const RESTORING: &[&str] =
    &["arena", "cgroups", "pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore"];

fn killed() -> Outcome {
    let bed = Bed::new(Runc13)?;
    let machine = Machine::look()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.shell(COUNTER);
    let container = bed.run("counter", &bundle, null_streams())?;
    await_count(&bundle)?;
    let (pid, cgroups) = (container.pid()?, directories(container.pid()?)?);
    let driver = driver(&bed, &bundle)?;
    let rootfs = || -> Result<String, Failed> {
        let mut command = Command::new("ls");
        Ok(Running::start(command.arg("-lR").arg(bundle.inside("/bin")))?.end(SOON)?.must_pass("ls")?.stdout)
    };
    let before = rootfs()?;
    let at = |step: &str, failed: Failed| format!("killed at {step}: {}", failed.message().unwrap_or_default());
    let strike = |deed: &Deed, step: &str| {
        let struck = Paused::start(&mut driver.command(deed)?, step).and_then(|paused| paused.strike(Kill::Crr));
        struck.and_then(|_| machine.must_be_unchanged()).map_err(|failed| Failed::from(at(step, failed)))
    };

    for step in ["arena", "pre-dump", "network-lock", "query-ext-files", "post-dump"] {
        strike(&Deed::Dump(pid), step)?;
        await_count(&bundle).map_err(|failed| at(step, failed))?;
    }
    driver.run(&Deed::Dump(pid))?;
    await_end(&bed)?;
    let restore = Deed::Restore(cgroups);
    for step in RESTORING {
        strike(&restore, step)?;
        await_end(&bed).map_err(|failed| at(step, failed))?;
    }
    driver.run(&restore)?;
    await_count(&bundle)?;
    counted_without_gap(&bundle)?;
    bed.clear()?;
    ensure!(rootfs()? == before, "the root file system has changed");
    machine.must_be_unchanged()
}

/// What a shell in a container prints of which no runtime knows.
fn inside(pid: i32, line: &str) -> Result<String, Failed> {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--root", "--target", &pid.to_string(), "/bin/sh", "-c", line]);
    Ok(Running::start(&mut command)?.end(SOON)?.must_pass(line)?.stdout)
}

/// The directories of a task's cgroups.
fn directories(pid: i32) -> Result<Vec<PathBuf>, Failed> {
    let (layout, membership) = (Layout::read()?, Membership::of(pid)?);
    let found = membership.0.iter().filter_map(|(name, path)| layout.hierarchy(name)?.directory(path));
    Ok(found.collect())
}
