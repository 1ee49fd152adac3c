//! The container that was dumped, where its dump is about to end it.

use std::path::{Path, PathBuf};

use super::found::Found;
use crate::oci::{Container, Id, Record};
use crate::request::Afterwards;
use crate::restore;

/// A container that will be gone, its cgroups first and its state last.
#[derive(Debug)]
pub(super) struct Original {
    id: String,
    state: PathBuf,
}

impl Original {
    /// The container that the checkpoint is of, if it is still there, was not to be left running, and is to be waited for.
    pub(super) fn of(found: &Found, wanted: restore::Original) -> Option<Self> {
        let record = found.checkpoint.record().filter(|_| wanted == restore::Original::AwaitEnd)?;
        let recorded = record.container.as_ref().filter(|_| record.options.afterwards == Afterwards::Kill)?;
        let id: Id = recorded.id.parse().ok()?;
        let container = Container::find(Some(&recorded.runtime_root), &id).ok()?;
        let created = match container.record() {
            Record::Runc(state) => state.created(),
            Record::Crun(status, _) => status.created(),
        };
        // Another of that name is not about to end.
        (created == recorded.created)
            .then(|| Self { id: recorded.id.clone(), state: container.directory().to_path_buf() })
    }

    /// Its name.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether anything of it is left.
    pub(super) fn is_there(&self) -> bool {
        self.state.symlink_metadata().is_ok()
    }

    /// Its directory in the runtime's root.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }
}
