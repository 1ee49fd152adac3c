//! What is easier to see in single steps than in a search: the good case, a person's word, a full disk.

use super::*;

type SourceInput = InputOf<Source>;
type TargetInput = InputOf<Target>;

fn after<M: Machine>(machine: M, inputs: impl IntoIterator<Item = InputOf<M>>) -> (M, Vec<ActionOf<M>>) {
    let mut last = (machine, Vec::new());
    for input in inputs {
        let step = last.0.step(input);
        last = (step.next, step.actions);
    }
    last
}

fn done(operation: SourceOperation) -> SourceInput {
    Input::Done(operation)
}

fn waiting() -> Source {
    use SourceOperation as Op;
    let inputs = [
        done(Op::Examine),
        Input::Message(TargetMessage::Ready),
        done(Op::Dump),
        done(Op::Deliver),
        done(Op::Withdraw),
    ];
    let (source, actions) = after(Source::begin().next, inputs);
    assert_eq!((source.phase(), actions), (SourcePhase::Waiting, vec![Action::Send(SourceMessage::Go)]));
    source
}

fn committed() -> Source {
    let (source, actions) = after(waiting(), [Input::Message(TargetMessage::Prepared)]);
    // Written before it is said.
    assert_eq!(actions, [Action::Record(SourceRecord::Commit), Action::Send(SourceMessage::Commit)]);
    source
}

fn prepared() -> Target {
    use TargetOperation as Op;
    let mut inputs: Vec<TargetInput> =
        vec![Input::Message(SourceMessage::Offer), Input::Done(Op::Check), Input::Done(Op::Receive)];
    inputs.push(Input::Message(SourceMessage::Go));
    let order = [Op::Fence, Op::RaiseAddress, Op::Restore, Op::Freeze, Op::DismissGuard];
    inputs.extend(order.map(Input::Done));
    let (target, actions) = after(Target::idle(), inputs);
    assert_eq!(actions, [Action::Record(TargetRecord::Prepared), Action::Send(TargetMessage::Prepared)]);
    target
}

#[test]
fn a_commit_is_unfenced_answered_thawed_and_only_then_said_to_run() {
    use TargetOperation as Op;
    let mut step = prepared().step(Input::Message(SourceMessage::Commit));
    let mut performed = Vec::new();
    while let Some(Action::Perform(operation)) = step.actions.last().copied() {
        performed.push(operation);
        if operation == Op::Discard {
            break;
        }
        step = step.next.step(Input::Done(operation));
    }
    assert_eq!(performed, [Op::FindCopy, Op::Unfence, Op::Answer, Op::Thaw, Op::Announce, Op::Discard]);
    assert_eq!(step.actions[..2], [Action::Record(TargetRecord::Running), Action::Send(TargetMessage::Running)]);

    let (source, actions) = after(committed(), [Input::Message(TargetMessage::Running)]);
    assert_eq!(actions[0], Action::Record(SourceRecord::Done));
    assert_eq!(actions.last(), Some(&Action::Perform(SourceOperation::End)));
    let inputs = [done(SourceOperation::End), Input::Message(TargetMessage::Unknown)];
    let (source, actions) = after(source, inputs);
    assert_eq!((source.phase(), actions), (SourcePhase::Over(SourceOutcome::Migrated), vec![Action::Erase]));
}

#[test]
fn after_commit_nothing_but_the_target_or_a_person_ends_it() {
    let nothing = [
        Input::TimedOut,
        Input::Cancelled,
        Input::CriuGone,
        Input::LinkLost,
        Input::LinkUp,
        Input::Message(TargetMessage::Ready),
        Input::Message(TargetMessage::Aborted),
        Input::Message(TargetMessage::Unknown),
        Input::Message(TargetMessage::Lost),
        Input::Message(TargetMessage::Prepared),
    ];
    for (first, second) in nothing.iter().flat_map(|first| nothing.iter().map(move |second| (*first, *second))) {
        let (source, actions) = after(committed(), [first, second]);
        assert!(matches!(source.phase(), SourcePhase::Committed(_)), "{first:?}, {second:?}");
        assert!(!actions.iter().any(|action| matches!(action, Action::Perform(_) | Action::Record(_))));
        assert!(source.is_in_doubt());
    }
    for boot in [Boot::Same, Boot::Another] {
        let step = Source::restarted(SourceRecord::Commit, boot);
        assert_eq!((step.next.phase(), step.actions), (SourcePhase::Committed(Standing::Expected), Vec::new()));
    }
}

