//! What is to be mounted in an arena.

use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::features::{FeatureCache, Loaded};
use super::{mount, place};
use crate::error::Result;

/// How a tmpfs is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// `nosuid`, `nodev`, `ro` and the like.
    pub flags: MsFlags,
    /// The file system's own, such as `size=64m,mode=755`.
    pub data: String,
}

impl Default for TmpfsOptions {
    /// `nosuid,nodev,noexec`, of root, which anybody may read.
    fn default() -> Self {
        Self { flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, data: "mode=755".into() }
    }
}

/// What is to be mounted in an arena, in this order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    features: Option<FeatureCache>,
    pub(super) follows: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Directory { path: PathBuf, mode: u32 },
    Tmpfs { target: PathBuf, options: TmpfsOptions },
    Bind { source: PathBuf, target: PathBuf },
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf, target: PathBuf },
}

impl Plan {
    /// Nothing but the place for directories.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets CRIU find what is known about the kernel, where `/run` is no tmpfs.
    pub fn features(&mut self, cache: FeatureCache) -> &mut Self {
        self.features = Some(cache);
        self
    }

    /// Lets the namespace see what is mounted and unmounted outside, until [`Arena::mount`](super::Arena::mount) is called: it
    /// may be long until then.
    pub fn follow(&mut self) -> &mut Self {
        self.follows = true;
        self
    }

    /// Mounts `rootfs`, with all that is mounted below it, where CRIU's `root` is to point. Gives that path.
    pub fn root(&mut self, rootfs: impl Into<PathBuf>) -> PathBuf {
        let target = place("root");
        self.directory(&target, 0o755).bind(rootfs, &target);
        target
    }

    /// Makes a directory, with those above it. One that is there is left as it is.
    pub fn directory(&mut self, path: impl Into<PathBuf>, mode: u32) -> &mut Self {
        self.steps.push(Step::Directory { path: path.into(), mode });
        self
    }

    /// Mounts a fresh tmpfs.
    pub fn tmpfs(&mut self, target: impl Into<PathBuf>, options: TmpfsOptions) -> &mut Self {
        self.steps.push(Step::Tmpfs { target: target.into(), options });
        self
    }

    /// Mounts a file or a directory, with all that is mounted below it, at another place, which must exist.
    pub fn bind(&mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> &mut Self {
        self.steps.push(Step::Bind { source: source.into(), target: target.into() });
        self
    }

    /// Mounts an overlay. The first of the lower directories is the topmost; `upper` and `work` are on one file system.
    pub fn overlay(
        &mut self,
        lower: Vec<PathBuf>,
        upper: impl Into<PathBuf>,
        work: impl Into<PathBuf>,
        target: impl Into<PathBuf>,
    ) -> &mut Self {
        let (upper, work, target) = (upper.into(), work.into(), target.into());
        self.steps.push(Step::Overlay { lower, upper, work, target });
        self
    }

    /// Does it, in the mount namespace of the thread, which is a new one.
    pub(super) fn begin(self) -> Result<Option<Loaded>> {
        let Self { features, follows: _, steps } = self;
        let features = features.map(FeatureCache::load).transpose()?.flatten();
        if features.is_none() {
            mount::tmpfs(Path::new(super::PLACE), &place_options())?;
        }
        execute(steps)?;
        Ok(features)
    }

    /// Does what there is to mount, in the mount namespace of the thread.
    pub(super) fn go_on(self) -> Result<()> {
        execute(self.steps)
    }
}

fn execute(steps: Vec<Step>) -> Result<()> {
    for step in steps {
        match step {
            Step::Directory { path, mode } => mount::directory(&path, mode)?,
            Step::Tmpfs { target, options } => mount::tmpfs(&target, &options)?,
            Step::Bind { source, target } => mount::bind(&source, &target)?,
            Step::Overlay { lower, upper, work, target } => mount::overlay(&lower, &upper, &work, &target)?,
        }
    }
    Ok(())
}

/// Tasks of a user namespace walk through it to their root, so anybody may.
fn place_options() -> TmpfsOptions {
    TmpfsOptions { data: "mode=711".into(), ..TmpfsOptions::default() }
}
