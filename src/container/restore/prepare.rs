//! Everything before CRIU gets its request: looking at what there is, then making what the container needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};

use super::super::journal::{Entry, Journal};
use super::super::scene;
use super::cgroups::{Cgroups, limits_of};
use super::guest::{Guest, Template, nobody};
use super::mounts::{self, Sources};
use super::namespaces::{self, Network};
use super::rootfs::{self, Root};
use super::{Rootfs, Veth, Wanted, readable, streams};
use crate::arena::{Arena, FeatureCache, Plan};
use crate::checkpoint::{Checkpoint, Manifest, NetworkKind, RecordedContainer};
use crate::container::tmpfs;
use crate::criu::Chosen;
use crate::error::{Error, Result};
use crate::host::await_free_inside;
use crate::images::{Images, Kind, Mount};
use crate::oci::{Bundle, Configuration, Container, Descriptors, MountKind, Spec, State};
use crate::operation::pause;
use crate::request::{CgroupMode, EmptyNamespace, RestoreSwitch};
use crate::restore::{ContainerProblem, Problem, Request, Shared, Surroundings, Worker};
use crate::swrk::Programs;

/// A record of this checkpoint that is larger is none.
const SMALL_FILE_LIMIT: u64 = 1 << 20;

/// How long a killed process may keep its PID.
const DYING: Duration = Duration::from_secs(5);

/// A request that is ready, with all made that the container needs.
pub(super) struct Prepared {
    pub(super) request: Request,
    pub(super) notes: Vec<String>,
    pub(super) copy: Duration,
}

/// What the checkpoint says.
struct Found {
    checkpoint: Checkpoint,
    images: Images,
    mounts: Vec<Mount>,
    network: Network,
    cgroup_namespace: bool,
}

impl Found {
    fn read(request: &Request) -> Result<Result<Self, ContainerProblem>> {
        let checkpoint = Checkpoint::open(&request.directory, request.trust)?;
        let copy = checkpoint.as_fd().try_clone_to_owned().map_err(Error::io("open", checkpoint.path()))?;
        let images = Images::from_directory(copy, checkpoint.path());
        let inventory = images.inventory()?;
        let Some(root) = images.tasks()?.into_iter().next() else { return Ok(Err(ContainerProblem::NotAContainer)) };
        let ids = match images.core(root.pid)?.ids {
            Some(ids) => ids,
            None => images.ids(root.pid)?,
        };
        let outside = inventory.root_ids;
        let own = |of: fn(&crate::images::Ids) -> Option<u32>| {
            of(&ids).filter(|own| outside.is_some_and(|ids| of(&ids) != Some(*own)))
        };
        let Some(mounts) = own(|ids| ids.mount_namespace) else { return Ok(Err(ContainerProblem::NotAContainer)) };
        let mounts = images.mounts(mounts)?;
        let network = match own(|ids| ids.net_namespace) {
            None => Network::Host,
            Some(id) => network_in(&images, id),
        };
        let cgroup_namespace = own(|ids| ids.cgroup_namespace).is_some();
        Ok(Ok(Self { checkpoint, images, mounts, network, cgroup_namespace }))
    }

    fn container(&self) -> Option<&RecordedContainer> {
        self.checkpoint.record()?.container.as_ref()
    }

    /// A small file of the checkpoint, if it is there.
    fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read_in(&self.images, name).map_err(Error::io("read", self.checkpoint.path().join(name)))
    }
}

/// A file beside the images; no link is followed and nothing else is waited for.
fn read_in(images: &Images, name: &str) -> std::io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(images.as_fd(), name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_LIMIT).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// An empty one has no image, and one from outside is nothing but its name.
fn network_in(images: &Images, id: u32) -> Network {
    match read_in(images, &Kind::NetNamespace.file_name(id)) {
        Ok(None) => Network::Empty,
        Ok(Some(bytes)) => {
            let name = namespaces::OUTSIDE_NET.as_bytes();
            match bytes.windows(name.len()).any(|part| part == name) {
                true => Network::Outside,
                false => Network::Dumped,
            }
        }
        Err(_) => Network::Dumped,
    }
}

