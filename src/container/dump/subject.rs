//! The container that is to be dumped, looked at as a whole before anything is done.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::scene::can_be_joined;
use super::engine::Shim;
use super::mounts::{self, External};
use super::network::Network;
use super::outsiders::{Members, Outsider};
use super::{BelowEngine, Exec, Request, stdio};
use crate::checkpoint::{NetworkKind, RecordedContainer, RecordedFile, RecordedNamespace};
use crate::error::{Error, Result};
use crate::host::cgroup::freezer::Freezer;
use crate::host::cgroup::{Layout, Membership};
use crate::oci::{Configuration, Container, Descriptors, Facts, Id, Init, NamespaceKind, Phase, Record, Spec};
use crate::preflight::{Choice, Finding, Level};
use crate::process::{Expected, Mount, Namespaces};
use crate::request::Afterwards;

/// What the names of path namespaces are in the images, as in runc's and crun's.
const GIVEN: [(NamespaceKind, &str); 2] =
    [(NamespaceKind::Network, "extRootNetNS"), (NamespaceKind::Pid, "extRootPidNS")];

/// A container that runs or is paused.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) container: Container,
    pub(super) configuration: Configuration,
    pub(super) init: Init,
    /// By controller, and under "" for version 2.
    pub(super) cgroups: BTreeMap<String, PathBuf>,
    /// Where its cgroup is frozen, if it is.
    pub(super) frozen: Option<PathBuf>,
    pub(super) externals: Vec<External>,
    pub(super) stdio_files: BTreeMap<u32, RecordedFile>,
    pub(super) network: Network,
    pub(super) members: Members,
    outsiders: Vec<Outsider>,
    shim: Option<Shim>,
}

impl Subject {
    /// Finds and looks at the container that `request` names.
    ///
    /// # Errors
    /// [`Error::Container`] if there is none or its state cannot be understood, [`Error::NotRunning`] if it has not been
    /// started or has ended.
    pub(super) fn look(request: &Request) -> Result<Self> {
        let id: Id = request.id.parse()?;
        let container = Container::find(request.runtime_root.as_deref(), &id)?;
        let configuration = container.configuration();
        let init = container.init();
        let cgroups = cgroups(&container, init)?;
        let frozen = frozen(&cgroups);
        let facts = Facts {
            started: Expected::now(init.pid).map(|task| task.start_time_ticks),
            exec_fifo: container.exec_fifo().exists(),
            frozen: frozen.is_some(),
        };
        let alive = init.pid > 0 && facts.started == Some(init.start);
        let phase = Phase::of(container.runtime(), init, facts);
        if !alive || !matches!(phase, Phase::Running | Phase::Paused) {
            let phase = if alive { phase.word() } else { Phase::Stopped.word() };
            return Err(Error::NotRunning { id: request.id.clone(), phase });
        }
        let mounts = Mount::all_of(init.pid)?;
        let externals = mounts::externals(container.runtime(), &configuration, &mounts);
        let is_given =
            |kind: NamespaceKind| configuration.namespace(kind).is_some_and(|namespace| namespace.path.is_some());
        let network = Network::look(init.pid, is_given(NamespaceKind::Network))?;
        let members = Members::of(init.pid, &cgroups, is_given(NamespaceKind::Pid));
        Ok(Self {
            outsiders: members.outsiders(),
            shim: Shim::of(init.pid, root_of(&container)),
            stdio_files: stdio::files(init.pid, &mounts),
            container,
            configuration,
            init,
            cgroups,
            frozen,
            externals,
            network,
            members,
        })
    }

    /// The cgroup by which its tasks can be frozen: version 1's, where both are mounted.
    pub(super) fn freezer(&self) -> Option<Freezer> {
        ["freezer", ""].iter().find_map(|name| Freezer::of(self.cgroups.get(*name)?).ok())
    }

    /// Whether its first process is where its runtime has put it, or below.
    pub(super) fn is_in_its_cgroups(&self) -> bool {
        let membership = Membership::of(self.init.pid).unwrap_or_default();
        let is_there = |directory: &Path, path: &str| {
            let inner = Path::new(path.trim_start_matches('/'));
            inner.ancestors().any(|part| !part.as_os_str().is_empty() && directory.ends_with(part))
        };
        self.cgroups.iter().all(|(name, directory)| {
            let mut known = membership.0.iter();
            known
                .find(|(names, _)| names.split(',').any(|one| one == name))
                .is_none_or(|(_, path)| is_there(directory, path))
        })
    }

    /// The namespaces that come from outside, in CRIU's words: those with a path.
    pub(super) fn external_namespaces(&self) -> Vec<String> {
        let namespaces = Namespaces::read(format!("/proc/{}/ns", self.init.pid).as_ref());
        let given = |(kind, name): &(NamespaceKind, &str)| {
            self.configuration.namespace(*kind)?.path.as_ref()?;
            let word = kind.in_proc();
            let (_, inode) = namespaces.each().into_iter().find(|(kind, _)| *kind == word)?;
            (inode != 0).then(|| format!("{word}[{inode}]:{name}"))
        };
        GIVEN.iter().filter_map(given).collect()
    }

