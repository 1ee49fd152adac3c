//! What a container is to be: all of it decided and looked at, nothing made.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::super::scene;
use super::cgroups::Cgroups;
use super::found::Found;
use super::guest::Template;
use super::mounts::{self, Sources};
use super::namespaces::{self, Given};
use super::neighbours::{is_running, is_used, running_pid};
use super::original::Original;
use super::pids::Pids;
use super::rootfs::Root;
use super::streams::Ready;
use super::{Wanted, streams};
use crate::checkpoint::RecordedTmpfs;
use crate::error::{Error, Result};
use crate::oci::{Bundle, Configuration, Descriptors, MountKind};
use crate::request::{CgroupMode, InheritedFd};
use crate::restore::{ContainerProblem, Problem, Request};

/// A container that can be made.
#[derive(Debug)]
pub(super) struct Blueprint {
    pub(super) found: Found,
    /// Its directory in the runtime's root.
    pub(super) state: PathBuf,
    pub(super) bundle: Bundle,
    pub(super) configuration: Configuration,
    pub(super) descriptors: Descriptors,
    pub(super) template: Template,
    /// The bundle's root file system.
    pub(super) root: Root,
    /// Whether another container uses that.
    pub(super) root_is_used: bool,
    pub(super) cgroups: Cgroups,
    /// What CRIU does with them.
    pub(super) mode: CgroupMode,
    /// Its numbers in a PID namespace from outside.
    pub(super) pids: Option<Pids>,
    pub(super) sources: Sources,
    /// What CRIU is told about mounts.
    pub(super) external: BTreeSet<String>,
    /// Its standard streams.
    pub(super) streams: Vec<InheritedFd>,
    pub(super) namespaces: Given,
    /// Whether the original runs beside it, so that it must not have its addresses.
    pub(super) private: bool,
    /// What was dumped, which is about to end.
    pub(super) original: Option<Original>,
}

impl Blueprint {
    /// Decides. Where an `original` is about to end, what is its own counts as free. Streams that are `ready` are taken.
    ///
    /// # Errors
    /// [`Error::Unrestorable`] with all that stands against it.
    pub(super) fn draw(wanted: &Wanted, request: &Request, found: Found, ready: &mut Ready) -> Result<Self> {
        let unrestorable = |problems| refusal(&request.directory, problems);
        let mut problems = Vec::new();
        let id = wanted.id.as_str();
        let root = std::path::absolute(&wanted.runtime_root).map_err(Error::io("find", &wanted.runtime_root))?;
        let state = root.join(&wanted.id);
        let original = Original::of(&found, request.original);
        let is_originals = original.as_ref().is_some_and(|original| original.state() == state);
        if !is_originals && scene::is_taken(&state) {
            // What else it would find in its way is that container's.
            return Err(unrestorable(vec![ContainerProblem::IdTaken { id: id.to_owned(), state }]));
        }
        let recorded = found.container();
        let Some(bundle) = wanted.bundle.clone().or_else(|| recorded.map(|container| container.bundle.clone())) else {
            return Err(unrestorable(vec![ContainerProblem::NoBundle]));
        };
        let bundle = match Bundle::open(&bundle) {
            Err(Error::Io { path, source, .. }) => {
                return Err(unrestorable(vec![ContainerProblem::Bundle { path, why: source.to_string() }]));
            }
            other => other?,
        };
        let configuration = bundle.configuration();
        let source = Root::of_bundle(bundle.path(), bundle.rootfs())?;
        let descriptors = found.descriptors()?;
        let template = found.template(&bundle)?;
        let is_other = recorded.is_some_and(|container| container.id != id);
        let ending = original.as_ref().map(Original::state);
        let roots = [Some(root.as_path()), recorded.map(|container| container.runtime_root.as_path())];
        let root_is_used = is_used(roots, &configuration.rootfs, ending);

        let recorded_paths = match &template {
            Template::Recorded(state) => Some(state.cgroup_paths()).filter(|paths| !paths.is_empty()),
            Template::Bundle(_) => None,
        };
        let cgroups = Cgroups::choose(id, bundle.spec().cgroups_path(), is_other, recorded_paths, is_originals)?;
        let recorded_mode = found.checkpoint.record().and_then(|record| record.options.manage_cgroups);
        let mode = request.options.cgroups.mode.or(recorded_mode).unwrap_or(match found.cgroup_namespace {
            true => CgroupMode::Soft,
            false => CgroupMode::Ignore,
        });
        if !is_originals {
            problems.extend(cgroups.problems(mode == CgroupMode::Strict));
        }

        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(top) = rustix::fs::open(source.lower(), flags, Mode::empty()) else {
            problems.push(ContainerProblem::Rootfs(source.lower().to_path_buf()));
            return Err(unrestorable(problems));
        };
        let recorded_tmpfs = recorded.map(|container| container.tmpfs.clone()).unwrap_or_default();
        let sources = sources(&configuration, &top, source.lower(), &cgroups, request, recorded_tmpfs);
        let answers = mounts::answer(&found.mounts, &sources);
        problems.extend(answers.problems);
        if matches!(source, Root::Directory(_)) {
            found.check_files(source.lower(), &mut problems)?;
        }

        // Another container in the namespace of the first would have its addresses.
        let private = is_other && original.is_none() && is_running(recorded);
        let find = |id: &str| running_pid(&root, id);
        let namespaces = namespaces::find(&configuration, found.network, &wanted.joins, private, find, &mut problems)?;
        let pids = namespaces.pid_namespace().map(|namespace| Pids::of(&found.images, namespace)).transpose()?;
        if let (Some(pids), None) = (&pids, &original) {
            problems.extend(pids.problems());
        }
        let outside = streams::outside(&descriptors.0, recorded);
        let streams = streams::open(&outside, wanted.stdio, ready, &mut problems);
        if bundle.spec().terminal() && wanted.console.is_none() {
            problems.push(ContainerProblem::NoConsole);
        }
        if !problems.is_empty() {
            return Err(unrestorable(problems));
        }
        Ok(Self {
            found,
            state,
            bundle,
            configuration,
            descriptors,
            template,
            root: source,
            root_is_used,
            cgroups,
            mode,
            pids,
            sources,
            external: answers.external,
            streams,
            namespaces,
            private,
            original,
        })
    }

    /// Whether the container has a user namespace whose root is not the host's.
    pub(super) fn has_other_root(&self) -> bool {
        let other = |map: &crate::oci::IdMapping| map.container == 0 && map.host != 0;
        self.configuration.uid_mappings.iter().chain(&self.configuration.gid_mappings).any(other)
    }
}

/// That a container cannot be restored from the checkpoint in `directory`.
pub(super) fn refusal(directory: &Path, problems: Vec<ContainerProblem>) -> Error {
    let problems = problems.into_iter().map(Problem::Container).collect();
    Error::Unrestorable { dir: directory.to_path_buf(), problems }
}

/// What the bundle says about mounts, with mount points as the images have them.
fn sources(
    configuration: &Configuration,
    top: &OwnedFd,
    rootfs: &Path,
    cgroups: &Cgroups,
    request: &Request,
    tmpfs: Vec<RecordedTmpfs>,
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
    let opened = openat2(top, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    let real = opened.ok().and_then(|file| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok());
    let rootfs = rootfs.canonicalize().unwrap_or_else(|_| rootfs.to_path_buf());
    match real.as_deref().and_then(|real| real.strip_prefix(rootfs).ok()) {
        Some(below) => Path::new("/").join(below),
        None => path.to_path_buf(),
    }
}
