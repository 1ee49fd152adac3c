//! The result of a preflight.

use serde::Serialize;

use crate::request::DumpOptions;

use super::needs::Needs;

/// What a finding means for the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// CRIU would refuse, and no option helps.
    WillNotWork,
    /// CRIU would refuse without an option that only the user can choose: see [`Finding::choices`].
    NeedsChoice,
    /// CRIU would refuse without an option that crr gives by itself.
    TurnsOn,
    /// The dump passes, but its restore cannot, or something is lost without a word.
    Warning,
    /// Something to know.
    Note,
}

/// One way out of a [`Level::NeedsChoice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The words to add to the command line.
    pub arguments: Vec<String>,
    /// What follows from it.
    pub consequence: String,
}

/// Something about the tree that a dump depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A name for scripts, which stays the same from release to release.
    pub id: &'static str,
    /// What it means.
    pub level: Level,
    /// The tasks concerned.
    pub pids: Vec<i32>,
    /// What was found, with its values. Names are as they are on the machine: to be escaped where they are printed.
    pub what: String,
    /// What to do about it; empty where nothing needs doing.
    pub cure: String,
    /// The option that crr turns on ([`Level::TurnsOn`]), as words of a command line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub turns_on: Vec<String>,
    /// The ways out ([`Level::NeedsChoice`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
}

/// What is to be expected of the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It works, with the options in [`Report::needs`].
    Works,
    /// It works once the user has chosen.
    NeedsChoice,
    /// It does not.
    WillNotWork,
}

/// A TCP connection or a socket that is connected in another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// A task that has it.
    pub pid: i32,
    /// The descriptor there.
    pub fd: i32,
    /// `tcp`, or `tcp6`.
    pub protocol: &'static str,
    /// The state, as `ss` names it.
    pub state: &'static str,
    /// The address here.
    pub local: String,
    /// The address there.
    pub peer: String,
    /// Whether the other end is a socket of the tree as well.
    pub within_tree: bool,
}

/// A task, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskSummary {
    /// Its PID.
    pub pid: i32,
    /// Its parent.
    pub ppid: i32,
    /// Its name, to be escaped where it is printed.
    pub comm: String,
    /// The letter of its state.
    pub state: char,
    /// How many threads it has.
    pub threads: usize,
    /// When it began, in clock ticks since boot.
    pub start_time_ticks: u64,
}

/// The tree, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TreeSummary {
    /// The PID of the root.
    pub root: i32,
    /// The tasks, parents before children.
    pub tasks: Vec<TaskSummary>,
    /// How many threads there are in all.
    pub threads: usize,
    /// How many open descriptors.
    pub descriptors: usize,
    /// Whether it has TCP, UDP or raw sockets, which not every CRIU can dump on every kernel.
    pub inet_sockets: bool,
    /// Whether a task is in another network namespace than crr.
    pub other_network: bool,
    /// Whether the tree's session leader is outside of it: it is a job of a shell.
    pub shell_job: bool,
}

/// What a preflight found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The tree, in short.
    pub tree: TreeSummary,
    /// What was found, the gravest first.
    pub findings: Vec<Finding>,
    /// The options that a dump needs, and why.
    pub needs: Needs,
    /// The TCP connections.
    pub connections: Vec<Connection>,
    /// How large the images will be, roughly: the memory that is in use now, and the deleted files.
    pub estimated_image_bytes: u64,
    /// The space where they go, where that is known.
    pub available_bytes: Option<u64>,
    /// What is to be expected.
    pub verdict: Verdict,
}

impl Report {
    /// Turns on in `options` what the dump needs and crr gives by itself. What is there already stays.
    pub fn apply(&self, options: &mut DumpOptions) {
        self.needs.apply(options);
    }

    /// The findings of a level.
    pub fn at(&self, level: Level) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.level == level)
    }
}
