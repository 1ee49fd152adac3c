//! The containers that run beside the one that is restored.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::scene::Init;
use crate::checkpoint::RecordedContainer;
use crate::oci::{Container, State};

/// Whether a running container below one of these runtimes' roots has this root file system; the one whose directory is
/// `ending` does not count.
pub(super) fn is_used(roots: [Option<&Path>; 2], rootfs: &Path, ending: Option<&Path>) -> bool {
    let roots: BTreeSet<&Path> = roots.into_iter().flatten().collect();
    let states = roots.into_iter().flat_map(|root| std::fs::read_dir(root).into_iter().flatten().flatten());
    let others = states.map(|entry| entry.path()).filter(|path| Some(path.as_path()) != ending);
    others.filter_map(|path| State::read(&path.join(State::NAME)).ok()).any(|state| {
        let init = Init { pid: state.init().pid, start_ticks: state.init().start };
        state.rootfs() == rootfs && init.is_alive()
    })
}

/// Whether the container that was dumped runs.
pub(super) fn is_running(recorded: Option<&RecordedContainer>) -> bool {
    recorded.is_some_and(|container| running_pid(&container.runtime_root, &container.id).is_some())
}

/// The first process of a container that runs.
pub(super) fn running_pid(root: &Path, id: &str) -> Option<i32> {
    let id: crate::oci::Id = id.parse().ok()?;
    let init = Container::find(Some(root), &id).ok()?.init();
    Init { pid: init.pid, start_ticks: init.start }.is_alive().then_some(init.pid)
}
