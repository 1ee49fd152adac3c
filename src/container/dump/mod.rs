//! A dump of a container: the dump of its tree with what its runtime would tell CRIU, and with what belongs to a container
//! kept beside the images.
//!
//! The options are runc's, without `freeze_cgroup` (it costs a poll of 100 ms; CRIU's own freeze takes 0.3 ms) but for a
//! container that is paused, and for one whose tasks fork and end so fast that CRIU could not take hold of them: its dump is
//! repeated with its cgroup frozen; and with a network lock only where there are connections. What CRIU does not see is looked for
//! before anything is frozen and again while the container stands still ([`watch`]): processes that `exec` has started, and
//! connections where the network is not locked. A connection that has come meanwhile makes the dump be repeated with the lock.
//!
//! What is left if crr is killed is told in [`ending`], for what comes after the steps of [`crate::dump`].

mod ending;
mod engine;
mod mounts;
mod network;
mod outsiders;
mod readers;
mod stdio;
mod subject;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use self::ending::Ending;
pub(super) use self::ending::{leftovers, sweep};
use self::network::Network;
use self::readers::Readers;
use self::subject::Subject;
use self::watch::{Again, Watch};
use super::hooks::Poststop;
use super::scene::Init;
use super::tmpfs::Tmpfs;
use crate::checkpoint::{ImagesKind, NetworkKind};
use crate::dump::{self, Failed, Mounts, Progress, Room};
use crate::error::{Error, Result};
use crate::host::netlock::nf_tables_works;
use crate::log;
use crate::operation::Interrupt;
use crate::process::Mount;
use crate::request::{Afterwards, CgroupMode, DumpSwitch, EmptyNamespace, NetworkLock};

/// What becomes of processes that are in the container but not in its tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exec {
    /// A container that has some is refused.
    #[default]
    Refuse,
    /// They are left out of the images.
    Drop,
}

/// Whether a container that an engine watches over is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BelowEngine {
    /// It is refused.
    #[default]
    Refuse,
    /// It is.
    Proceed,
}

/// Which container is to be dumped, and how.
#[derive(Debug)]
pub struct Request {
    /// Its name.
    pub id: String,
    /// The directory below which its runtime keeps its state; `None`: `/run/runc` and `/run/crun`.
    pub runtime_root: Option<PathBuf>,
    /// Who is to be able to restore the images.
    pub images: ImagesKind,
    /// What becomes of processes that are not in the tree.
    pub exec: Exec,
    /// Whether a container that an engine watches over is ended.
    pub below_engine: BelowEngine,
    /// The dump of its tree. The PID is found out.
    pub dump: dump::Request,
}

impl Request {
    /// A dump of the container `id` to `dir`, with every default.
    pub fn new(id: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            runtime_root: None,
            images: ImagesKind::default(),
            exec: Exec::default(),
            below_engine: BelowEngine::default(),
            // No process has this PID: whatever is done without looking for the container does nothing.
            dump: dump::Request::new(i32::MAX, dir),
        }
    }
}

/// What a dump of a container would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The container.
    pub container: String,
    /// What would be done with its tree.
    #[serde(flatten)]
    pub tree: dump::Plan,
    #[serde(skip)]
    runtime_root: Option<PathBuf>,
}

impl Plan {
    /// The `crr dump` command that does this: the caller's options in `given`, and those turned on.
    pub fn command(&self, given: &[String]) -> Vec<String> {
        let mut words: Vec<String> = ["crr", "dump", "--container", &self.container].map(Into::into).into();
        if let Some(root) = &self.runtime_root {
            words.extend(["--runtime-root".to_owned(), root.display().to_string()]);
        }
        words.extend(["--dir".to_owned(), self.tree.dir.display().to_string()]);
        words.extend_from_slice(given);
        words.extend_from_slice(&self.tree.turned_on);
        words
    }
}

