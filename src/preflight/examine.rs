//! The examination: every rule, applied to one tree.

use crate::Result;
use crate::process::{Family, Holders, Task, Tree};
use crate::request::DumpSwitch;

use super::circumstances::Circumstances;
use super::findings::Findings;
use super::intent::Intent;
use super::needs::{Need, Needs};
use super::report::{Choice, Connection, Finding, Level, Report, TaskSummary, TreeSummary, Verdict};
use super::{
    descriptors, files, locks, losses, memory, mounts, namespaces, outside, room, sessions, sockets, tasks, terminals,
};

/// An examination in progress.
pub(super) struct Examination<'a> {
    pub(super) tree: &'a Tree,
    pub(super) intent: &'a Intent,
    pub(super) circumstances: &'a Circumstances,
    /// Who outside has what of the tree's open.
    pub(super) holders: Holders,
    pub(super) findings: Findings,
    pub(super) needs: Needs,
    pub(super) connections: Vec<Connection>,
    /// Bytes of deleted files that go into the images.
    pub(super) ghost_bytes: u64,
}

/// Reads the tree below process `root` and predicts what CRIU would make of it.
///
/// Takes about 0.2 ms for each small process. Nothing is stopped or changed.
///
/// # Errors
/// [`Error::NoSuchProcess`](crate::Error::NoSuchProcess) when there is no process `root`.
pub fn examine(root: i32, intent: &Intent, circumstances: &Circumstances) -> Result<Report> {
    let mut report = examine_tree(&Tree::read(root)?, intent, circumstances);
    // A tree changes while it is read. What is refused must be seen more than once.
    for _ in 0..2 {
        if report.verdict != Verdict::WillNotWork {
            break;
        }
        report = examine_tree(&Tree::read(root)?, intent, circumstances);
    }
    Ok(report)
}

/// As [`examine`], of a tree that was read before.
pub fn examine_tree(tree: &Tree, intent: &Intent, circumstances: &Circumstances) -> Report {
    let mut examination = Examination {
        tree,
        intent,
        circumstances,
        holders: outside::holders(tree),
        findings: Findings::default(),
        needs: Needs::default(),
        connections: Vec::new(),
        ghost_bytes: 0,
    };
    intent.found.iter().for_each(|finding| examination.findings.put(finding.clone()));
    tasks::look(&mut examination);
    sessions::look(&mut examination);
    terminals::look(&mut examination);
    namespaces::look(&mut examination);
    mounts::look(&mut examination);
    descriptors::look(&mut examination);
    losses::look(&mut examination);
    locks::look(&mut examination);
    files::look(&mut examination);
    memory::look(&mut examination);
    sockets::look(&mut examination);
    outside::look(&mut examination);
    let (estimated_image_bytes, available_bytes) = room::look(&mut examination);
    examination.finish(estimated_image_bytes, available_bytes)
}

impl Examination<'_> {
    /// `comm` of a task of the tree.
    pub(super) fn name(&self, pid: i32) -> String {
        self.tree.task(pid).map_or_else(|| format!("process {pid}"), described)
    }

    fn finish(mut self, estimated_image_bytes: u64, available_bytes: Option<u64>) -> Report {
        self.turn_on();
        let findings = self.findings.finish();
        let verdict = verdict(&findings);
        let tree = self.tree;
        let summary = TreeSummary {
            root: tree.root().pid(),
            tasks: tree.tasks.iter().map(summary).collect(),
            threads: tree.tasks.iter().map(|task| task.threads.len() + 1).sum(),
            descriptors: tree.tasks.iter().map(|task| task.descriptors.len()).sum(),
            inet_sockets: tree.sockets.values().any(|socket| matches!(socket.family, Family::Inet | Family::Inet6)),
            other_network: tree
                .tasks
                .iter()
                .any(|task| task.namespaces.net != tree.own_namespaces.net && !task.is_zombie()),
            shell_job: !sessions::root_leads_its_session(tree),
        };
        Report {
            tree: summary,
            findings,
            needs: self.needs,
            connections: self.connections,
            estimated_image_bytes,
            available_bytes,
            verdict,
        }
    }

    /// Says what is turned on; under `--no-auto` it becomes the user's choice instead.
    fn turn_on(&mut self) {
        let mut list: Vec<(&'static str, Need, Vec<String>)> = Vec::new();
        let needs = &self.needs;
        let switches = needs.switches().map(|(need, switch)| (switch.word(), need));
        for (word, need) in switches.into_iter().chain([("tcp-close", &needs.tcp_close)]) {
            list.extend(need.clone().map(|need| (word, need, vec![format!("--{word}")])));
        }
        if let Some((bytes, need)) = &needs.ghost_limit {
            list.push(("ghost-limit", need.clone(), vec!["--ghost-limit".into(), bytes.to_string()]));
        }
        if let Some(need) = &needs.network_lock_nftables {
            list.push(("network-lock", need.clone(), vec!["--network-lock".into(), "nftables".into()]));
        }
        for (name, need) in &needs.external {
            list.push(("external", need.clone(), vec!["--external".into(), name.clone()]));
        }
        for (id, need, arguments) in list {
            if self.intent.automatic {
                let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
                self.findings.turned_on(id, &need, &words);
            } else {
                let pid = need.pids.first().copied().unwrap_or(0);
                let cure = format!("add {}", arguments.join(" "));
                let choice = Choice { arguments, consequence: "the dump goes through, and so does the restore".into() };
                self.findings.choose(id, pid, need.why, &cure, vec![choice]);
            }
        }
        if !self.intent.automatic {
            self.needs = Needs::default();
        }
    }
}

/// Adds a task to a need, or begins it.
pub(super) fn need(slot: &mut Option<Need>, pid: i32, why: impl FnOnce() -> String) {
    match slot {
        Some(need) => {
            if need.pids.len() < 100 && !need.pids.contains(&pid) {
                need.pids.push(pid);
            }
        }
        None => *slot = Some(Need { pids: vec![pid], why: why() }),
    }
}

/// Whether a switch is still to be turned on.
pub(super) fn lacks(intent: &Intent, switch: DumpSwitch) -> bool {
    !intent.has(switch)
}

/// `812 (comm)`.
pub(super) fn described(task: &Task) -> String {
    format!("process {} ({})", task.pid(), task.stat.comm)
}

fn summary(task: &Task) -> TaskSummary {
    TaskSummary {
        pid: task.pid(),
        ppid: task.stat.ppid,
        comm: task.stat.comm.clone(),
        state: task.stat.state,
        threads: task.threads.len() + 1,
        start_time_ticks: task.stat.start_time_ticks,
    }
}

fn verdict(findings: &[Finding]) -> Verdict {
    match findings.iter().map(|finding| finding.level).min() {
        Some(Level::WillNotWork) => Verdict::WillNotWork,
        Some(Level::NeedsChoice) => Verdict::NeedsChoice,
        _ => Verdict::Works,
    }
}
