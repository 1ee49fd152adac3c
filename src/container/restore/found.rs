//! What a checkpoint of a container says.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::namespaces::{self, Network};
use crate::checkpoint::{Checkpoint, Manifest, RecordedContainer};
use crate::error::{Error, Result};
use crate::images::{Images, Kind, Mount};
use crate::oci::{Bundle, Descriptors, Spec, State};
use crate::restore::{ContainerProblem, Request};

use super::guest::Template;

/// A record of this checkpoint that is larger is none.
const SMALL_FILE_LIMIT: u64 = 1 << 20;

/// What the checkpoint says.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) checkpoint: Checkpoint,
    pub(super) images: Images,
    pub(super) mounts: Vec<Mount>,
    pub(super) network: Network,
    pub(super) cgroup_namespace: bool,
}

impl Found {
    pub(super) fn read(request: &Request) -> Result<Result<Self, ContainerProblem>> {
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

    pub(super) fn container(&self) -> Option<&RecordedContainer> {
        self.checkpoint.record()?.container.as_ref()
    }

    /// A small file of the checkpoint, if it is there.
    fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read_in(&self.images, name).map_err(Error::io("read", self.checkpoint.path().join(name)))
    }

    /// Where the standard streams led.
    pub(super) fn descriptors(&self) -> Result<Descriptors> {
        match self.file(Descriptors::NAME)? {
            Some(bytes) => Descriptors::parse(&bytes, &self.checkpoint.path().join(Descriptors::NAME)),
            None => Ok(Descriptors(std::array::from_fn(|_| "/dev/null".to_owned()))),
        }
    }

    /// From what the state of a container of this bundle is written.
    pub(super) fn template(&self, bundle: &Bundle) -> Result<Template> {
        Ok(match (self.file(State::NAME)?, self.file(Spec::NAME)?) {
            // What another bundle says wins, as with runc.
            (Some(state), Some(config)) if config == bundle.spec().bytes() => {
                // Of crun's containers there is a state of another kind.
                let path = self.checkpoint.path().join(State::NAME);
                State::parse(&state, &path).map_or_else(
                    |_| Template::Bundle(Box::new(bundle.clone())),
                    |state| Template::Recorded(Box::new(state)),
                )
            }
            _ => Template::Bundle(Box::new(bundle.clone())),
        })
    }

    /// Whether the files that tasks have open or run are in the root file system.
    pub(super) fn check_files(&self, rootfs: &Path, problems: &mut Vec<ContainerProblem>) -> Result<()> {
        let own;
        let manifest = match self.checkpoint.record().map(|record| &record.files) {
            Some(manifest) if !manifest.is_empty() => manifest,
            _ => match Manifest::named_by(&self.images) {
                Ok(manifest) => {
                    own = manifest;
                    &own
                }
                // What is wrong with the images is told by those who look at all of them.
                Err(_) => return Ok(()),
            },
        };
        let elsewhere =
            |path: &Path| self.mounts.iter().any(|mount| !mount.is_root() && path.starts_with(&mount.mountpoint));
        for difference in manifest.compare(rootfs)? {
            if difference.kind.is_fatal() && !elsewhere(&difference.path) {
                let (rootfs, difference) = (rootfs.to_path_buf(), difference.to_string());
                problems.push(ContainerProblem::File { rootfs, difference });
            }
        }
        Ok(())
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
