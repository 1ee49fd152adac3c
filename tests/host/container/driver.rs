//! A caller of the library that dumps and restores containers with its parts: an arena, a session, tmpfs mounts made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crr::arena::{Arena, FeatureCache, Plan};
use crr::checkpoint::RecordedTmpfs;
use crr::container::tmpfs::{self, Tmpfs};
use crr::event::EventKind;
use crr::host::RuntimeDirectory;
use crr::host::cgroup::enter;
use crr::operation::Session;
use crr::process::Mount;
use crr::request::{
    DumpOptions, DumpSwitch, EmptyNamespace, ImageDirectory, Log, NetworkLock, RestoreOptions, RestoreSwitch,
};
use crr::swrk::Launch;
use libtest_mimic::Failed;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::crr::decisive;
use crate::ensure;

/// In the environment of a process that is a driver: what it is and does.
const DRIVER: &str = "CRR_TEST_CONTAINER_DRIVER";

/// What is not in the images, beside them.
const TMPFS: &str = "tmpfs.json";

/// Does what a test has started this program for, if it was one.
pub(crate) fn as_helper() -> Option<ExitCode> {
    let (driver, deed): (Driver, Deed) = serde_json::from_str(&std::env::var(DRIVER).ok()?).ok()?;
    match driver.run(&deed) {
        Ok((pid, took)) => {
            println!("{pid} {took:?}");
            Some(ExitCode::SUCCESS)
        }
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or_default());
            Some(ExitCode::FAILURE)
        }
    }
}

/// Stops this process if this is where a test wants to kill it.
fn stop(step: &str) {
    if std::env::var_os("CRR_TEST_PAUSE_AT").is_some_and(|wanted| wanted.to_str() == Some(step)) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
    }
}

/// What the library would be told by a caller that drives it himself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Driver {
    pub(super) criu: PathBuf,
    /// Where CRIU's cache of features is kept.
    pub(super) kept: PathBuf,
    pub(super) images: PathBuf,
    pub(super) rootfs: PathBuf,
}

/// What a driver does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Deed {
    /// Dumps the container with that first process, without those of its tmpfs mounts that can be made anew.
    Dump(i32),
    /// Restores a container into these cgroups.
    Restore(Vec<PathBuf>),
}

/// A mount that CRIU is not to look into, as the runtime would tell it: its key at the dump.
pub(super) fn external(mount: &Mount) -> Option<String> {
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
pub(super) fn table(pid: i32) -> Result<BTreeMap<PathBuf, String>, Failed> {
    let line = |mount: Mount| {
        let sorted = |options: &str| options.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
        let line = format!("{} {:?} {:?}", mount.filesystem, sorted(&mount.options), sorted(&mount.filesystem_options));
        (mount.mountpoint, line)
    };
    // What masks a file comes from the host's /dev afterwards, as with the runtime's own restore.
    let is_mask = |mount: &Mount| external(mount).is_some_and(|key| key == "/dev/null");
    Ok(mounts(pid)?.into_iter().filter(|mount| !is_mask(mount)).map(line).collect())
}

impl Driver {
    /// Does it in this process. Gives the PID of a container that was restored, and how long it took.
    pub(super) fn run(&self, deed: &Deed) -> Result<(i32, Duration), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (log, done) = match deed {
            Deed::Dump(pid) => ("dump.log", runtime.block_on(self.dump(*pid)).map(|took| (*pid, took))),
            Deed::Restore(cgroups) => ("restore.log", runtime.block_on(self.restore(cgroups))),
        };
        done.map_err(|failed| {
            let log = fs::read_to_string(self.images.join(log)).unwrap_or_default();
            format!("{}; {}", failed.message().unwrap_or_default(), decisive(&log)).into()
        })
    }

    /// This program again, as a process that does it, and stops itself where `CRR_TEST_PAUSE_AT` says.
    pub(super) fn command(&self, deed: &Deed) -> Result<Command, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(DRIVER, serde_json::to_string(&(self, deed))?);
        Ok(command)
    }

    fn arena(&self) -> Plan {
        let mut plan = Plan::new();
        plan.features(FeatureCache::new(RuntimeDirectory::at(&self.kept), "some.kdat", [3; 32]));
        plan
    }

    /// As CRIU sees it: it mounts below its working directory.
    fn directory(&self, arena: &Arena) -> Result<ImageDirectory, Failed> {
        Ok(ImageDirectory::new(arena.open(&self.images, OFlags::RDONLY | OFlags::DIRECTORY)?))
    }

    async fn dump(&self, pid: i32) -> Result<Duration, Failed> {
        let began = Instant::now();
        let left_out = Tmpfs::find(pid, |mount| external(mount).is_some())?;
        let mut arena = Arena::new(self.arena())?;
        stop("arena");
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
        let mut operation = session.dump(self.directory(&arena)?, options).await?;
        while let Some(event) = operation.next().await? {
            stop(event.kind().name());
            if *event.kind() == EventKind::QueryExtFiles {
                ensure!(left_out.iter().all(Tmpfs::is_unchanged), "a tmpfs has changed");
            }
            event.proceed().await?;
        }
        operation.finish().await?;
        let took = began.elapsed();
        arena.keep_features()?;
        let recorded: Vec<_> = left_out.iter().map(Tmpfs::recorded).collect();
        fs::write(self.images.join(TMPFS), serde_json::to_vec(&recorded)?)?;
        Ok(took)
    }

    async fn restore(&self, cgroups: &[PathBuf]) -> Result<(i32, Duration), Failed> {
        let began = Instant::now();
        let left_out: Vec<RecordedTmpfs> = serde_json::from_slice(&fs::read(self.images.join(TMPFS))?)?;
        let mut plan = self.arena();
        let mut options = RestoreOptions::new();
        options.root = Some(plan.root(&self.rootfs).display().to_string());
        options.external = tmpfs::plan(&left_out, &mut plan)?;
        options.external.push("mnt[/dev/null]:/dev/null".into());
        for cgroup in cgroups {
            let controller = cgroup.components().nth(4).ok_or("a cgroup in no hierarchy")?.as_os_str();
            let at = Path::new("/sys/fs/cgroup").join(controller);
            options.external.push(format!("mnt[{}]:{}", at.display(), cgroup.display()));
        }
        options.empty_ns = vec![EmptyNamespace::Network];
        options.switches.insert(RestoreSwitch::OrphanPtsMaster);
        let mut arena = Arena::new(plan)?;
        stop("arena");
        tmpfs::fill(&left_out, &arena)?;
        let mut launch = Launch::new(&self.criu);
        launch.mount_namespace = Some(arena.namespace());
        let session = Session::start(&launch)?;
        enter(session.criu_pid(), cgroups)?;
        stop("cgroups");
        let mut operation = session.restore(self.directory(&arena)?, options).await?;
        while let Some(event) = operation.next().await? {
            stop(event.kind().name());
            event.proceed().await?;
        }
        let pid = operation.finish().await?.pid;
        let took = began.elapsed();
        arena.keep_features()?;
        Ok((pid, took))
    }
}
