//! The library's parts on a container of runc's: a session in an arena, and tmpfs mounts that are not in the images.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crr::arena::{Arena, FeatureCache, Plan};
use crr::checkpoint::RecordedTmpfs;
use crr::container::tmpfs::{self, Tmpfs};
use crr::event::EventKind;
use crr::host::RuntimeDirectory;
use crr::host::cgroup::{Layout, Membership, enter};
use crr::operation::Session;
use crr::process::Mount;
use crr::request::{
    DumpOptions, DumpSwitch, EmptyNamespace, ImageDirectory, Log, NetworkLock, RestoreOptions, RestoreSwitch,
};
use crr::swrk::Launch;
use libtest_mimic::{Failed, Trial};
use rustix::fs::OFlags;

use crate::crr::Running;
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, need, test};

use super::bed::Bed;
use super::bundle::Bundle;
use super::output::null_streams;
use super::runtime::Runtime::{self, Runc11, Runc13};
use super::snapshot::Snapshot;

const RUNC_1_1: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];
const RUNC_1_3: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc13)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("tmpfs::runc_1_1s_are_made_anew", RUNC_1_1, || made_anew(Runc11)),
        test("tmpfs::runc_1_3s_are_made_anew", RUNC_1_3, || made_anew(Runc13)),
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

/// What the library would be told by a caller that drives it himself.
struct Driver {
    criu: PathBuf,
    kept: RuntimeDirectory,
    images: PathBuf,
    rootfs: PathBuf,
}

/// A mount that CRIU is not to look into, as the runtime would tell it: its key at the dump.
fn external(mount: &Mount) -> Option<String> {
    match (mount.filesystem.as_str(), mount.root.to_str()) {
        ("cgroup", _) => Some(mount.mountpoint.display().to_string()),
        // A masked file.
        ("tmpfs" | "devtmpfs", Some("/null")) => Some("/dev/null".into()),
        _ => None,
    }
}

