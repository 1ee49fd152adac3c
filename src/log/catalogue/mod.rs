//! What CRIU's error texts mean: one entry per text, by subject.
//!
//! Patterns are CRIU's format strings (a test looks each up in the installed CRIU), never line numbers of its source.
//! Numbers are crr's own, and stay: an entry that falls away leaves a gap.

mod files;
mod host;
mod images;
mod memory;
mod mounts;
mod sockets;
mod tasks;
mod terminal;

use serde::Serialize;

/// Whether a text names the cause, or what a cause led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// It names the cause, wherever in the log it stands.
    Cause,
    /// It is what several causes lead to: it counts only where no other error precedes it.
    Symptom,
}

/// An error text of CRIU's, what it means and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// The entry's number. Texts with one cause in common share it.
    pub number: u16,
    /// A short name that does not change, such as `ghost-limit`.
    pub id: &'static str,
    /// How far it is to be believed.
    pub rank: Rank,
    /// CRIU's texts, with a `{name}` in place of each value.
    pub patterns: &'static [&'static str],
    /// What happened, with `{name}` where a value of the line belongs.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

impl Entry {
    /// Whether one of the entry's texts is in `line`.
    pub fn occurs_in(&self, line: &str) -> bool {
        self.patterns.iter().any(|pattern| super::pattern::find(pattern, line).is_some())
    }
}

const fn cause(
    number: u16,
    id: &'static str,
    patterns: &'static [&'static str],
    cause: &'static str,
    cure: &'static str,
) -> Entry {
    Entry { number, id, rank: Rank::Cause, patterns, cause, cure }
}

const fn symptom(
    number: u16,
    id: &'static str,
    patterns: &'static [&'static str],
    cause: &'static str,
    cure: &'static str,
) -> Entry {
    Entry { number, id, rank: Rank::Symptom, patterns, cause, cure }
}

/// The whole catalogue.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    [
        terminal::ENTRIES,
        sockets::ENTRIES,
        files::ENTRIES,
        images::ENTRIES,
        tasks::ENTRIES,
        memory::ENTRIES,
        mounts::ENTRIES,
        host::ENTRIES,
    ]
    .into_iter()
    .flatten()
}

/// Errors that CRIU logs and goes on: operations that logged them have succeeded.
pub(super) const HARMLESS: &[&str] = &["rlimit: Can't setup RLIMIT_NOFILE for self"];

/// Errors of CRIU's start, where it tries out what it may do to the network, and goes on. Where the operation failed and
/// there is no other error, they may be what it failed of.
pub(super) const DOUBTFUL: &[&str] = &[
    "-1 reported by netlink: Operation not permitted",
    "net: Unable to create a veth pair: -1",
    "net: Unexpected error: -1(Operation not permitted)",
];

/// Errors that say that something failed and not what.
pub(super) const GENERIC: &[&str] = &[
    "Dumping FAILED.",
    "Pre-dumping FAILED.",
    "Restoring FAILED.",
    "Lazy pages transfer FAILED.",
    "Dump {what} (pid: {pid#}) failed with {status#}",
    "Collect {what} (pid: {pid#}) failed with {status#}",
    "Dump files (pid: {pid#}) failed with {status#}",
    "{pid#} exited, status={status#}",
    "exited, status={status#}",
    "Restorer fail {pid#}",
    // CRIU kills what it has restored so far.
    "killed by signal 9: Killed",
];

/// The generic lines that end the log of a failed operation.
pub(super) const FAILED: &[&str] = &["Dumping FAILED.", "Pre-dumping FAILED.", "Restoring FAILED."];

/// How the line begins that CRIU writes when an operation has succeeded.
pub(super) const FINISHED: &[&str] =
    &["Dumping finished successfully", "Pre-dumping finished successfully", "Restore finished successfully"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::log::pattern;

    #[test]
    fn every_number_has_an_entry_and_every_id_is_one_of_a_kind() {
        let numbers: BTreeSet<u16> = entries().map(|entry| entry.number).collect();
        let last = *numbers.last().unwrap();
        assert!(last >= 65);
        assert_eq!(numbers, (1..=last).collect());
        let ids: BTreeSet<&str> = entries().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), entries().count());
        for id in ids {
            assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{id}");
        }
    }

    #[test]
    fn every_value_in_cause_and_cure_is_caught_by_all_patterns_that_may_match() {
        for entry in entries() {
            for name in [pattern::holes(entry.cause), pattern::holes(entry.cure)].concat() {
                for text in entry.patterns {
                    assert!(pattern::holes(text).contains(&name), "{}: {{{name}}} is not in {text:?}", entry.id);
                }
            }
        }
    }

    #[test]
    fn no_pattern_is_so_short_or_so_precise_that_it_misleads() {
        for entry in entries() {
            assert!(!entry.patterns.is_empty(), "{}", entry.id);
            for text in entry.patterns {
                assert!(text.len() >= 12, "{}: {text:?} matches too much", entry.id);
                assert!(
                    !text.contains(".c:") || text.contains(".c:{line#}"),
                    "{}: a line number in {text:?}",
                    entry.id
                );
            }
            assert!(entry.cause.ends_with('.') && !entry.cure.is_empty(), "{}", entry.id);
        }
    }
}