/// A container that was dumped.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The container.
    pub container: String,
    /// The dump of its tree.
    #[serde(flatten)]
    pub tree: dump::Report,
    /// How often it was begun: again when a connection came while the network was not locked, when a tmpfs came to hold data,
    /// or when CRIU could not catch up with its tasks.
    pub attempts: u32,
    /// Who can restore the images.
    pub images: ImagesKind,
}

/// Looks at a container and says what a dump would do, without doing anything.
///
/// # Errors
/// As [`dump::plan`], and [`Error::Container`] and [`Error::NotRunning`] if there is no such container that runs.
pub async fn plan(request: &Request, room: Room) -> Result<Plan> {
    let subject = Subject::look(request)?;
    let (tree, _) = attempt(&subject, request, &Attempt::default())?;
    let tree = dump::plan(&tree, room).await?;
    Ok(Plan { container: request.id.clone(), tree, runtime_root: request.runtime_root.clone() })
}

/// Dumps a container, and removes what its runtime has of it unless it runs on.
///
/// # Errors
/// As [`dump::dump`], and those of [`plan`]. The container runs on then, and its runtime's state of it is as it was.
///
/// # Cancellation
/// As [`dump::dump`].
pub async fn dump(
    request: Request,
    interrupt: Interrupt,
    mut progress: impl FnMut(Progress),
) -> Result<Report, Box<Failed>> {
    let request = Arc::new(request);
    let said = blocking(super::sweep).await?;
    let mut how = Attempt::default();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let shared = Arc::clone(&request);
        // Beside the dumps of other containers.
        let prepared = blocking(move || attempt(&Subject::look(&shared)?, &shared, &how)).await?;
        let (tree, Prepared { again, ending, can_be_frozen }) = prepared?;
        let failed = match dump::dump(tree, interrupt.clone(), &mut progress).await {
            Ok(mut tree) => {
                tree.complaints.splice(0..0, said);
                return Ok(Report { container: request.id.clone(), tree, attempts, images: request.images });
            }
            Err(failed) => failed,
        };
        if let Some(ending) = ending.filter(|_| failed.is_tree_unharmed()) {
            ending.forget();
        }
        let before = how;
        how = Attempt {
            locked: before.locked || again.with_lock(),
            whole: before.whole || again.with_tmpfs(),
            frozen: before.frozen || (can_be_frozen && is_outrun(&failed.error)),
        };
        if how == before {
            return Err(failed);
        }
        if let Some(log) = &failed.log {
            // It tells of nothing but the refusal.
            let _ = std::fs::remove_file(log);
        }
    }
}

/// How a dump is attempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attempt {
    /// With the network locked in any case.
    locked: bool,
    /// With every tmpfs in the images.
    whole: bool,
    /// With its cgroup frozen, before CRIU stops each task.
    frozen: bool,
}

/// Whether tasks came and went faster than CRIU could take hold of them.
fn is_outrun(error: &Error) -> bool {
    let Error::Refused { log: Some(log), .. } = error else { return false };
    log::explain(log).known.is_some_and(|known| known.id == "outrun")
}

/// What an attempt leaves to its caller.
#[derive(Debug)]
struct Prepared {
    again: Again,
    ending: Option<Ending>,
    /// It has a cgroup to be frozen by, and is not frozen yet.
    can_be_frozen: bool,
}

