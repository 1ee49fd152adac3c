//! Sessions and process groups whose leaders are outside the tree.

use std::path::PathBuf;

use crate::process::{Task, Tree};
use crate::request::DumpSwitch;

use super::examine::{Examination, described, lacks, need};

/// Whether the root of the tree leads its session: CRIU restores such a tree without any terminal or shell.
pub(super) fn root_leads_its_session(tree: &Tree) -> bool {
    let root = tree.root();
    // Inside a PID namespace of its own the root may lead a session that has another number out here.
    match (root.status.namespace_pids.last(), root.status.namespace_sids.last()) {
        (Some(pid), Some(sid)) => pid == sid,
        _ => root.stat.sid == root.pid(),
    }
}

pub(super) fn look(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let root = tree.root();
    let leads = root_leads_its_session(tree);
    if !leads && lacks(examination.intent, DumpSwitch::ShellJob) {
        need(&mut examination.needs.shell_job, root.pid(), || {
            format!(
                "{} was started from a shell: its session {} is led by {} outside the tree",
                described(root),
                root.stat.sid,
                outsider(root.stat.sid)
            )
        });
    }
    for task in &tree.tasks {
        if task.status.namespace_sids.last() == Some(&0) {
            examination.findings.will_not(
                "session-outside-pid-namespace",
                task.pid(),
                format!("{} belongs to a session whose leader is outside its PID namespace", described(task)),
                "start the root of the PID namespace in a session of its own (setsid)",
            );
            continue;
        }
        look_at_ids(examination, task, leads);
    }
}

/// A session or group that is neither the tree's nor (with `--shell-job`) the root's is made anew with its old number,
/// which cannot be while its leader lives.
fn look_at_ids(examination: &mut Examination<'_>, task: &Task, leads: bool) {
    let tree = examination.tree;
    let root = &tree.root().stat;
    if task.pid() == tree.root().pid() {
        return;
    }
    let session = task.stat.sid;
    let foreign_session = !tree.has(session) && (leads || session != root.sid);
    if foreign_session && is_taken(session) {
        examination.findings.warn(
            "session-of-another",
            task.pid(),
            format!("{} is in session {session}, led by {} outside the tree", described(task), outsider(session)),
            "the dump passes, but it can be restored only once that process is gone: dump a tree that has the session's leader",
        );
    }
    let group = task.stat.pgid;
    let foreign_group = !tree.has(group) && (leads || group != root.pgid) && group != session;
    if foreign_group && is_taken(group) {
        examination.findings.warn(
            "process-group-of-another",
            task.pid(),
            format!("{} is in process group {group}, led by {} outside the tree", described(task), outsider(group)),
            "the dump passes, but it can be restored only once that process is gone",
        );
    }
}

/// Whether a process or thread has that number now.
fn is_taken(pid: i32) -> bool {
    pid > 0 && PathBuf::from(format!("/proc/{pid}/stat")).exists()
}

/// The name of a process that is not of the tree.
pub(super) fn outsider(pid: i32) -> String {
    let text = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    match crate::process::Stat::parse(&text) {
        Some(stat) => format!("process {pid} ({})", stat.comm),
        None => format!("process {pid} (gone)"),
    }
}