#[test]
fn a_person_is_obeyed_only_where_the_other_side_cannot_tell() {
    let abort = Input::Forced(Forced::Abort);
    let (source, actions) = after(committed(), [abort]);
    assert!(matches!(source.phase(), SourcePhase::Committed(_)));
    assert!(actions.contains(&Action::Report(Report::NotInDoubt)));
    for reason in [Input::LinkLost, Input::Message(TargetMessage::Lost), Input::Message(TargetMessage::Unknown)] {
        let (source, actions) = after(committed(), [reason, abort]);
        assert!(matches!(source.phase(), SourcePhase::Righting { .. }), "{reason:?}");
        assert!(actions.contains(&Action::Record(SourceRecord::Abort)));
    }

    let resume = Input::Forced(Forced::Resume);
    let (target, actions) = after(prepared(), [resume]);
    assert_eq!(target.phase(), TargetPhase::Prepared);
    assert!(actions.contains(&Action::Report(Report::NotInDoubt)));
    let (target, _) = after(prepared(), [Input::LinkLost, resume, Input::Done(TargetOperation::FindCopy)]);
    assert!(matches!(target.phase(), TargetPhase::Committing(..)));
    // The source's word, when it can be had after all, goes before a person's.
    let (target, _) = after(
        prepared(),
        [
            Input::LinkLost,
            resume,
            Input::LinkUp,
            Input::Message(SourceMessage::Abort),
            Input::Done(TargetOperation::FindCopy),
        ],
    );
    assert!(matches!(target.phase(), TargetPhase::Undoing { undo: Undo::Abort, .. }));
    // Given up by a person it is dead, and a source that has committed gets it back.
    let (target, actions) = after(prepared(), [Input::Forced(Forced::Abort)]);
    assert!(matches!(target.phase(), TargetPhase::Undoing { undo: Undo::Return, .. }));
    assert!(actions.contains(&Action::Record(TargetRecord::Returned)));
}

#[test]
fn a_source_that_finds_its_target_running_by_a_person_s_word_ends_its_own_copy() {
    let given_up = after(waiting(), [Input::Cancelled]).0;
    assert_eq!(given_up.phase(), SourcePhase::Stopping);
    for source in [waiting(), given_up] {
        let (source, actions) = after(source, [Input::Message(TargetMessage::Running)]);
        assert!(matches!(source.phase(), SourcePhase::Ending(_)));
        assert_eq!(actions[0], Action::Record(SourceRecord::Done));
    }
    // Where it runs already, a person has to know.
    let (_, actions) = after(
        Source::restarted(SourceRecord::Resumed, Boot::Same).next,
        [Input::LinkUp, Input::Message(TargetMessage::Running)],
    );
    assert_eq!(actions, [Action::Report(Report::Conflict)]);
}

#[test]
fn a_commit_that_cannot_be_written_is_an_abort_and_is_not_said() {
    let step = waiting().unwritten(Some(SourceRecord::Commit));
    assert_eq!(step.next.phase(), SourcePhase::Stopping);
    assert!(!step.actions.contains(&Action::Send(SourceMessage::Commit)));
    let step = waiting().unwritten(Some(SourceRecord::Done));
    assert_eq!(step.next.phase(), SourcePhase::Waiting);
    let step = committed().unwritten(Some(SourceRecord::Abort));
    assert!(matches!(step.next.phase(), SourcePhase::Committed(_)));
}

#[test]
fn a_target_whose_abort_cannot_be_written_does_not_say_that_it_has_aborted() {
    let target = prepared();
    let step = target.unwritten(Some(TargetRecord::Aborting));
    assert_eq!((step.next, step.actions), (target, vec![Action::Report(Report::Unwritten)]));
}

#[test]
fn a_tree_that_runs_is_free_for_another_migration_and_no_other_is() {
    use SourceRecord as S;
    use TargetRecord as T;
    for record in [S::Intent, S::Held, S::Abort, S::Commit, S::Done] {
        assert!(record.touches_tree(), "{record:?}");
    }
    for record in [T::Receiving, T::Restoring, T::Prepared, T::Committed, T::Aborting, T::Returned, T::Lost] {
        assert!(record.touches_tree(), "{record:?}");
    }
    assert!(!S::Resumed.touches_tree() && !S::Ended.touches_tree() && !T::Running.touches_tree());
}

#[test]
fn what_is_waited_for_and_what_is_done_agree() {
    for phase in [waiting(), committed(), Source::begin().next, Source::forgotten()] {
        assert_eq!(phase.operation().is_some(), phase.waits() == Wait::Operation, "{phase:?}");
    }
    assert_eq!(waiting().waits(), Wait::Answer);
    assert_eq!(committed().waits(), Wait::Repeat);
    assert_eq!(prepared().waits(), Wait::Repeat);
    assert_eq!(Source::begin().next.operation(), Some(SourceOperation::Examine));
}