fn mounts(pid: i32) -> Result<Vec<Mount>, Failed> {
    Ok(fs::read(format!("/proc/{pid}/mountinfo"))?.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
}

/// How each is mounted, by its place. What is of a mount and not of a machine.
fn table(pid: i32) -> Result<BTreeMap<PathBuf, String>, Failed> {
    let line = |mount: Mount| {
        let sorted = |options: &str| options.split(',').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let line = format!("{} {:?} {:?}", mount.filesystem, sorted(&mount.options), sorted(&mount.filesystem_options));
        (mount.mountpoint, line)
    };
    // What masks a file comes from the host's /dev afterwards, as with the runtime's own restore.
    let is_mask = |mount: &Mount| external(mount).is_some_and(|key| key == "/dev/null");
    Ok(mounts(pid)?.into_iter().filter(|mount| !is_mask(mount)).map(line).collect())
}

impl Driver {
    fn arena(&self) -> Plan {
        let mut plan = Plan::new();
        plan.features(FeatureCache::new(self.kept.clone(), "some.kdat", [3; 32]));
        plan
    }

    /// As CRIU sees it: it mounts below its working directory.
    fn directory(&self, arena: &Arena) -> Result<ImageDirectory, Failed> {
        Ok(ImageDirectory::new(arena.open(&self.images, OFlags::RDONLY | OFlags::DIRECTORY)?))
    }

    async fn dump(&self, pid: i32, left_out: &[Tmpfs]) -> Result<Duration, Failed> {
        let mut arena = Arena::new(self.arena())?;
        let mut launch = Launch::new(&self.criu);
        launch.mount_namespace = Some(arena.namespace());
        let session = Session::start(&launch)?;
        let mut options = DumpOptions::new(pid);
        options.log = Log::new("dump.log");
        options.switches.insert(DumpSwitch::OrphanPtsMaster);
        options.network_lock = Some(NetworkLock::Skip);
        options.empty_ns = vec![EmptyNamespace::Network];
        options.external = left_out.iter().map(Tmpfs::external).collect();
        for mount in mounts(pid)? {
            if let Some(key) = external(&mount) {
                options.external.push(format!("mnt[{}]:{key}", mount.mountpoint.display()));
            }
        }
        let began = Instant::now();
        let mut operation = session.dump(self.directory(&arena)?, options).await?;
        while let Some(event) = operation.next().await? {
            if *event.kind() == EventKind::QueryExtFiles {
                ensure!(left_out.iter().all(Tmpfs::is_unchanged), "a tmpfs has changed");
            }
            event.proceed().await?;
        }
        operation.finish().await?;
        arena.keep_features()?;
        Ok(began.elapsed())
    }

    async fn restore(&self, left_out: &[RecordedTmpfs], cgroups: &[PathBuf]) -> Result<(i32, Duration), Failed> {
        let began = Instant::now();
        let mut plan = self.arena();
        let mut options = RestoreOptions::new();
        options.root = Some(plan.root(&self.rootfs).display().to_string());
        options.external = tmpfs::plan(left_out, &mut plan)?;
        options.external.push("mnt[/dev/null]:/dev/null".into());
        for cgroup in cgroups {
            let controller = cgroup.components().nth(4).ok_or("a cgroup in no hierarchy")?.as_os_str();
            let at = Path::new("/sys/fs/cgroup").join(controller);
            options.external.push(format!("mnt[{}]:{}", at.display(), cgroup.display()));
        }
        options.empty_ns = vec![EmptyNamespace::Network];
        options.switches.insert(RestoreSwitch::OrphanPtsMaster);
        let mut arena = Arena::new(plan)?;
        tmpfs::fill(left_out, &arena)?;
        let mut launch = Launch::new(&self.criu);
        launch.mount_namespace = Some(arena.namespace());
        let session = Session::start(&launch)?;
        enter(session.criu_pid(), cgroups)?;
        let mut operation = session.restore(self.directory(&arena)?, options).await?;
        while let Some(event) = operation.next().await? {
            event.proceed().await?;
        }
        let pid = operation.finish().await?.pid;
        arena.keep_features()?;
        Ok((pid, began.elapsed()))
    }
}

fn made_anew(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let before = Snapshot::take(bed.tag());
    let (table_of_host, run) = (fs::read_to_string("/proc/thread-self/mountinfo")?, listing(Path::new("/run"))?);
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
    // As it is kept.
    let recorded: Vec<RecordedTmpfs> = serde_json::from_slice(&serde_json::to_vec(&recorded)?)?;
    container.sh("mkdir /empty/later")?;
    ensure!(left_out.iter().filter(|tmpfs| !tmpfs.is_unchanged()).count() == 1, "a new directory was not noticed");
    container.sh("rmdir /empty/later")?;
    ensure!(left_out.iter().all(Tmpfs::is_unchanged), "nothing is different");

    let images = bed.path("images");
    fs::create_dir(&images)?;
    let kept = RuntimeDirectory::at(bed.path("kept"));
    let driver = Driver { criu: need::criu().ok_or("no CRIU")?, kept, images, rootfs: bundle.inside("/") };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let left_out = Tmpfs::find(pid, |mount| external(mount).is_some())?;
    let dumped = tokio.block_on(driver.dump(pid, &left_out))?;
    drop(left_out);
    until("the container to be gone", SOON, || bed.processes().is_empty().then_some(()))?;
    let restored = tokio.block_on(driver.restore(&recorded, &cgroups));
    let (pid, restored) = restored.map_err(|failed| {
        let log = fs::read_to_string(driver.images.join("restore.log")).unwrap_or_default();
        format!("{}; {}", failed.message().unwrap_or_default(), crate::crr::decisive(&log))
    })?;
    println!("{}: dump {dumped:?}, restore {restored:?}", runtime.name());
    await_count(&bundle)?;
    ensure!(count(&bundle).windows(2).all(|pair| pair[1] == pair[0] + 1), "it has not counted on");
    let now = table(pid)?;
    ensure!(now == mounted, "mounts: {mounted:#?} became {now:#?}");
    let now = inside(pid, seen)?;
    ensure!(now == content, "what is in them: {content} became {now}");
    bed.clear()?;
    ensure!(fs::read_to_string("/proc/thread-self/mountinfo")? == table_of_host, "a mount is left");
    ensure!(listing(Path::new("/run"))? == run, "something is left in /run");
    before.must_be_unchanged()
}

/// What a shell in a container prints of which no runtime knows.
fn inside(pid: i32, line: &str) -> Result<String, Failed> {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--root", "--target", &pid.to_string(), "/bin/sh", "-c", line]);
    Ok(Running::start(&mut command)?.end(SOON)?.must_pass(line)?.stdout)
}

fn listing(directory: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Failed>>()?;
    found.sort();
    Ok(found)
}

/// The directories of a task's cgroups.
fn directories(pid: i32) -> Result<Vec<PathBuf>, Failed> {
    let (layout, membership) = (Layout::read()?, Membership::of(pid)?);
    let found = membership.0.iter().filter_map(|(name, path)| layout.hierarchy(name)?.directory(path));
    Ok(found.collect())
}
