//! What will be done: the preflight's findings and the options they lead to.

use std::os::fd::AsFd;
use std::path::PathBuf;

use serde::Serialize;

use super::{Auto, Judge, Mounts, Request};
use crate::arena::{self, Arena};
use crate::criu::{Chosen, Identity, InetSockets, Search, programs};
use crate::error::{Error, Result};
use crate::host::KernelRelease;
use crate::host::netlock::nf_tables_works;
use crate::operation::Session;
use crate::preflight::{self, Circumstances, Intent, Level, Verdict};
use crate::process::Expected;
use crate::request::{DumpOptions, NetworkLock, Tcp, Version};
use crate::swrk::{Launch, Programs};

/// What a dump would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The PID of the root.
    pub pid: i32,
    /// The directory.
    pub dir: PathBuf,
    /// The CRIU program, and its version.
    pub criu: PathBuf,
    /// Its version.
    pub version: Version,
    /// What was found; `None` where nobody looked.
    pub preflight: Option<preflight::Report>,
    /// The options that crr turns on, as words of a command line.
    pub turned_on: Vec<String>,
}

/// Whether the free space at DIR is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It is.
    Check,
    /// It is not: DIR is not known yet.
    Ignore,
}

/// Looks at the tree and says what a dump would do, without doing anything.
///
/// # Errors
/// [`Error::NoSuchProcess`] when there is no such tree, [`Error::Spawn`] and the like when there is no CRIU that works. What
/// the preflight finds is no error here: see [`Plan::verdict`].
pub async fn plan(request: &Request, room: Room) -> Result<Plan> {
    Ok(look(request, room).await?.plan)
}

/// The plan, and CRIU started meanwhile.
pub(super) struct Looked {
    pub(super) plan: Plan,
    pub(super) session: Session,
    /// Where CRIU was started.
    pub(super) arena: Option<Arena>,
}

/// Looks, while CRIU starts.
pub(super) async fn look(request: &Request, room: Room) -> Result<Looked> {
    let pid = request.options.pid;
    // Bad input is refused before anything is started.
    super::freeze::freezer(&request.options)?;
    let search = Search::new(request.criu.clone(), std::env::var_os("PATH").as_deref());
    let mut chosen = search.choose(InetSockets::Unknown).await?;
    // CRIU starts while the tree is being looked at.
    let mut found = match request.judge {
        Judge::Preflight => programs_for(request, chosen.version, is_in_other_network(pid)),
        Judge::CriuAlone => Programs::All,
    };
    let (mut session, mut arena) = start(&chosen, request, found)?;
    let looking = (request.judge == Judge::Preflight).then(|| {
        let intent = intent(request, room);
        let circumstances = Circumstances::here(Some(chosen.version));
        tokio::task::spawn_blocking(move || preflight::examine(pid, &intent, &circumstances))
    });
    let report = match looking {
        Some(looking) => Some(looking.await.map_err(|_| Error::Bug { what: "the preflight panicked" })??),
        // Not even that the root exists has been looked at yet.
        None => Expected::now(pid).map(|_| None).ok_or(Error::NoSuchProcess { pid })?,
    };
    // Which CRIU suits may depend on what the tree has.
    let sockets = match &report {
        None => InetSockets::Unknown,
        Some(report) if report.tree.inet_sockets => InetSockets::Some,
        Some(_) => InetSockets::None,
    };
    let suited = search.choose(sockets).await?;
    let needed = match &report {
        Some(report) => programs_for(request, suited.version, report.tree.other_network),
        None => found,
    };
    if suited.binary != chosen.binary || needed != found {
        (chosen, found) = (suited, needed);
        (session, arena) = start(&chosen, request, found)?;
    }
    let turned_on = match &report {
        Some(report) if request.auto == Auto::On => report.needs.arguments(),
        _ => Vec::new(),
    };
    let Chosen { binary: criu, version, .. } = chosen;
    let plan = Plan { pid, dir: request.dir.clone(), criu, version, preflight: report, turned_on };
    Ok(Looked { plan, session, arena })
}

