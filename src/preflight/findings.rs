//! Collecting findings: the same thing of many tasks is one finding.

use std::collections::HashMap;

use super::needs::Need;
use super::report::{Choice, Finding, Level};

/// How many findings of one kind are listed; a tree of 2,000 equal tasks must not make a report of megabytes.
const SAME_KIND_LIMIT: usize = 40;
/// How many PIDs one finding lists.
const PID_LIMIT: usize = 100;

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    index: HashMap<(&'static str, String), usize>,
    of_kind: HashMap<&'static str, usize>,
}

impl Findings {
    pub(super) fn add(&mut self, level: Level, id: &'static str, pid: i32, what: String, cure: &str) {
        self.put(Finding {
            id,
            level,
            pids: vec![pid],
            what,
            cure: cure.to_owned(),
            turns_on: Vec::new(),
            choices: Vec::new(),
        });
    }

    pub(super) fn will_not(&mut self, id: &'static str, pid: i32, what: String, cure: &str) {
        self.add(Level::WillNotWork, id, pid, what, cure);
    }

    pub(super) fn warn(&mut self, id: &'static str, pid: i32, what: String, cure: &str) {
        self.add(Level::Warning, id, pid, what, cure);
    }

    pub(super) fn note(&mut self, id: &'static str, pid: i32, what: String, cure: &str) {
        self.add(Level::Note, id, pid, what, cure);
    }

    pub(super) fn choose(&mut self, id: &'static str, pid: i32, what: String, cure: &str, choices: Vec<Choice>) {
        self.put(Finding {
            id,
            level: Level::NeedsChoice,
            pids: vec![pid],
            what,
            cure: cure.to_owned(),
            turns_on: Vec::new(),
            choices,
        });
    }

    pub(super) fn put(&mut self, finding: Finding) {
        let key = (finding.id, finding.what.clone());
        if let Some(index) = self.index.get(&key) {
            let pids = &mut self.list[*index].pids;
            if pids.len() < PID_LIMIT && pids.last() != finding.pids.last() {
                pids.extend(finding.pids);
            }
            return;
        }
        let count = self.of_kind.entry(finding.id).or_default();
        *count += 1;
        if *count <= SAME_KIND_LIMIT {
            self.index.insert(key, self.list.len());
            self.list.push(finding);
        }
    }

    /// The findings, the gravest first and otherwise in the order they were made; then how many of each kind were left out.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        for (id, count) in self.of_kind {
            if count > SAME_KIND_LIMIT {
                let level = self.list.iter().filter(|finding| finding.id == id).map(|finding| finding.level).min();
                let what = format!("{} more of `{id}` are not listed", count - SAME_KIND_LIMIT);
                let cure = String::new();
                let level = if level == Some(Level::NeedsChoice) { Level::Note } else { level.unwrap_or(Level::Note) };
                let (pids, turns_on, choices) = (Vec::new(), Vec::new(), Vec::new());
                self.list.push(Finding { id, level, pids, what, cure, turns_on, choices });
            }
        }
        self.list.sort_by_key(|finding| finding.level);
        self.list
    }

    /// Adds the finding that goes with an option which crr turns on.
    pub(super) fn turned_on(&mut self, id: &'static str, need: &Need, arguments: &[&str]) {
        self.put(Finding {
            id,
            level: Level::TurnsOn,
            pids: need.pids.clone(),
            what: need.why.clone(),
            cure: String::new(),
            turns_on: arguments.iter().map(|&word| word.to_owned()).collect(),
            choices: Vec::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_of_many_tasks_is_one_finding() {
        let mut findings = Findings::default();
        for pid in [7, 7, 8] {
            findings.warn("cpu", pid, "bound to CPU 1".into(), "bind it again");
        }
        findings.will_not("io-uring", 9, "io_uring".into(), "");
        let list = findings.finish();
        let short: Vec<_> = list.iter().map(|finding| (finding.id, finding.pids.as_slice())).collect();
        assert_eq!(short, [("io-uring", [9].as_slice()), ("cpu", [7, 8].as_slice())]);
    }

    #[test]
    fn a_kind_without_end_is_cut_and_counted() {
        let mut findings = Findings::default();
        for pid in 0..1000 {
            findings.will_not("io-uring", pid, format!("descriptor {pid}"), "");
        }
        let list = findings.finish();
        assert_eq!(list.len(), SAME_KIND_LIMIT + 1);
        assert_eq!(list[SAME_KIND_LIMIT].what, "960 more of `io-uring` are not listed");
        assert_eq!(list[SAME_KIND_LIMIT].level, Level::WillNotWork);
    }
}