    /// What stands against the dump, or follows from it, that the tree alone does not show.
    pub(super) fn findings(&self, request: &Request) -> Vec<Finding> {
        let is_ended = request.dump.options.afterwards == Afterwards::Kill;
        let mut findings = mounts::missing(&self.configuration, self.init.pid, is_ended);
        findings.extend(self.of_outsiders(request, is_ended));
        findings.extend(self.of_shim(request, is_ended));
        if !self.configuration.rootfs.is_dir() {
            let what = format!("its root file system `{}` is no directory", self.configuration.rootfs.display());
            let cure = "mount it again at that place: the restore needs it";
            findings.push(self.finding("rootfs-gone", Level::WillNotWork, what, cure));
        }
        for namespace in self.configuration.namespaces.iter().filter(|namespace| !can_be_joined(namespace.kind)) {
            let Some(path) = &namespace.path else { continue };
            let kind = namespace.kind.in_config();
            let what = format!("its {kind} namespace is one that was there before it (`{}`)", path.display());
            let cure = "leave the path out of config.json: the dump would pass, but CRIU cannot restore into it";
            findings.push(self.finding("namespace-given", Level::WillNotWork, what, cure));
        }
        for (controller, directory) in self.cgroups.iter().filter(|(_, directory)| !directory.is_dir()) {
            let what = format!("its cgroup `{}` ({controller}) is not there", directory.display());
            let cure = "it was removed behind the runtime's back: its limits will not be in the images";
            findings.push(self.finding("cgroup-gone", Level::Warning, what, cure));
        }
        if self.network.kind == NetworkKind::Dumped {
            let names: Vec<&str> = self.network.interfaces.iter().map(|link| link.name.as_str()).collect();
            let what = format!("its own network namespace has {}, which goes into the images", names.join(", "));
            let cure = "crr restore brings it back; the runtime's own restore makes an empty network namespace instead";
            findings.push(self.finding("network-dumped", Level::Note, what, cure));
            findings.extend(self.of_dead_routes());
        }
        findings
    }

    /// Routes that are saved, and refused when they are to be restored.
    fn of_dead_routes(&self) -> Option<Finding> {
        let (first, more) = self.network.dead.split_first()?;
        let others = more.iter().map(|name| format!(", {name}")).collect::<String>();
        let what = format!(
            "it has routes over {first}{others}, whose other end is down: CRIU saves them, and cannot make them again"
        );
        let peer = |name: &String| {
            let interface = self.network.interfaces.iter().find(|interface| interface.name == *name)?;
            interface.peer.as_ref().map(|peer| format!("ip link set {peer} up"))
        };
        let commands: Vec<String> = self.network.dead.iter().filter_map(peer).collect();
        let cure = match commands.is_empty() {
            true => "take the other end up, or the interface down".to_owned(),
            false => commands.join("; "),
        };
        Some(self.finding("dead-routes", Level::WillNotWork, what, &cure))
    }

    fn of_outsiders(&self, request: &Request, is_ended: bool) -> Option<Finding> {
        if self.outsiders.is_empty() {
            return None;
        }
        let named = super::outsiders::described(&self.outsiders);
        let what = format!(
            "{} process(es) of the container are not in its tree, as the runtime's exec started them: {}",
            named.len(),
            named.join(", ")
        );
        let lost = if is_ended {
            "they are not in the images, and end with the container"
        } else {
            "they are not in the images"
        };
        let mut finding = match request.exec {
            Exec::Drop => self.finding("exec", Level::Warning, what, lost),
            Exec::Refuse => {
                let mut finding =
                    self.finding("exec", Level::NeedsChoice, what, "end them, or wait until they have ended");
                let arguments = vec!["--drop-exec".to_owned()];
                finding.choices = vec![Choice { arguments, consequence: lost.into() }];
                finding
            }
        };
        finding.pids = self.outsiders.iter().map(|outsider| outsider.pid).collect();
        Some(finding)
    }

    fn of_shim(&self, request: &Request, is_ended: bool) -> Option<Finding> {
        let shim = self.shim.as_ref().filter(|_| is_ended)?;
        let what = shim.consequence();
        Some(match request.below_engine {
            BelowEngine::Proceed => self.finding("engine", Level::Warning, what, "tell the engine what became of it"),
            BelowEngine::Refuse => {
                let mut finding =
                    self.finding("engine", Level::NeedsChoice, what, "have the engine itself checkpoint it");
                let choice = |word: &str, consequence: &str| Choice {
                    arguments: vec![word.to_owned()],
                    consequence: consequence.to_owned(),
                };
                finding.choices = vec![
                    choice("--leave-running", "it runs on, and the checkpoint can be restored under another name"),
                    choice("--below-engine", "it is ended, and the engine takes that for a failure of the program"),
                ];
                finding
            }
        })
    }

