//! What is done for a container while CRIU restores it, and undone when that fails.

use std::path::PathBuf;
use std::time::SystemTime;

use super::super::hooks;
use super::super::journal::{Entry, Journal};
use super::super::scene::{self, Init};
use super::cgroups::{Cgroups, limits_of};
use super::original::Original;
use super::pids::Pids;
use super::{console, namespaces};
use crate::arena::Arena;
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::oci::{self, Bundle, Descriptors, Live, State};
use crate::operation::pause;
use crate::restore::{Attendant, ContainerProblem, Problem, Remarks};

/// From what its state file is written.
#[derive(Debug)]
pub(super) enum Template {
    /// The state at the dump.
    Recorded(Box<State>),
    /// The bundle only.
    Bundle(Box<Bundle>),
}

impl Template {
    /// The state file of the container that is `live`.
    pub(super) fn state(&self, live: &Live) -> Result<State> {
        match self {
            Self::Recorded(state) => state.restored(live),
            Self::Bundle(bundle) => State::build(bundle, live),
        }
    }
}

/// A container that is being restored. Dropped before it was kept, it removes all that was made for it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) journal: Option<Journal>,
    pub(super) arena: Option<Arena>,
    pub(super) template: Template,
    /// All but the PID and what depends on it.
    pub(super) live: Live,
    pub(super) bundle: Bundle,
    pub(super) console: Option<PathBuf>,
    /// The host's ends of its veths.
    pub(super) links: Vec<String>,
    /// Whether its network namespace is a new one.
    pub(super) empty_network: bool,
    /// Where its cgroups are to be.
    pub(super) cgroups: Cgroups,
    /// The container that must have ended by now: its root file system may be this one's.
    pub(super) original: Option<Original>,
    /// The numbers that it needs in a PID namespace from outside.
    pub(super) pids: Option<Pids>,
    /// Whether none of its cgroups may be there already.
    pub(super) strict: bool,
}

