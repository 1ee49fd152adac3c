//! What is there before anything is known of the images: CRIU chosen, its mount namespace, and perhaps itself.

use std::path::Path;

use super::blueprint::{Blueprint, refusal};
use super::found::Found;
use super::site::Built;
use super::streams::Ready;
use super::{Stdio, Wanted};
use crate::arena::{Arena, FeatureCache, Plan};
use crate::criu::{Chosen, Identity, InetSockets, Search};
use crate::error::Result;
use crate::host::KernelRelease;
use crate::restore::{Request, Worker};
use crate::swrk::Programs;

/// A place for a container of which nothing is known yet.
#[derive(Debug)]
pub(super) struct Stage {
    chosen: Chosen,
    arena: Arena,
    worker: Option<Worker>,
    ready: Ready,
}

impl Stage {
    /// Makes the mount namespace. Nothing is mounted in it yet but what CRIU finds of the kernel's features. It may be `long`
    /// until more is.
    pub(super) async fn set(request: &Request, long: bool) -> Result<Self> {
        let search = Search::new(request.criu.clone(), std::env::var_os("PATH").as_deref());
        let chosen = search.choose(InetSockets::Unknown).await?;
        let mut plan = Plan::new();
        if let Some(features) = features(&chosen.binary) {
            plan.features(features);
        }
        if long {
            plan.follow();
        }
        Ok(Self { chosen, arena: Arena::new(plan)?, worker: None, ready: Ready::default() })
    }

    /// Starts CRIU, which gets what it will probably need.
    pub(super) fn start(&mut self, stdio: Stdio, request: &Request) -> Result<()> {
        self.ready = Ready::open(stdio);
        let worker = Worker::start_ahead(
            &self.chosen,
            &request.options,
            self.ready.iter(),
            Programs::All,
            Some(self.arena.namespace()),
        )?;
        self.worker = Some(worker);
        Ok(())
    }

    /// Looks at the images and at what the container needs besides, and makes that. Blocks for some milliseconds, or as long
    /// as it takes to copy a root file system.
    pub(super) fn build(self, wanted: Wanted, mut request: Request) -> Result<Built> {
        let Self { chosen, arena, worker, mut ready } = self;
        let found = match Found::read(&request)? {
            Ok(found) => found,
            Err(problem) => return Err(refusal(&request.directory, vec![problem])),
        };
        let mut blueprint = Blueprint::draw(&wanted, &request, found, &mut ready)?;
        blueprint.give(&wanted, &mut request.options);
        let worker = match (worker.filter(|worker| worker.has(&request.options)), blueprint.found.checkpoint.record()) {
            (Some(worker), _) => Some(worker),
            // It starts while the rest is made.
            (None, Some(record)) => {
                let namespace = Some(arena.namespace());
                Some(Worker::start_early(&chosen, record, &request.options, Programs::All, namespace)?)
            }
            (None, None) => None,
        };
        blueprint.build(wanted, request, arena, worker)
    }
}

/// What is known about the kernel by this CRIU; without it CRIU looks itself.
fn features(binary: &Path) -> Option<FeatureCache> {
    let kernel = KernelRelease::running().ok()?;
    Identity::of(binary, &kernel).ok().map(|identity| identity.features())
}
