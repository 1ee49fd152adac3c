//! Wrong rules, each of which must be found: a check that finds nothing wrong with them would find nothing wrong with anything.

use crr::migrate::machine::{
    Action, Boot, Input, InputOf, Machine, Source, SourceMessage, SourceOperation, SourcePhase, SourceRecord, Step,
    Target, TargetMessage, TargetOperation, TargetPhase, TargetRecord,
};

use crate::rules::{Rules, SHIPPED};
use crate::state::Budget;

/// A wrong rule.
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    pub(crate) rules: Rules,
    /// Enough for it to be found.
    pub(crate) budget: Budget,
    /// What the check says.
    pub(crate) property: &'static str,
}

const STUCK: &str = "without further faults no end is reached";
/// What comes just before two copies run.
const ADDRESS: &str = "both hosts have the address, and no fence";

pub(crate) fn mutants() -> Vec<Mutant> {
    let crash = Budget { crashes: 1, ..Budget::NONE };
    let cut = Budget { cuts: 1, ..Budget::NONE };
    let mutant = |name, rules, budget, property| Mutant { name, rules, budget, property };
    vec![
        mutant(
            "a_source_in_commit_thaws_on_a_time_out",
            Rules { source: thaws_after_commit, ..SHIPPED },
            Budget::NONE,
            "a source in COMMIT",
        ),
        mutant(
            "a_source_that_is_restarted_in_commit_aborts",
            Rules { source_restarted: forgets_commit, ..SHIPPED },
            crash,
            "a source in COMMIT",
        ),
        mutant("commit_is_said_before_it_is_written", Rules { source: says_before_writing, ..SHIPPED }, crash, ADDRESS),
        mutant("prepared_is_said_before_it_is_written", Rules { target: says_prepared_early, ..SHIPPED }, crash, STUCK),
        mutant(
            "the_source_ends_its_copy_with_commit",
            Rules { source: ends_early, ..SHIPPED },
            Budget::NONE,
            "the source kills",
        ),
        mutant("a_prepared_target_runs_alone", Rules { target: runs_alone, ..SHIPPED }, Budget::NONE, ADDRESS),
        mutant("a_prepared_target_gives_up_alone", Rules { target: gives_up_alone, ..SHIPPED }, Budget::NONE, STUCK),
        mutant(
            "criu_is_answered_before_the_fence_is_down",
            Rules { target_does: answers_first, ..SHIPPED },
            Budget::NONE,
            "CRIU is answered before",
        ),
        mutant(
            "the_copy_is_thawed_behind_the_fence",
            Rules { target_does: thaws_first, ..SHIPPED },
            Budget::NONE,
            "a copy runs behind a fence",
        ),
        mutant(
            "the_fence_is_taken_down_before_the_address",
            Rules { target_does: unfences_first, ..SHIPPED },
            Budget::NONE,
            ADDRESS,
        ),
        mutant("no_guard_is_posted", Rules { guard: false, ..SHIPPED }, crash, "nobody is there to kill it"),
        mutant(
            "the_source_is_thawed_before_the_target_says_that_its_copy_is_dead",
            Rules { source: hurries, ..SHIPPED },
            Budget { criu: 1, ..Budget::NONE },
            "the source is thawed while",
        ),
        mutant("a_target_forgets_before_it_is_told_to", Rules { target: forgets_early, ..SHIPPED }, cut, STUCK),
        mutant(
            "a_copy_that_was_killed_is_committed",
            Rules { target: looks_away, ..SHIPPED },
            Budget { kills: 1, ..Budget::NONE },
            STUCK,
        ),
        mutant("an_aborted_source_does_not_tell", Rules { source: does_not_tell, ..SHIPPED }, cut, STUCK),
        mutant("a_source_without_a_record_says_commit", Rules { source: commits_unknown, ..SHIPPED }, cut, ADDRESS),
    ]
}

fn thaws_after_commit(source: &Source, input: InputOf<Source>) -> Step<Source> {
    match (source.phase(), input) {
        (SourcePhase::Committed(_), Input::TimedOut) => {
            let step = Source::restarted(SourceRecord::Held, Boot::Same);
            Step { next: step.next, actions: step.actions }
        }
        _ => source.step(input),
    }
}