/// Looks, then makes. Blocks for some milliseconds, or as long as it takes to copy a root file system.
pub(super) fn prepare(
    wanted: Wanted,
    mut request: Request,
    criu: &Chosen,
    features: Option<FeatureCache>,
) -> Result<Prepared> {
    let directory = request.directory.clone();
    let unrestorable = |problems: Vec<ContainerProblem>| Error::Unrestorable {
        dir: directory.clone(),
        problems: problems.into_iter().map(Problem::Container).collect(),
    };
    let found = match Found::read(&request)? {
        Ok(found) => found,
        Err(problem) => return Err(unrestorable(vec![problem])),
    };
    let mut problems = Vec::new();
    let mut notes = Vec::new();

    let id = wanted.id.as_str();
    let root = std::path::absolute(&wanted.runtime_root).map_err(Error::io("find", &wanted.runtime_root))?;
    let state = root.join(&wanted.id);
    if scene::is_taken(&state) {
        // What else it would find in its way is that container's.
        return Err(unrestorable(vec![ContainerProblem::IdTaken { id: id.to_owned(), state }]));
    }
    let recorded = found.container();
    let Some(bundle) = wanted.bundle.clone().or_else(|| recorded.map(|container| container.bundle.clone())) else {
        problems.push(ContainerProblem::NoBundle);
        return Err(unrestorable(problems));
    };
    let bundle = match Bundle::open(&bundle) {
        Err(Error::Io { path, source, .. }) => {
            return Err(unrestorable(vec![ContainerProblem::Bundle { path, why: source.to_string() }]));
        }
        other => other?,
    };
    let configuration = bundle.configuration();
    let source = Root::of_bundle(bundle.path(), bundle.rootfs())?;

    let descriptors = match found.file(Descriptors::NAME)? {
        Some(bytes) => Descriptors::parse(&bytes, &found.checkpoint.path().join(Descriptors::NAME))?,
        None => Descriptors(std::array::from_fn(|_| "/dev/null".to_owned())),
    };
    let template = match (found.file(State::NAME)?, found.file(Spec::NAME)?) {
        // What another bundle says wins, as with runc.
        (Some(state), Some(config)) if config == bundle.spec().bytes() => {
            // Of crun's containers there is a state of another kind.
            let path = found.checkpoint.path().join(State::NAME);
            State::parse(&state, &path).map_or_else(
                |_| Template::Bundle(Box::new(bundle.clone())),
                |state| Template::Recorded(Box::new(state)),
            )
        }
        _ => Template::Bundle(Box::new(bundle.clone())),
    };
    let is_other = recorded.is_some_and(|container| container.id != id);
    let in_use = is_used(&root, recorded.map(|container| container.runtime_root.as_path()), &configuration.rootfs);

    let recorded_paths = match &template {
        Template::Recorded(state) => Some(state.cgroup_paths()).filter(|paths| !paths.is_empty()),
        Template::Bundle(_) => None,
    };
    let cgroups = Cgroups::choose(id, bundle.spec().cgroups_path(), is_other, recorded_paths, &mut problems)?;

    let recorded_mode = found.checkpoint.record().and_then(|record| record.options.manage_cgroups);
    let mode = request.options.cgroups.mode.or(recorded_mode).unwrap_or(match found.cgroup_namespace {
        true => CgroupMode::Soft,
        false => CgroupMode::Ignore,
    });
    if mode == CgroupMode::Strict {
        let there = cgroups.directories().into_iter().filter(|path| path.exists());
        problems.extend(there.map(|path| ContainerProblem::Cgroup {
            path,
            why: "it is there already, and --manage-cgroups=strict wants none to be".into(),
        }));
    }

    let top = rustix::fs::open(source.lower(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let top = match top {
        Ok(top) => top,
        Err(_) => {
            problems.push(ContainerProblem::Rootfs(source.lower().to_path_buf()));
            return Err(unrestorable(problems));
        }
    };
    let recorded_tmpfs = recorded.map(|container| container.tmpfs.clone()).unwrap_or_default();
    let sources = sources(&configuration, &top, source.lower(), &cgroups, &request, recorded_tmpfs);
    let answers = mounts::answer(&found.mounts, &sources);
    problems.extend(answers.problems);
    if matches!(source, Root::Directory(_)) {
        check_files(&found, source.lower(), &mut problems)?;
    }

    // Another container in the namespace of the first would have its addresses.
    let private = is_other && is_running(recorded);
    let find_container = |id: &str| running_pid(&root, id);
    let given = namespaces::find(&configuration, found.network, &wanted.joins, private, find_container, &mut problems)?;
    if let Some(descriptor) = given.pid_namespace() {
        let numbers = numbers(&found.images)?;
        let namespace = rustix::fs::fstat(descriptor)
            .map_err(|errno| Error::system("look at a namespace", std::io::Error::from(errno)))?;
        let taken = await_free_inside(namespace.st_ino, &numbers, Instant::now() + DYING);
        problems.extend(taken.into_iter().map(ContainerProblem::Pid));
    }
    let outside = streams::outside(&descriptors.0, recorded);
    let inherited = streams::open(&outside, wanted.stdio, &mut problems);
    if bundle.spec().terminal() && wanted.console.is_none() {
        problems.push(ContainerProblem::NoConsole);
    }
    if !problems.is_empty() {
        return Err(unrestorable(problems));
    }

    let options = &mut request.options;
    options.inherited.extend(inherited);
    options.inherited.extend(given.inherited);
    options.join.extend(given.join);
    if wanted.console.is_some() && bundle.spec().terminal() {
        options.switches.extend([RestoreSwitch::ShellJob, RestoreSwitch::OrphanPtsMaster]);
    }

    // Now it is made. CRIU starts meanwhile, in its mount namespace, in which nothing is mounted yet.
    let mut plan = Plan::new();
    if let Some(features) = features {
        plan.features(features);
    }
    let arena = Arena::new(plan)?;
    let worker = match found.checkpoint.record() {
        Some(record) => {
            Some(Worker::start_early(criu, record, &request.options, Programs::All, Some(arena.namespace()))?)
        }
        None => None,
    };
    let journal = match Journal::begin(Entry::new(id, &state)) {
        Ok(journal) => journal,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(unrestorable(vec![ContainerProblem::Busy(id.to_owned())]));
        }
        Err(error) => return Err(error),
    };
    let mut live = nobody(wanted.id.clone(), &bundle, descriptors);
    live.cgroup_paths.clone_from(&cgroups.paths);
    live.cgroup = cgroups.below_hierarchy();
    let mut guest = Guest {
        journal: Some(journal),
        arena: Some(arena),
        template,
        live,
        bundle,
        console: wanted.console.clone(),
        links: Vec::new(),
        empty_network: found.network == Network::Empty && !wanted.joins.iter().any(|join| join.kind == "net"),
    };
    pause("container-journal");
    scene::make_state(&state).map_err(Error::io("make the container's directory", &state))?;
    pause("container-state");

    let missing = cgroups.missing();
    change(&mut guest, |entry| {
        entry.cgroups_made.clone_from(&missing);
        entry.cgroups = cgroups.directories();
    })?;
    let limits = limits_of(&guest.template.state(&guest.live)?.to_json());
    cgroups.make(&missing, &limits.map_err(|source| Error::system("read the limits", source))?)?;
    pause("container-cgroups");

    let copying = Instant::now();
    let how = wanted.rootfs.or(in_use.then_some(Rootfs::Overlay)).unwrap_or(Rootfs::Shared);
    let chosen = match how {
        Rootfs::Shared => source,
        how => {
            let clone = rootfs::clone_directory(id, &state);
            if clone.symlink_metadata().is_ok() {
                // Of a container of that name that was removed since; a checkpoint of it may need it.
                let why = format!(
                    "`{}` is of another clone of this name; `crr rm --container {id}` removes it",
                    clone.display()
                );
                return Err(unrestorable(vec![ContainerProblem::Option { option: "--rootfs", why }]));
            }
            change(&mut guest, |entry| entry.clone = Some(clone.clone()))?;
            let (path, root) = rootfs::make_clone(&clone, &source, guest.bundle.spec().bytes(), how)?;
            guest.live.rootfs = path;
            guest.live.bundle = clone;
            root
        }
    };
    let copy = copying.elapsed();
    pause("container-rootfs");

    let arena = guest.arena.as_ref().ok_or(Error::Closed { attempt: "restore" })?;
    let copies_images = has_other_root(&configuration);
    let made = furnish(arena, &chosen, &sources, &found.mounts, copies_images)?;
    let shown = match copies_images {
        true => readable::copy(found.images.as_fd(), arena)?,
        false => None,
    };
    let work = crate::arena::place("work");
    let work = match &request.work {
        Some(given) => std::path::absolute(given).map_err(Error::io("find", given))?,
        None => work,
    };
    let work = arena.open(&work, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mount_namespace = arena.namespace();

    let options = &mut request.options;
    options.root = Some(crate::arena::place("root").to_string_lossy().into_owned());
    options.external.extend(answers.external);
    options.external.extend(made);
    for veth in veths(&wanted, recorded, found.network, private, &mut notes) {
        let bridge = veth.bridge.as_ref().map(|bridge| format!("@{bridge}")).unwrap_or_default();
        options.external.push(format!("veth[{}]:{}{bridge}", veth.inside, veth.outside));
        guest.links.push(veth.outside);
    }
    let joins_network = options.join.iter().any(|namespace| namespace.kind == "net");
    if found.network == Network::Empty && !joins_network && options.empty_ns.is_empty() {
        options.empty_ns.push(EmptyNamespace::Network);
    }
    // That none of them was there is known by now, and made they are: what is left of it is to set all that is recorded.
    options.cgroups.mode = Some(if mode == CgroupMode::Strict { CgroupMode::Full } else { mode });
    if mode != CgroupMode::Ignore && options.cgroups.roots.is_empty() {
        options.cgroups.roots = cgroups.roots();
    }
    request.surroundings = Some(Surroundings {
        mount_namespace,
        work,
        images: shown,
        cgroups: cgroups.directories(),
        attendant: Shared::new(guest),
        worker,
    });
    Ok(Prepared { request, notes, copy })
}

fn change(guest: &mut Guest, change: impl FnOnce(&mut Entry)) -> Result<()> {
    match &mut guest.journal {
        Some(journal) => journal.change(change),
        None => Err(Error::Closed { attempt: "restore" }),
    }
}

/// The numbers that the tasks have in their PID namespace.
fn numbers(images: &Images) -> Result<BTreeSet<i32>> {
    let tasks = images.tasks()?;
    let all =
        tasks.iter().flat_map(|task| [task.pid, task.pgid, task.sid].into_iter().chain(task.threads.iter().copied()));
    Ok(all.filter(|number| *number != 0).filter_map(|number| i32::try_from(number).ok()).collect())
}

/// Whether the container has a user namespace whose root is not the host's.
fn has_other_root(configuration: &Configuration) -> bool {
    let other = |map: &crate::oci::IdMapping| map.container == 0 && map.host != 0;
    configuration.uid_mappings.iter().chain(&configuration.gid_mappings).any(other)
}

/// What the bundle says about mounts, with mount points as the images have them.
fn sources(
    configuration: &Configuration,
    top: &OwnedFd,
    rootfs: &Path,
    cgroups: &Cgroups,
    request: &Request,
    tmpfs: Vec<crate::checkpoint::RecordedTmpfs>,
) -> Sources {
    let binds = configuration.mounts.iter().filter(|mount| mount.kind == MountKind::Bind);
    let given = request.options.external.iter().filter_map(|given| given.strip_prefix("mnt[")?.split_once(']'));
    Sources {
        binds: binds.map(|mount| (resolved(top, rootfs, &mount.destination), mount.source.clone())).collect(),
        masked: configuration.masked_paths.iter().cloned().collect(),
        devices: configuration.devices.iter().cloned().collect(),
        cgroups: cgroups.by_mount(),
        given: given.map(|(key, _)| key.to_owned()).collect(),
        tmpfs,
    }
}

/// Where a path of the container leads within its root file system; as it is where that is not there.
fn resolved(top: &OwnedFd, rootfs: &Path, path: &Path) -> PathBuf {
    use std::os::fd::AsRawFd;
    let opened = openat2(top, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    let real = opened.ok().and_then(|file| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok());
    let rootfs = rootfs.canonicalize().unwrap_or_else(|_| rootfs.to_path_buf());
    match real.as_deref().and_then(|real| real.strip_prefix(rootfs).ok()) {
        Some(below) => Path::new("/").join(below),
        None => path.to_path_buf(),
    }
}

/// Whether the files that tasks have open or run are in the root file system.
fn check_files(found: &Found, rootfs: &Path, problems: &mut Vec<ContainerProblem>) -> Result<()> {
    let own;
    let manifest = match found.checkpoint.record().map(|record| &record.files) {
        Some(manifest) if !manifest.is_empty() => manifest,
        _ => match Manifest::named_by(&found.images) {
            Ok(manifest) => {
                own = manifest;
                &own
            }
            // What is wrong with the images is told by those who look at all of them.
            Err(_) => return Ok(()),
        },
    };
    let elsewhere =
        |path: &Path| found.mounts.iter().any(|mount| !mount.is_root() && path.starts_with(&mount.mountpoint));
    for difference in manifest.compare(rootfs)? {
        if difference.kind.is_fatal() && !elsewhere(&difference.path) {
            let (rootfs, difference) = (rootfs.to_path_buf(), difference.to_string());
            problems.push(ContainerProblem::File { rootfs, difference });
        }
    }
    Ok(())
}

/// Mounts in CRIU's namespace all that the container's mounts come from. Gives what CRIU is to be told of it.
fn furnish(
    arena: &Arena,
    root: &Root,
    sources: &Sources,
    mounts: &[Mount],
    copies_images: bool,
) -> Result<Vec<String>> {
    let mut plan = Plan::new();
    let target = root.plan(&mut plan);
    plan.directory(crate::arena::place("work"), 0o700);
    plan.directory(crate::arena::place(mounts::EMPTY), 0o755);
    let made = tmpfs::plan(&sources.tmpfs, &mut plan)?;
    if copies_images {
        readable::plan(&mut plan);
    }
    arena.mount(plan)?;
    tmpfs::fill(&sources.tmpfs, arena)?;
    let files: BTreeMap<&Path, bool> =
        sources.binds.iter().map(|(at, source)| (at.as_path(), !source.is_dir())).collect();
    let inside = arena.open(&target, OFlags::PATH | OFlags::DIRECTORY)?;
    rootfs::make_mountpoints(inside, mounts, |mount| files.get(mount.mountpoint.as_path()).copied().unwrap_or(false))?;
    Ok(made)
}

/// Whether a running container has this root file system.
fn is_used(root: &Path, recorded: Option<&Path>, rootfs: &Path) -> bool {
    let mut roots = vec![root];
    roots.extend(recorded.filter(|recorded| *recorded != root));
    let states = roots.into_iter().flat_map(|root| std::fs::read_dir(root).into_iter().flatten().flatten());
    states.filter_map(|entry| State::read(&entry.path().join(State::NAME)).ok()).any(|state| {
        let init = scene::Init { pid: state.init().pid, start_ticks: state.init().start };
        state.rootfs() == rootfs && init.is_alive()
    })
}

/// Whether the container that was dumped runs.
fn is_running(recorded: Option<&RecordedContainer>) -> bool {
    recorded.is_some_and(|container| running_pid(&container.runtime_root, &container.id).is_some())
}

/// The first process of a container that runs.
fn running_pid(root: &Path, id: &str) -> Option<i32> {
    let id: crate::oci::Id = id.parse().ok()?;
    let init = Container::find(Some(root), &id).ok()?.init();
    scene::Init { pid: init.pid, start_ticks: init.start }.is_alive().then_some(init.pid)
}

/// The caller's veths, and those recorded. A clone gets other names for the host's ends, and no bridge: the original has its
/// addresses there.
fn veths(
    wanted: &Wanted,
    recorded: Option<&RecordedContainer>,
    network: Network,
    private: bool,
    notes: &mut Vec<String>,
) -> Vec<Veth> {
    let mut all = wanted.veths.clone();
    let Some(recorded) = recorded.filter(|container| container.network == NetworkKind::Dumped) else { return all };
    if network != Network::Dumped || wanted.joins.iter().any(|join| join.kind == "net") {
        return all;
    }
    for interface in recorded.interfaces.iter().filter(|interface| interface.kind == "veth") {
        let inside = interface.name.clone();
        if all.iter().any(|veth| veth.inside == inside) {
            continue;
        }
        let is_there = |name: &str| Path::new("/sys/class/net").join(name).exists();
        let digest = blake3::hash(format!("{} {inside}", wanted.id).as_bytes()).to_hex();
        let own = format!("crr{}", &digest[..8]);
        let outside = interface.peer.clone().filter(|peer| !private && !is_there(peer)).unwrap_or(own);
        let bridge = interface.bridge.clone().filter(|_| !private);
        let found = bridge.clone().filter(|bridge| Path::new("/sys/class/net").join(bridge).join("bridge").exists());
        if let (Some(bridge), None) = (&bridge, &found) {
            notes.push(format!("there is no bridge `{bridge}`: `{outside}`, the other end of {inside}, is in none"));
        } else if private {
            notes.push(format!(
                "`{outside}`, the other end of {inside}, is in no bridge: the original has its addresses"
            ));
        }
        all.push(Veth { inside, outside, bridge: found });
    }
    all
}