impl Guest {
    /// Writes down what is about to be made.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut Entry)) -> Result<()> {
        match &mut self.journal {
            Some(journal) => journal.change(change),
            None => Err(Error::Closed { attempt: "restore" }),
        }
    }

    /// Makes its directory in the runtime's root, which reserves the name, and its cgroups with their limits.
    fn move_in(&mut self) -> Result<Option<ContainerProblem>> {
        let Some(journal) = &self.journal else { return Err(Error::Closed { attempt: "restore" }) };
        let (id, state) = (self.live.id.to_string(), journal.entry().state.clone());
        if scene::is_taken(&state) {
            return Ok(Some(ContainerProblem::IdTaken { id, state }));
        }
        if let Some(original) = self.original.as_ref().filter(|original| original.is_there()) {
            return Ok(Some(ContainerProblem::IdTaken { id: original.id().into(), state: original.state().into() }));
        }
        // Whatever is in them is taken for this container's from now on.
        let cgroups = self.cgroups.problems(self.strict);
        // Where nobody was to be gone it has been looked at.
        let pids = self.pids.as_ref().filter(|_| self.original.is_some()).map(Pids::problems).unwrap_or_default();
        if let Some(problem) = cgroups.into_iter().chain(pids).next() {
            return Ok(Some(problem));
        }
        scene::make_state(&state).map_err(Error::io("make the container's directory", &state))?;
        pause("container-state");
        let (missing, directories) = (self.cgroups.missing(), self.cgroups.directories());
        self.note(|entry| {
            entry.cgroups_made.clone_from(&missing);
            entry.cgroups = directories;
        })?;
        let limits = limits_of(&self.template.state(&self.live)?.to_json());
        self.cgroups.make(&missing, &limits.map_err(|source| Error::system("read the limits", source))?)?;
        pause("container-cgroups");
        Ok(None)
    }

    /// The state that hooks get, of the OCI's runtime specification.
    fn hook_state(&self, pid: i32) -> serde_json::Value {
        let config: serde_json::Value = serde_json::from_slice(self.bundle.spec().bytes()).unwrap_or_default();
        let mut state = serde_json::json!({
            "ociVersion": config["ociVersion"],
            "id": self.live.id.as_str(),
            "status": "creating",
            "pid": pid,
            "bundle": self.live.bundle,
        });
        if !config["annotations"].is_null() {
            state["annotations"] = config["annotations"].clone();
        }
        state
    }

    fn run_hooks(&self, pid: i32) -> Result<()> {
        let wanted = self.bundle.spec().hooks();
        if wanted.prestart.is_empty() && wanted.create_runtime.is_empty() {
            return Ok(());
        }
        let state = self.hook_state(pid);
        hooks::run(&wanted.prestart, &state, &self.live.bundle)?;
        hooks::run(&wanted.create_runtime, &state, &self.live.bundle)
    }

    /// The tree is there and has not run.
    fn complete(&mut self, pid: i32) -> Result<()> {
        if self.empty_network {
            namespaces::take_loopback_up(pid)?;
        }
        self.links.iter().try_for_each(|link| namespaces::take_link_up(link))?;
        let init = Init::of(pid).map_err(|source| Error::system(format!("look at the process {pid}"), source))?;
        self.live.init = oci::Init { pid, start: init.start_ticks };
        self.live.created = SystemTime::now();
        self.live.time_namespace = std::fs::symlink_metadata(format!("/proc/{pid}/ns/time")).is_ok();
        let stream = |number: usize| std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
        for number in 0..3 {
            if let (Ok(target), Some(known)) = (stream(number), self.live.descriptors.0.get_mut(number)) {
                *known = target.to_string_lossy().into_owned();
            }
        }
        let state = self.template.state(&self.live)?;
        let Some(journal) = &mut self.journal else { return Err(Error::Closed { attempt: "restore" }) };
        state.write(&journal.entry().state)?;
        pause("state-written");
        // From here on CRIU lets it run also when nobody is there any more.
        journal.change(|entry| entry.init = Some(init))
    }

    fn remove_all(&mut self) -> Vec<String> {
        let Some(journal) = self.journal.take() else { return Vec::new() };
        self.arena = None;
        let left = journal.entry().undo();
        if left.is_empty() {
            // What stays is a file that names nothing that is there.
            let _ = journal.end();
        }
        left
    }
}

impl Attendant for Guest {
    fn settle(&mut self) -> Result<std::result::Result<Vec<PathBuf>, Problem>> {
        Ok(match self.move_in()? {
            Some(problem) => Err(Problem::Container(problem)),
            None => Ok(self.cgroups.directories()),
        })
    }

    fn attend(&mut self, event: &EventKind, pid: Option<i32>, descriptor: Option<std::os::fd::OwnedFd>) -> Result<()> {
        match (event, pid, descriptor) {
            (EventKind::SetupNamespaces, Some(pid), _) => self.run_hooks(pid),
            (EventKind::PostRestore, Some(pid), _) => self.complete(pid),
            (EventKind::OrphanPtsMaster, _, Some(master)) => match &self.console {
                Some(socket) => console::send(socket, &master),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn keep(&mut self, remarks: &mut Remarks) {
        if let Some(Err(error)) = self.arena.as_mut().map(Arena::keep_features) {
            remarks.note(format!("what CRIU found out about the kernel is not kept: {error}"));
        }
        self.arena = None;
        if let Some(Err(error)) = self.journal.take().map(Journal::keep) {
            remarks.warn(format!("a note about the restore is left: {error}"));
        }
    }

    fn undo(&mut self) {
        self.remove_all();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.remove_all();
    }
}

/// One that nothing is known of yet.
pub(super) fn nobody(id: oci::Id, bundle: &Bundle, descriptors: Descriptors) -> Live {
    Live {
        id,
        init: oci::Init { pid: 0, start: 0 },
        created: SystemTime::UNIX_EPOCH,
        bundle: bundle.path().to_path_buf(),
        rootfs: bundle.rootfs().to_path_buf(),
        cgroup_paths: Default::default(),
        cgroup: PathBuf::new(),
        time_namespace: false,
        descriptors,
    }
}