    fn finding(&self, id: &'static str, level: Level, what: String, cure: &str) -> Finding {
        let (turns_on, choices) = (Vec::new(), Vec::new());
        Finding { id, level, pids: vec![self.init.pid], what, cure: cure.to_owned(), turns_on, choices }
    }

    /// What crr.json says of it.
    pub(super) fn recorded(&self, request: &Request) -> RecordedContainer {
        let namespaces = Namespaces::read(format!("/proc/{}/ns", self.init.pid).as_ref());
        let inode = |kind: NamespaceKind| {
            let each = namespaces.each();
            each.iter().find(|(name, _)| *name == kind.in_proc()).map_or(0, |(_, inode)| *inode)
        };
        let recorded = |kind: NamespaceKind, path: Option<PathBuf>| RecordedNamespace {
            kind: kind.in_config().into(),
            path,
            inode: inode(kind),
        };
        RecordedContainer {
            id: self.container.id().as_str().to_owned(),
            runtime: self.container.runtime().name().to_owned(),
            runtime_version: None,
            runtime_root: root_of(&self.container).to_path_buf(),
            bundle: self.container.bundle().unwrap_or(Path::new("")).to_path_buf(),
            rootfs: self.configuration.rootfs.clone(),
            created: self.created().to_owned(),
            stdio: self.container.descriptors().map(|streams| streams.0.to_vec()).unwrap_or_default(),
            stdio_files: self.stdio_files.clone(),
            namespaces: self
                .configuration
                .namespaces
                .iter()
                .map(|namespace| recorded(namespace.kind, namespace.path.clone()))
                .collect(),
            cgroup_paths: self.cgroups.clone(),
            network: self.network.kind,
            interfaces: self.network.interfaces.clone(),
            images: request.images,
            tmpfs: Vec::new(),
            paused: self.frozen.is_some(),
        }
    }

    /// When its runtime made it, in its own words.
    pub(super) fn created(&self) -> &str {
        match self.container.record() {
            Record::Runc(state) => state.created(),
            Record::Crun(status, _) => status.created(),
        }
    }

    /// What its runtime has written down of it, byte by byte.
    pub(super) fn state_bytes(&self) -> Result<Vec<u8>> {
        let path = self.container.directory().join(self.container.runtime().state_file());
        fs::read(&path).map_err(Error::io("read", &path))
    }

    /// The files that are kept beside the images.
    pub(super) fn companions(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut files = vec![(self.container.runtime().state_file(), self.state_bytes()?)];
        match self.container.record() {
            Record::Crun(_, spec) => files.push((Spec::NAME, spec.bytes().to_vec())),
            // The bundle may be gone; what the runtime has made of it is in its state.
            Record::Runc(state) => {
                let config = state.bundle().map(|bundle| bundle.join(Spec::NAME)).filter(|config| config.exists());
                files.extend(
                    config
                        .map(|config| Spec::read(&config))
                        .transpose()?
                        .map(|spec| (Spec::NAME, spec.bytes().to_vec())),
                );
            }
        }
        if let Some(streams) = self.container.descriptors() {
            files.push((Descriptors::NAME, streams.to_json().into_bytes()));
        }
        Ok(files)
    }
}

/// The directory that holds the states of its runtime's containers.
fn root_of(container: &Container) -> &Path {
    container.directory().parent().unwrap_or(Path::new("/"))
}

/// Where the cgroups of a container are.
fn cgroups(container: &Container, init: Init) -> Result<BTreeMap<String, PathBuf>> {
    match container.record() {
        Record::Runc(state) => Ok(state.cgroup_paths().clone()),
        Record::Crun(status, _) => {
            let (layout, membership) = (Layout::read()?, Membership::of(init.pid).unwrap_or_default());
            let own = status.cgroup().to_string_lossy().into_owned();
            let own = own.trim_matches('/');
            let places =
                membership.0.iter().filter(|(_, path)| !own.is_empty() && path.trim_matches('/').ends_with(own));
            Ok(places
                .filter_map(|(name, path)| Some((name.clone(), layout.hierarchy(name)?.directory(path)?)))
                .collect())
        }
    }
}

/// The cgroup by which a container is paused, if it is.
fn frozen(cgroups: &BTreeMap<String, PathBuf>) -> Option<PathBuf> {
    let says = |directory: &PathBuf, file: &str, word: &str| {
        fs::read_to_string(directory.join(file)).is_ok_and(|text| text.lines().any(|line| line.trim() == word))
    };
    let found = cgroups.values().find(|directory| {
        says(directory, "freezer.state", "FROZEN")
            || says(directory, "freezer.state", "FREEZING")
            || says(directory, "cgroup.freeze", "1")
    });
    found.cloned()
}
