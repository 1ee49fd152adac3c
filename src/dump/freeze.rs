//! Freezing the tree's cgroup for CRIU: at `pre-dump`, the last moment before CRIU does it.
//!
//! CRIU itself looks again only every 100 ms whether the cgroup is frozen. One that is frozen already it takes at once, and
//! freezes again when it lets the tree go: [`Hold::end`] thaws it then.

use std::path::Path;
use std::time::Duration;

use super::Fate;
use crate::error::{Error, Result};
use crate::host::cgroup::freezer::{Freezer, Guard, Setting};
use crate::request::DumpOptions;

/// CRIU's own limit.
const LIMIT_S: u32 = 10;

/// The cgroup that is to be frozen, if one is to be.
///
/// # Errors
/// [`Error::Io`] if there is no such directory, [`Error::Option`] if it is no cgroup that can be frozen, or one that crr is in.
pub(super) fn freezer(options: &DumpOptions) -> Result<Option<Freezer>> {
    let Some(given) = &options.freeze_cgroup else { return Ok(None) };
    let refused = |reason| Error::Option { option: "freeze-cgroup", value: given.clone(), reason };
    let freezer = match Freezer::of(Path::new(given)) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput => {
            return Err(refused("must be a cgroup's directory with a file freezer.state or cgroup.freeze in it"));
        }
        other => other?,
    };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    match freezer.holds(own)? {
        true => Err(refused("must not hold crr itself, which would be frozen as well")),
        false => Ok(Some(freezer)),
    }
}

/// The cgroup of a tree while it is being dumped.
#[derive(Debug)]
pub(super) struct Hold {
    freezer: Freezer,
    before: Setting,
    guard: Option<Guard>,
    limit: Duration,
}

impl Hold {
    /// Posts a guard. Nothing is frozen yet.
    pub(super) fn prepare(freezer: Freezer, criu: i32, timeout_s: Option<u32>) -> Result<Self> {
        let limit = match timeout_s.unwrap_or(LIMIT_S) {
            // CRIU's word for no limit.
            0 => Duration::from_secs(u32::MAX.into()),
            seconds => Duration::from_secs(seconds.into()),
        };
        let guard = Guard::post(freezer.clone(), Some(criu))?;
        Ok(Self { before: guard.before(), freezer, guard: Some(guard), limit })
    }

    /// Freezes it. Blocks.
    pub(super) fn freeze(&self) -> Result<()> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.freeze(self.limit))
    }

    /// CRIU is about to be told to end the tree. One that was frozen before must not be frozen again by anyone meanwhile: of
    /// version 1 its tasks would not die.
    pub(super) fn commit(&mut self) {
        if self.before == Setting::Frozen {
            if let Some(guard) = self.guard.take() {
                guard.dismiss();
            }
        }
    }

    /// Puts the cgroup back as it was, when CRIU has let the tree go. Says what could not be done.
    pub(super) fn end(self, fate: Fate) -> Option<String> {
        let Self { freezer, before, guard, .. } = self;
        let result = match (before, fate) {
            (Setting::Frozen, Fate::Ends) => Ok(()),
            _ => freezer.set(before),
        };
        if let Some(guard) = guard {
            guard.dismiss();
        }
        // It may have been removed with the last of its tasks.
        let error = result.err().filter(|_| freezer.directory().exists())?;
        Some(format!("the cgroup `{}` is not as it was: {error}", freezer.directory().display()))
    }
}
