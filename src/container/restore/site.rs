//! Making what a container needs, and the request to CRIU that goes with it.
//!
//! What goes by the container's name and may be its original's yet, its directory and its cgroups, is not made here but when
//! CRIU asks: by the [`Guest`].

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::super::journal::{Entry, Journal};
use super::super::tmpfs;
use super::blueprint::{Blueprint, refusal};
use super::guest::{Guest, nobody};
use super::mounts::{self, Sources};
use super::namespaces::Network;
use super::original::Original;
use super::rootfs::{self, Root};
use super::veths::veths;
use super::{Rootfs, Wanted, readable};
use crate::arena::{Arena, Plan, place};
use crate::error::{Error, Result};
use crate::images::Mount;
use crate::operation::pause;
use crate::request::{CgroupMode, EmptyNamespace, RestoreOptions, RestoreSwitch};
use crate::restore::{ContainerProblem, Request, Shared, Surroundings, Worker};

/// A request that is ready, with all made that the container needs.
pub(super) struct Built {
    pub(super) request: Request,
    pub(super) notes: Vec<String>,
    /// How long it took to copy its root file system, or to make its overlay.
    pub(super) copy: Duration,
}

impl Blueprint {
    /// What CRIU is told of descriptors, which its worker must have from its start.
    pub(super) fn give(&mut self, wanted: &Wanted, options: &mut RestoreOptions) {
        options.inherited.append(&mut self.streams);
        options.inherited.append(&mut self.namespaces.inherited);
        options.join.append(&mut self.namespaces.join);
        if wanted.console.is_some() && self.bundle.spec().terminal() {
            options.switches.extend([RestoreSwitch::ShellJob, RestoreSwitch::OrphanPtsMaster]);
        }
    }

    /// Makes what it needs in the mount namespace of its CRIU, which may be starting meanwhile.
    pub(super) fn build(
        self,
        wanted: Wanted,
        mut request: Request,
        arena: Arena,
        worker: Option<Worker>,
    ) -> Result<Built> {
        let mut notes = Vec::new();
        let (has_other_root, mode) = (self.has_other_root(), self.mode);
        let Self { found, state, bundle, descriptors, template, root, cgroups, sources, external, .. } = self;
        let id = wanted.id.as_str();
        let unrestorable = |problem| refusal(&request.directory, vec![problem]);
        let journal = match Journal::begin(Entry::new(id, &state)) {
            Ok(journal) => journal,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(unrestorable(ContainerProblem::Busy(id.to_owned())));
            }
            Err(error) => return Err(error),
        };
        let departing = self.original.as_ref().map(Original::state).map(Path::to_path_buf);
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
            cgroups,
            original: self.original,
            pids: self.pids,
            strict: self.mode == CgroupMode::Strict,
        };
        pause("container-journal");

        let copying = Instant::now();
        let how = wanted.rootfs.or(self.root_is_used.then_some(Rootfs::Overlay)).unwrap_or(Rootfs::Shared);
        let root = match how {
            Rootfs::Shared => root,
            how => {
                let clone = rootfs::clone_directory(id, &state);
                if clone.symlink_metadata().is_ok() {
                    // Of a container of that name that was removed since; a checkpoint of it may need it.
                    let why = format!(
                        "`{}` is of another clone of this name; `crr rm --container {id}` removes it",
                        clone.display()
                    );
                    return Err(unrestorable(ContainerProblem::Option { option: "--rootfs", why }));
                }
                guest.note(|entry| entry.clone = Some(clone.clone()))?;
                let (path, root) = rootfs::make_clone(&clone, &root, guest.bundle.spec().bytes(), how)?;
                guest.live.rootfs = path;
                guest.live.bundle = clone;
                root
            }
        };
        let copy = copying.elapsed();
        pause("container-rootfs");

        let arena = guest.arena.as_ref().ok_or(Error::Closed { attempt: "restore" })?;
        let made = furnish(arena, &root, &sources, &found.mounts, has_other_root)?;
        let images = match has_other_root {
            true => readable::copy(found.images.as_fd(), arena)?,
            false => None,
        };
        let work = match &request.work {
            Some(given) => std::path::absolute(given).map_err(Error::io("find", given))?,
            None => place("work"),
        };
        let work = arena.open(&work, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mount_namespace = arena.namespace();

        let options = &mut request.options;
        options.root = Some(place("root").to_string_lossy().into_owned());
        options.external.extend(external);
        options.external.extend(made);
        for veth in veths(&wanted, found.container(), found.network, self.private, &mut notes) {
            let bridge = veth.bridge.as_ref().map(|bridge| format!("@{bridge}")).unwrap_or_default();
            options.external.push(format!("veth[{}]:{}{bridge}", veth.inside, veth.outside));
            guest.links.push(veth.outside);
        }
        let joins_network = options.join.iter().any(|namespace| namespace.kind == "net");
        if found.network == Network::Empty && !joins_network && options.empty_ns.is_empty() {
            options.empty_ns.push(EmptyNamespace::Network);
        }
        // That none of them was there is known when they are made: what is left of it is to set all that is recorded.
        options.cgroups.mode = Some(if mode == CgroupMode::Strict { CgroupMode::Full } else { mode });
        if mode != CgroupMode::Ignore && options.cgroups.roots.is_empty() {
            options.cgroups.roots = guest.cgroups.roots();
        }
        request.worker = worker;
        request.surroundings =
            Some(Surroundings { mount_namespace, work, images, attendant: Shared::new(guest), departing });
        Ok(Built { request, notes, copy })
    }
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
    plan.directory(place("work"), 0o700);
    plan.directory(place(mounts::EMPTY), 0o755);
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