/// The dump of the container's tree, told what its runtime would tell CRIU.
fn attempt(subject: &Subject, request: &Request, how: &Attempt) -> Result<(dump::Request, Prepared)> {
    let mut tree = request.dump.again();
    let options = &mut tree.options;
    options.pid = subject.init.pid;
    options.switches.insert(DumpSwitch::OrphanPtsMaster);
    // Of tasks that somebody moved to the root of a hierarchy CRIU would record, and make again below the container's, the cgroups
    // of all others. Those of the container are made by crr, with their limits.
    let mode = if subject.is_in_its_cgroups() { CgroupMode::Soft } else { CgroupMode::Ignore };
    options.cgroups.mode.get_or_insert(mode);
    if let (Some(cgroup), None) = (&subject.frozen, &options.freeze_cgroup) {
        // CRIU cannot stop tasks that are frozen already, unless it is told by what.
        options.freeze_cgroup = Some(cgroup.display().to_string());
    }
    let freezer = subject.freezer().filter(|_| options.freeze_cgroup.is_none());
    if let Some(freezer) = freezer.as_ref().filter(|_| how.frozen) {
        options.freeze_cgroup = Some(freezer.directory().display().to_string());
    }
    options.external.extend(subject.external_namespaces());
    options.external.extend(subject.externals.iter().map(mounts::External::option));
    options.external.extend(subject.stdio_files.values().map(|file| file.key.clone()));
    if subject.network.kind == NetworkKind::Empty && !options.empty_ns.contains(&EmptyNamespace::Network) {
        options.empty_ns.push(EmptyNamespace::Network);
    }
    let lock = how.locked || subject.network.must_be_locked();
    if subject.network.kind != NetworkKind::Host && options.network_lock.is_none() {
        options.network_lock = match lock {
            false => Some(NetworkLock::Skip),
            // CRIU's default, iptables, takes 70 ms of standstill at the restore.
            true => nf_tables_works().is_ok().then_some(NetworkLock::Nftables),
        };
    }
    let tmpfs = match request.images {
        ImagesKind::Crr if !how.whole => {
            let is_taken = |mount: &Mount| subject.externals.iter().any(|known| known.place == mount.mountpoint);
            Tmpfs::find(subject.init.pid, is_taken)?
        }
        _ => Vec::new(),
    };
    options.external.extend(tmpfs.iter().map(Tmpfs::external));

    let mut recorded = subject.recorded(request);
    recorded.tmpfs = tmpfs.iter().map(|tmpfs| tmpfs.recorded().clone()).collect();
    let is_unlocked = options.network_lock == Some(NetworkLock::Skip) && request.dump.options.network_lock.is_none();
    let ending = (options.afterwards == Afterwards::Kill).then(|| ending(subject, request)).transpose()?;
    let again = Again::default();
    let watch = Watch {
        id: request.id.clone(),
        members: subject.members.clone(),
        drop_exec: request.exec == Exec::Drop,
        unlocked: match is_unlocked {
            true => Network::sockets_of(subject.init.pid),
            false => None,
        },
        tmpfs,
        ending: ending.clone(),
        readers: Readers::of(subject.init.pid),
        again: again.clone(),
    };
    tree.mounts = Mounts::Private;
    tree.found = subject.findings(request);
    tree.files = subject.companions()?;
    tree.container = Some(recorded);
    tree.attendant = Some(Box::new(watch));
    Ok((tree, Prepared { again, ending, can_be_frozen: freezer.is_some() }))
}

/// What will have to be removed.
fn ending(subject: &Subject, request: &Request) -> Result<Ending> {
    let container = &subject.container;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let checkpoint = std::path::absolute(&request.dump.dir).map_err(Error::io("find", &request.dump.dir))?;
    Ok(Ending {
        id: request.id.clone(),
        created: subject.created().to_owned(),
        state: container.directory().to_path_buf(),
        state_bytes_digest: ending::digest(&subject.state_bytes()?),
        cgroups: subject.cgroups.values().cloned().collect(),
        init: Init { pid: subject.init.pid, start_ticks: subject.init.start },
        drop_exec: request.exec == Exec::Drop,
        checkpoint,
        by: Init::of(own).map_err(|_| Error::Bug { what: "crr itself is not in /proc" })?,
        poststop: Poststop::of(container),
        is_removed: false,
    })
}

async fn blocking<T: Send + 'static>(step: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(step).await.map_err(|_| Error::Bug { what: "a step of a container's dump panicked" })
}