/// The programs that CRIU needs for a tree.
fn programs_for(request: &Request, criu: Version, other_network: bool) -> Programs {
    let DumpOptions { tcp, network_lock, config_file, .. } = &request.options;
    match (config_file, &request.mounts) {
        // It may say otherwise.
        (Some(_), _) => Programs::All,
        // CRIU's cache of features is kept there.
        (None, Mounts::Private) => Programs::All,
        (None, Mounts::Shared) => programs(*tcp, network_lock.or_else(|| better_lock(*tcp, criu)), other_network),
    }
}

/// The lock that is used rather than CRIU's default, iptables, which runs a program per rule while the tree stands still: 60 ms
/// and more.
fn better_lock(tcp: Tcp, criu: Version) -> Option<NetworkLock> {
    let is_better = tcp == Tcp::Established && criu >= Version::new(3, 16) && nf_tables_works().is_ok();
    is_better.then_some(NetworkLock::Nftables)
}

/// Whether a process is in another network namespace than crr, as far as can be told.
fn is_in_other_network(pid: i32) -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    network(&pid.to_string()) != network("self")
}

fn start(criu: &Chosen, request: &Request, programs: Programs) -> Result<(Session, Option<Arena>)> {
    let mut launch = Launch { programs, ..Launch::new(&criu.binary) };
    let arena = match request.mounts {
        Mounts::Shared => None,
        Mounts::Private => {
            let mut plan = arena::Plan::new();
            if let Ok(identity) = KernelRelease::running().and_then(|kernel| Identity::of(&criu.binary, &kernel)) {
                plan.features(identity.features());
            }
            Some(Arena::new(plan)?)
        }
    };
    launch.mount_namespace = arena.as_ref().map(Arena::namespace);
    let inherited: Vec<_> = request.options.inherited().map(AsFd::as_fd).into_iter().collect();
    let mut session = Session::start_inheriting(&launch, &inherited)?;
    session.watch(request.watch);
    session.assume_version(criu.version);
    Ok((session, arena))
}

fn intent(request: &Request, room: Room) -> Intent {
    let mut intent = Intent::of(&request.options);
    intent.automatic = request.auto == Auto::On;
    intent.ghost_limit_at_most = request.ghost_limit_at_most;
    intent.container = request.container.is_some();
    intent.found.clone_from(&request.found);
    intent.directory = (room == Room::Check).then(|| request.dir.clone());
    intent
}

impl Plan {
    /// Whether the dump may begin.
    ///
    /// # Errors
    /// [`Error::WillNotWork`] and [`Error::ChoiceNeeded`], with the findings.
    pub fn verdict(&self) -> Result<()> {
        let Some(report) = &self.preflight else { return Ok(()) };
        let findings = |level| report.at(level).cloned().collect();
        match report.verdict {
            Verdict::Works => Ok(()),
            Verdict::NeedsChoice => Err(Error::ChoiceNeeded { pid: self.pid, findings: findings(Level::NeedsChoice) }),
            Verdict::WillNotWork => Err(Error::WillNotWork { pid: self.pid, findings: findings(Level::WillNotWork) }),
        }
    }

    /// Turns on in `options` what the tree needs.
    pub(super) fn complete(&self, options: &mut DumpOptions) {
        if let Some(report) = self.preflight.as_ref().filter(|_| !self.turned_on.is_empty()) {
            report.apply(options);
        }
        options.network_lock = options.network_lock.or_else(|| better_lock(options.tcp, self.version));
    }

    /// The `crr dump` command that does this, with every option spelled out: the caller's in `given`, and those turned on.
    pub fn command(&self, given: &[String]) -> Vec<String> {
        let mut words: Vec<String> =
            ["crr", "dump", "--pid", &self.pid.to_string(), "--dir", &self.dir.display().to_string()]
                .map(Into::into)
                .into();
        words.extend_from_slice(given);
        words.extend_from_slice(&self.turned_on);
        words
    }
}
