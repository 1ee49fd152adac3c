//! How much.

use super::super::restrictions::Limits;
use super::super::scene::{Findings, Scene};
use super::super::violation::Line;
use crate::error::Result;
use crate::images::{Images, Kind};

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    // A zombie is one, whatever it says about threads.
    let threads = |threads: usize| u64::try_from(threads.max(1)).unwrap_or(u64::MAX);
    let tasks = scene.of(Kind::Pstree).map(|record| threads(record.message.numbers("threads").count())).sum();
    compare(scene.allowed.limits(), tasks, scene.bytes, findings);
}

/// The same for a peer that nothing else restricts: no record is looked at but those of the tree.
pub(in super::super) fn of_unrestricted(limits: Limits, images: &Images, findings: &mut Findings<'_>) -> Result<()> {
    let mut bytes = 0_u64;
    if limits.bytes.is_some() {
        for name in super::super::scene::names(images)? {
            // What cannot be read is CRIU's to complain about.
            let size = name.to_str().and_then(|name| images.size(name).ok());
            bytes = bytes.saturating_add(size.unwrap_or(0));
        }
    }
    let mut tasks = 0_u64;
    if limits.tasks.is_some() {
        tasks = images.tasks()?.iter().map(|task| task.threads.len().max(1) as u64).sum();
    }
    compare(limits, tasks, bytes, findings);
    Ok(())
}

fn compare(limits: Limits, tasks: u64, bytes: u64, findings: &mut Findings<'_>) {
    if let Some(limit) = limits.tasks.filter(|limit| tasks > *limit) {
        findings.refuse("pstree.img", Line::MaxTasks, format!("{tasks} tasks and threads are more than {limit}"));
    }
    if let Some(limit) = limits.bytes.filter(|limit| bytes > *limit) {
        findings.refuse("all images", Line::MaxBytes, format!("{bytes} bytes are more than {limit}"));
    }
}