fn forgets_commit(record: SourceRecord, boot: Boot) -> Step<Source> {
    match record {
        SourceRecord::Commit => Source::restarted(SourceRecord::Held, boot),
        record => Source::restarted(record, boot),
    }
}

fn says_before_writing(source: &Source, input: InputOf<Source>) -> Step<Source> {
    let mut step = source.step(input);
    if step.actions.first() == Some(&Action::Record(SourceRecord::Commit)) {
        step.actions.swap(0, 1);
    }
    step
}

fn says_prepared_early(target: &Target, input: InputOf<Target>) -> Step<Target> {
    let mut step = target.step(input);
    if step.actions.first() == Some(&Action::Record(TargetRecord::Prepared)) {
        step.actions.swap(0, 1);
    }
    step
}

fn ends_early(source: &Source, input: InputOf<Source>) -> Step<Source> {
    let step = source.step(input);
    match step.actions.first() {
        Some(Action::Record(SourceRecord::Commit)) => {
            let done = Source::restarted(SourceRecord::Done, Boot::Same);
            Step {
                next: done.next,
                actions: vec![
                    Action::Record(SourceRecord::Done),
                    Action::Send(SourceMessage::Commit),
                    Action::Perform(SourceOperation::End),
                ],
            }
        }
        _ => step,
    }
}

fn runs_alone(target: &Target, input: InputOf<Target>) -> Step<Target> {
    match (target.phase(), input) {
        (TargetPhase::Prepared, Input::TimedOut) => target.step(Input::Message(SourceMessage::Commit)),
        _ => target.step(input),
    }
}

fn gives_up_alone(target: &Target, input: InputOf<Target>) -> Step<Target> {
    match (target.phase(), input) {
        (TargetPhase::Prepared, Input::TimedOut) => target.step(Input::Message(SourceMessage::Abort)),
        _ => target.step(input),
    }
}

/// Does one where the other is asked for.
fn exchanged(operation: TargetOperation, one: TargetOperation, other: TargetOperation) -> TargetOperation {
    match operation {
        operation if operation == one => other,
        operation if operation == other => one,
        operation => operation,
    }
}

fn answers_first(operation: TargetOperation) -> TargetOperation {
    exchanged(operation, TargetOperation::Unfence, TargetOperation::Answer)
}

fn thaws_first(operation: TargetOperation) -> TargetOperation {
    exchanged(operation, TargetOperation::Unfence, TargetOperation::Thaw)
}

fn unfences_first(operation: TargetOperation) -> TargetOperation {
    exchanged(operation, TargetOperation::Unfence, TargetOperation::DropAddress)
}

fn hurries(source: &Source, input: InputOf<Source>) -> Step<Source> {
    let step = source.step(input);
    match step.next.phase() {
        // As if the link were cut.
        SourcePhase::Stopping => {
            let next = step.next.step(Input::LinkLost);
            let mut actions = step.actions;
            actions.extend(next.actions);
            Step { next: next.next, actions }
        }
        _ => step,
    }
}

fn forgets_early(target: &Target, input: InputOf<Target>) -> Step<Target> {
    let step = target.step(input);
    match (target.phase(), input) {
        (TargetPhase::Running { .. }, Input::Done(TargetOperation::Discard)) => {
            step.next.step(Input::Message(SourceMessage::Forget))
        }
        _ => step,
    }
}

fn looks_away(target: &Target, input: InputOf<Target>) -> Step<Target> {
    match input {
        Input::Failed(TargetOperation::FindCopy) => target.step(Input::Done(TargetOperation::FindCopy)),
        input => target.step(input),
    }
}

fn does_not_tell(source: &Source, input: InputOf<Source>) -> Step<Source> {
    let step = source.step(input);
    match step.next.phase() {
        SourcePhase::Telling if !step.actions.is_empty() => {
            let mut heard = step.next.step(Input::Message(TargetMessage::Aborted));
            heard.actions.insert(0, Action::Record(SourceRecord::Resumed));
            heard
        }
        _ => step,
    }
}

fn commits_unknown(source: &Source, input: InputOf<Source>) -> Step<Source> {
    let mut step = source.step(input);
    let aborted = matches!(source.phase(), SourcePhase::Telling | SourcePhase::Righting { .. } | SourcePhase::Over(_));
    if aborted && input == Input::Message(TargetMessage::Prepared) {
        step.actions = vec![Action::Send(SourceMessage::Commit)];
    }
    step
}
