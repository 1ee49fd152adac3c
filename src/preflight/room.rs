//! How large the images will be, and whether there is room for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::process::Task;

use super::examine::Examination;

/// What CRIU writes for a task besides its memory: 14 small files of a block each.
const TASK_BYTES: u64 = 14 * 4096;
/// What it writes for a tree.
const TREE_BYTES: u64 = 30 * 4096;

/// The estimate, and the space available.
pub(super) fn look(examination: &mut Examination<'_>) -> (u64, Option<u64>) {
    let estimate = estimate(&examination.tree.tasks).saturating_add(examination.ghost_bytes);
    let Some(directory) = &examination.intent.directory else { return (estimate, None) };
    let Some((place, available)) = available(directory) else { return (estimate, None) };
    if estimate > available {
        let root = examination.tree.root().pid();
        examination.findings.will_not(
            "no-space",
            root,
            format!(
                "the images will take about {} and {} has {} free",
                mebibytes(estimate),
                place.display(),
                mebibytes(available)
            ),
            "name a directory on a file system with more room",
        );
    }
    (estimate, Some(available))
}

/// Each task's private memory counts for itself, even what it shares since a fork: CRIU writes it for each. Shared memory
/// counts once, by its inode, and no more than what all who map it have in RAM.
fn estimate(tasks: &[Task]) -> u64 {
    let mut segments: BTreeMap<u64, u64> = BTreeMap::new();
    let mut private = TREE_BYTES;
    let mut shared_in_ram = 0u64;
    for task in tasks {
        private = private
            .saturating_add(TASK_BYTES)
            .saturating_add(task.status.anonymous_bytes)
            .saturating_add(task.status.swap_bytes);
        shared_in_ram = shared_in_ram.saturating_add(task.status.shmem_bytes);
        for segment in &task.memory.segments {
            let known = segments.entry(segment.inode).or_default();
            *known = (*known).max(segment.bytes);
        }
    }
    let shared = segments.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    private.saturating_add(shared.min(shared_in_ram))
}

/// The nearest directory above `path` that exists, and the bytes free there.
fn available(path: &Path) -> Option<(PathBuf, u64)> {
    let start = std::path::absolute(path).ok()?;
    let place = start.ancestors().find(|place| place.is_dir())?;
    let found = nix::sys::statvfs::statvfs(place).ok()?;
    #[allow(clippy::unnecessary_cast)]
    let bytes = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
    Some((place.to_path_buf(), bytes))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_that_of_the_directory_above_one_that_does_not_exist_yet() {
        let directory = tempfile::tempdir().expect("a directory");
        let (place, bytes) = available(&directory.path().join("a/b")).expect("the room");
        assert_eq!(place, directory.path());
        assert!(bytes > 0);
    }
}
