//! Terminals that a tree uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::process::{Descriptor, Extra, Kind, Task};
use crate::request::DumpSwitch;

use super::examine::{Examination, described, lacks, need};

/// What terminal a character device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Terminal {
    /// The master side of a pseudo-terminal.
    PtyMaster,
    /// The slave side, with its number.
    PtySlave(u32),
    /// A console, a virtual terminal, a serial line or /dev/tty.
    Other,
}

/// The terminal that a device number names, as CRIU's get_tty_driver has it. A serial line (4:64 and up) is none for it.
pub(super) fn terminal(device: u64) -> Option<Terminal> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    match (major, minor) {
        (5, 2) | (128..=135, _) => Some(Terminal::PtyMaster),
        (5, 0 | 1) | (4, 0..=63) | (188 | 204, _) => Some(Terminal::Other),
        (136, minor) => Some(Terminal::PtySlave(u32::try_from(minor).ok()?)),
        _ => None,
    }
}

/// The terminal that a descriptor refers to.
pub(super) fn terminal_of(descriptor: &Descriptor) -> Option<Terminal> {
    let status = descriptor.status.filter(|_| descriptor.kind == Kind::CharacterDevice)?;
    terminal(status.special_device)
}

pub(super) fn look(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let mut masters = BTreeSet::new();
    let mut slaves: BTreeMap<u32, (&Task, &Descriptor)> = BTreeMap::new();
    for task in &tree.tasks {
        for descriptor in &task.descriptors {
            match terminal_of(descriptor) {
                Some(Terminal::PtyMaster) => {
                    if let Extra::PtyMaster(index) = descriptor.extra {
                        masters.insert(index);
                    }
                }
                // A terminal that has been hung up shows as deleted, and no longer has another side.
                Some(Terminal::PtySlave(index)) if !descriptor.deleted => {
                    slaves.entry(index).or_insert((task, descriptor));
                }
                Some(_) => look_at_controlling(examination, task, descriptor),
                None => {}
            }
        }
    }
    let outside: Vec<_> = slaves.iter().filter(|(index, _)| !masters.contains(index)).collect();
    for (index, (task, descriptor)) in &outside {
        if lacks(examination.intent, DumpSwitch::ShellJob) {
            let why = || {
                format!(
                    "descriptor {} of {} is the terminal /dev/pts/{index}, whose window or login is outside the tree",
                    descriptor.fd,
                    described(task)
                )
            };
            need(&mut examination.needs.shell_job, task.pid(), why);
        }
    }
    if outside.len() > 1 {
        let names: Vec<String> = outside.iter().map(|(index, _)| format!("/dev/pts/{index}")).collect();
        let pid = outside[0].1.0.pid();
        examination.findings.will_not(
            "two-terminals",
            pid,
            format!("the tree uses {} terminals that belong to others: {}", names.len(), names.join(", ")),
            "CRIU can hand over one only: redirect or close the others",
        );
    }
    for (index, (task, _)) in slaves.iter().filter(|(index, _)| masters.contains(index)) {
        look_at_session(examination, task, *index);
    }
    look_for_slaves_elsewhere(examination, &masters, &slaves);
}

/// A terminal of the tree's own that controls a session led by somebody else.
fn look_at_session(examination: &mut Examination<'_>, task: &Task, index: u32) {
    let device = nix::sys::stat::makedev(136, u64::from(index));
    if u64::from(task.stat.tty) == device && !examination.tree.has(task.stat.sid) {
        dangling(examination, task, &format!("/dev/pts/{index}"));
    }
}

fn look_at_controlling(examination: &mut Examination<'_>, task: &Task, descriptor: &Descriptor) {
    if task.stat.tty != 0 && !examination.tree.has(task.stat.sid) {
        dangling(examination, task, &descriptor.path.display().to_string());
    }
}

fn dangling(examination: &mut Examination<'_>, task: &Task, path: &str) {
    if lacks(examination.intent, DumpSwitch::ShellJob) {
        need(&mut examination.needs.shell_job, task.pid(), || {
            format!(
                "{} uses the terminal {path} of session {}, which is led from outside the tree",
                described(task),
                task.stat.sid
            )
        });
    }
}

/// A master whose slave is open outside keeps its number taken, so that the restore cannot have it.
fn look_for_slaves_elsewhere(
    examination: &mut Examination<'_>,
    masters: &BTreeSet<u32>,
    slaves: &BTreeMap<u32, (&Task, &Descriptor)>,
) {
    for index in masters.iter().filter(|index| !slaves.contains_key(index)) {
        let holder = examination
            .tree
            .tasks
            .iter()
            .find(|task| task.descriptors.iter().any(|descriptor| descriptor.extra == Extra::PtyMaster(*index)));
        let Some(holder) = holder else { continue };
        let path = PathBuf::from(format!("/dev/pts/{index}"));
        if let Some(user) = examination.holders.of_path(&path).first().cloned() {
            let (path, user) = (path.display(), format!("process {} ({})", user.pid, user.comm));
            examination.findings.warn(
                "terminal-used-outside",
                holder.pid(),
                format!("{} has the terminal {path} open from the inside, and {user} outside the tree uses it", described(holder)),
                "the dump passes, but it cannot be restored while that process lives: dump a tree that has it too, or end it",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_name_the_terminals_that_criu_knows() {
        let table = [
            ((5, 2), Some(Terminal::PtyMaster)),
            ((5, 0), Some(Terminal::Other)),
            ((5, 1), Some(Terminal::Other)),
            ((5, 3), None),
            ((4, 1), Some(Terminal::Other)),
            ((4, 64), None),
            ((136, 7), Some(Terminal::PtySlave(7))),
            ((137, 7), None),
            ((204, 64), Some(Terminal::Other)),
            ((1, 3), None),
        ];
        for ((major, minor), expected) in table {
            assert_eq!(terminal(nix::sys::stat::makedev(major, minor)), expected, "{major}:{minor}");
        }
    }
}
