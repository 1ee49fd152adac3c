//! The side that will have the tree.

use serde::{Deserialize, Serialize};

use super::source::SourceMessage;
use super::{Action, Attempt, Boot, Course, Forced, Input, Link, Machine, Record, Report, Step, Wait, Why, Word};

use self::TargetOperation as Op;
use self::TargetPhase as Phase;

/// The target of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    phase: TargetPhase,
    link: Link,
}

/// Where a target is: see the table in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetPhase {
    /// Nothing is known here of such a migration.
    Idle,
    /// Pre-restore: whether the tree can live here.
    Checking(Course),
    /// Checkpoint: images come in.
    Receiving(Course),
    /// They are complete.
    Received,
    /// Restore: what is being done, behind the fence.
    Restoring(TargetOperation, Course),
    /// Frozen and fenced; the source decides.
    Prepared,
    /// The decision is there: is the copy?
    Verifying(Course),
    /// The copy is let go: what is being done, and how it stands.
    Committing(TargetOperation, Attempt),
    /// It runs; the images are removed, and the source is to hear of it.
    Running {
        /// How the removal stands.
        discard: Attempt,
        /// Whether the source has heard.
        source: Word,
    },
    /// All is taken away again.
    Undoing {
        /// What is being done.
        operation: TargetOperation,
        /// How it stands.
        attempt: Attempt,
        /// What is on disk and will be said.
        undo: Undo,
    },
    /// The copy is dead without having run; the source is to hear of it.
    Returned,
    /// The copy went down with its host; the source is to hear of it.
    Lost,
    /// Nothing is left to be done.
    Over(TargetOutcome),
}

/// Why a target takes everything away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undo {
    /// The migration is given up.
    Abort,
    /// The copy is dead; the source may have committed.
    Return,
    /// The copy went down with this host after it was committed.
    Lose,
}

/// How a migration ended for its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetOutcome {
    /// The tree runs here.
    Runs,
    /// The tree cannot live here.
    Refused,
    /// The tree runs on the source.
    Aborted,
    /// The tree went down with this host.
    Lost,
}

/// What a target writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetRecord {
    /// Images are about to come in.
    Receiving,
    /// Fence, address and copy are about to be made.
    Restoring,
    /// The copy is frozen and fenced.
    Prepared,
    /// The source has decided: the copy is let go.
    Committed,
    /// It runs.
    Running,
    /// Given up: all is taken away.
    Aborting,
    /// The copy was dead before it was let go, and will never run.
    Returned,
    /// The copy was committed and went down with this host.
    Lost,
}

/// What a target says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetMessage {
    /// The tree can live here. With what is wanted.
    Ready,
    /// It cannot. With every reason.
    Refused,
    /// The copy is frozen and fenced: decide.
    Prepared,
    /// It runs.
    Running,
    /// There is no copy, nor will there be one. With the reason.
    Aborted,
    /// The copy died before it was let go and will never run. With the reason.
    Returned,
    /// The committed copy went down with its host.
    Lost,
    /// There is no record of this migration here, or not any more.
    Unknown,
}

/// What a target has done on its host. All of it can be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetOperation {
    /// Look whether the tree can live here.
    Check,
    /// Take in images and files. Done, before the last acknowledgement is sent: everything is there.
    Receive,
    /// Put up the fence.
    Fence,
    /// Put the address on, without announcing it.
    RaiseAddress,
    /// Post the guard, then let CRIU restore up to `pre-resume`.
    Restore,
    /// Freeze the copy in a cgroup of ours. Failed also if CRIU is gone: the copy may have run.
    Freeze,
    /// Tell the guard that it is not needed any more.
    DismissGuard,
    /// See that every task of the frozen copy is there and has no SIGKILL pending. Failed: it is surely dead or incomplete.
    FindCopy,
    /// Take the fence down.
    Unfence,
    /// Answer CRIU, where it lives.
    Answer,
    /// Let the copy run, in its own cgroups.
    Thaw,
    /// Announce the address.
    Announce,
    /// Kill the copy, if there is one, silently: repair mode first, then SIGKILL, then thaw.
    Destroy,
    /// Take the address off.
    DropAddress,
    /// Stop receiving and remove images and directory.
    Discard,
}

impl Record for TargetRecord {
    fn touches_tree(&self) -> bool {
        !matches!(self, Self::Running)
    }
}

type TargetStep = Step<Target>;
type TargetAction = Action<TargetRecord, TargetMessage, TargetOperation>;

impl Target {
    /// What answers for a migration that has no record on this host, and takes an offer.
    pub fn idle() -> Self {
        Self::at(Phase::Idle, Link::Up)
    }

    /// Goes on from a record that another process has left, without a link so far.
    pub fn restarted(record: TargetRecord, boot: Boot) -> TargetStep {
        let quiet = |phase| Step::new(Self::at(phase, Link::Down), []);
        let anew = |undo: Undo, write: bool| {
            let mut actions = Vec::new();
            if write {
                actions.extend([Action::Explain(Why::Restarted), Action::Record(undo.record())]);
            }
            actions.push(Action::Perform(Op::Destroy));
            Step::new(Self::at(undoing(undo), Link::Down), actions)
        };
        match (record, boot) {
            (TargetRecord::Receiving | TargetRecord::Restoring, _) => anew(Undo::Abort, true),
            (TargetRecord::Aborting, _) => anew(Undo::Abort, false),
            (TargetRecord::Prepared, Boot::Same) => quiet(Phase::Prepared),
            (TargetRecord::Prepared, Boot::Another) => anew(Undo::Return, true),
            (TargetRecord::Committed, Boot::Same) => Step::new(
                Self::at(Phase::Committing(Op::Unfence, Attempt::UnderWay), Link::Down),
                [Action::Perform(Op::Unfence)],
            ),
            (TargetRecord::Running, Boot::Same) => {
                Step::new(Self::at(RUNNING, Link::Down), [Action::Perform(Op::Discard)])
            }
            (TargetRecord::Committed | TargetRecord::Running, Boot::Another) => anew(Undo::Lose, true),
            (TargetRecord::Returned, _) => anew(Undo::Return, false),
            (TargetRecord::Lost, _) => anew(Undo::Lose, false),
        }
    }

    /// Where it is.
    pub fn phase(&self) -> TargetPhase {
        self.phase
    }

    fn at(phase: TargetPhase, link: Link) -> Self {
        Self { phase, link }
    }

    fn to(&self, phase: TargetPhase, actions: impl Into<Vec<TargetAction>>) -> TargetStep {
        Step::new(Self { phase, ..*self }, actions)
    }

    fn stay(&self, actions: impl Into<Vec<TargetAction>>) -> TargetStep {
        Step::new(*self, actions)
    }

    fn say(&self, message: TargetMessage) -> TargetStep {
        self.stay([Action::Send(message)])
    }

    fn undo(&self, why: Why<Op>, undo: Undo) -> TargetStep {
        let actions = [Action::Explain(why), Action::Record(undo.record()), Action::Perform(Op::Destroy)];
        self.to(undoing(undo), actions)
    }

    /// Of a migration that is not known here, or not any more.
    fn unknown(&self, input: Input<SourceMessage, Op>) -> TargetStep {
        use SourceMessage as M;
        match input {
            Input::Message(M::Offer) if self.phase == Phase::Idle => {
                self.to(Phase::Checking(Course::Onward), [Action::Perform(Op::Check)])
            }
            Input::Message(M::Abort) => self.say(TargetMessage::Aborted),
            Input::Message(M::Commit | M::Ask | M::Go | M::Forget) => self.say(TargetMessage::Unknown),
            _ => self.stay([]),
        }
    }

    fn checking(&self, course: Course, input: Input<SourceMessage, Op>) -> TargetStep {
        let gone = Phase::Over(TargetOutcome::Aborted);
        match (course, input) {
            (Course::Onward, Input::Done(Op::Check)) => self.to(
                Phase::Receiving(Course::Onward),
                [
                    Action::Record(TargetRecord::Receiving),
                    Action::Send(TargetMessage::Ready),
                    Action::Perform(Op::Receive),
                ],
            ),
            (Course::Onward, Input::Failed(Op::Check)) => {
                self.to(Phase::Over(TargetOutcome::Refused), [Action::Send(TargetMessage::Refused)])
            }
            (Course::Stop, Input::Done(Op::Check) | Input::Failed(Op::Check)) => {
                self.to(gone, [Action::Send(TargetMessage::Aborted)])
            }
            (Course::Onward, input) => match reason(input) {
                Some(why) => {
                    self.to(Phase::Checking(Course::Stop), [Action::Explain(why), Action::Interrupt(Op::Check)])
                }
                None => self.stay([]),
            },
            (Course::Stop, _) => self.stay([]),
        }
    }

    fn receiving(&self, course: Course, input: Input<SourceMessage, Op>) -> TargetStep {
        match (course, input) {
            (Course::Onward, Input::Done(Op::Receive)) => self.to(Phase::Received, []),
            (Course::Onward, Input::Failed(Op::Receive)) => self.undo(Why::Failed(Op::Receive), Undo::Abort),
            (Course::Stop, Input::Done(Op::Receive) | Input::Failed(Op::Receive)) => self.abort(),
            (Course::Onward, input) => match reason(input) {
                Some(why) => {
                    self.to(Phase::Receiving(Course::Stop), [Action::Explain(why), Action::Interrupt(Op::Receive)])
                }
                None => self.stay([]),
            },
            (Course::Stop, _) => self.stay([]),
        }
    }

    /// The reason has been given.
    fn abort(&self) -> TargetStep {
        let actions = [Action::Record(TargetRecord::Aborting), Action::Perform(Op::Destroy)];
        self.to(undoing(Undo::Abort), actions)
    }

    fn received(&self, input: Input<SourceMessage, Op>) -> TargetStep {
        match input {
            Input::Message(SourceMessage::Go) => self.to(
                Phase::Restoring(Op::Fence, Course::Onward),
                [Action::Record(TargetRecord::Restoring), Action::Perform(Op::Fence)],
            ),
            input => match reason(input) {
                Some(why) => self.undo(why, Undo::Abort),
                None => self.stay([]),
            },
        }
    }

    fn restoring(&self, operation: Op, course: Course, input: Input<SourceMessage, Op>) -> TargetStep {
        let next = |operation| self.to(Phase::Restoring(operation, Course::Onward), [Action::Perform(operation)]);
        match (course, input) {
            (Course::Onward, Input::Done(done)) if done == operation => match operation {
                Op::Fence => next(Op::RaiseAddress),
                Op::RaiseAddress => next(Op::Restore),
                Op::Restore => next(Op::Freeze),
                Op::Freeze => next(Op::DismissGuard),
                _ => self.to(
                    Phase::Prepared,
                    [Action::Record(TargetRecord::Prepared), Action::Send(TargetMessage::Prepared)],
                ),
            },
            (Course::Onward, Input::Failed(failed)) if failed == operation => {
                self.undo(Why::Failed(operation), Undo::Abort)
            }
            (Course::Stop, Input::Done(ended) | Input::Failed(ended)) if ended == operation => self.abort(),
            // The restore fails by itself; what is frozen does not need CRIU any more.
            (Course::Onward, Input::CriuGone) => self.stay([]),
            (Course::Onward, input) => match reason(input) {
                Some(why) => self.to(
                    Phase::Restoring(operation, Course::Stop),
                    [Action::Explain(why), Action::Interrupt(operation)],
                ),
                None => self.stay([]),
            },
            (Course::Stop, _) => self.stay([]),
        }
    }

    fn prepared(&self, input: Input<SourceMessage, Op>) -> TargetStep {
        use SourceMessage as M;
        match input {
            Input::Message(M::Commit) => self.to(Phase::Verifying(Course::Onward), [Action::Perform(Op::FindCopy)]),
            Input::Message(M::Abort) => self.undo(Why::Peer, Undo::Abort),
            Input::Message(M::Ask | M::Go) | Input::LinkUp | Input::TimedOut => self.say(TargetMessage::Prepared),
            Input::Forced(Forced::Abort) => self.undo(Why::Forced, Undo::Return),
            Input::Forced(Forced::Resume) if self.link == Link::Down => {
                self.to(Phase::Verifying(Course::Onward), [Action::Perform(Op::FindCopy)])
            }
            Input::Forced(Forced::Resume) => {
                self.stay([Action::Report(Report::NotInDoubt), Action::Send(TargetMessage::Prepared)])
            }
            Input::Cancelled => self.stay([Action::Report(Report::TooLate)]),
            _ => self.stay([]),
        }
    }

    fn verifying(&self, course: Course, input: Input<SourceMessage, Op>) -> TargetStep {
        match (course, input) {
            (Course::Onward, Input::Done(Op::FindCopy)) => self.to(
                Phase::Committing(Op::Unfence, Attempt::UnderWay),
                [Action::Record(TargetRecord::Committed), Action::Perform(Op::Unfence)],
            ),
            (Course::Onward, Input::Failed(Op::FindCopy)) => self.undo(Why::Failed(Op::FindCopy), Undo::Return),
            (Course::Stop, Input::Done(Op::FindCopy) | Input::Failed(Op::FindCopy)) => self.abort(),
            // The source's word goes before a person's; it never follows its commit.
            (Course::Onward, Input::Message(SourceMessage::Abort)) => {
                self.to(Phase::Verifying(Course::Stop), [Action::Explain(Why::Peer)])
            }
            _ => self.stay([]),
        }
    }

    fn committing(&self, operation: Op, attempt: Attempt, input: Input<SourceMessage, Op>) -> TargetStep {
        let next = |operation| self.to(Phase::Committing(operation, Attempt::UnderWay), [Action::Perform(operation)]);
        let runs =
            [Action::Record(TargetRecord::Running), Action::Send(TargetMessage::Running), Action::Perform(Op::Discard)];
        match input {
            Input::Done(done) if done == operation => match operation {
                Op::Unfence => next(Op::Answer),
                Op::Answer => next(Op::Thaw),
                Op::Thaw => next(Op::Announce),
                _ => self.to(RUNNING, runs),
            },
            // Switches learn of the address from its traffic as well.
            Input::Failed(Op::Announce) if operation == Op::Announce => {
                let mut actions = vec![Action::Report(Report::Failed(operation))];
                actions.extend(runs);
                self.to(RUNNING, actions)
            }
            Input::Failed(failed) if failed == operation => {
                self.to(Phase::Committing(operation, Attempt::Failed), [Action::Report(Report::Failed(operation))])
            }
            Input::TimedOut if attempt == Attempt::Failed => next(operation),
            Input::Cancelled => self.stay([Action::Report(Report::TooLate)]),
            _ => self.stay([]),
        }
    }

    fn running(&self, discard: Attempt, source: Word, input: Input<SourceMessage, Op>) -> TargetStep {
        use SourceMessage as M;
        let over = || self.to(Phase::Over(TargetOutcome::Runs), [Action::Erase, Action::Send(TargetMessage::Unknown)]);
        let at = |discard, source| Phase::Running { discard, source };
        match input {
            Input::Done(Op::Discard) if source == Word::Given => over(),
            Input::Done(Op::Discard) => self.to(at(Attempt::Done, source), []),
            Input::Failed(Op::Discard) => {
                self.to(at(Attempt::Failed, source), [Action::Report(Report::Failed(Op::Discard))])
            }
            Input::Message(M::Forget) if discard == Attempt::Done => over(),
            Input::Message(M::Forget) => self.to(at(discard, Word::Given), []),
            Input::TimedOut if discard == Attempt::Failed => {
                let actions = [Action::Send(TargetMessage::Running), Action::Perform(Op::Discard)];
                self.to(at(Attempt::UnderWay, source), actions)
            }
            Input::Message(M::Commit | M::Abort | M::Ask | M::Go) | Input::LinkUp | Input::TimedOut => {
                self.say(TargetMessage::Running)
            }
            _ => self.stay([]),
        }
    }

    fn undoing(&self, operation: Op, attempt: Attempt, undo: Undo, input: Input<SourceMessage, Op>) -> TargetStep {
        use SourceMessage as M;
        let at = |operation, attempt, undo| Phase::Undoing { operation, attempt, undo };
        let next = |operation| self.to(at(operation, Attempt::UnderWay, undo), [Action::Perform(operation)]);
        match input {
            Input::Done(done) if done == operation => match operation {
                Op::Destroy => next(Op::DropAddress),
                Op::DropAddress => next(Op::Unfence),
                // Removing images takes time, and the source waits.
                Op::Unfence => {
                    let mut step = next(Op::Discard);
                    step.actions.insert(0, Action::Send(undo.message()));
                    step
                }
                _ => match undo {
                    Undo::Abort => self.to(Phase::Over(TargetOutcome::Aborted), [Action::Erase]),
                    Undo::Return => self.to(Phase::Returned, []),
                    Undo::Lose => self.to(Phase::Lost, []),
                },
            },
            Input::Failed(failed) if failed == operation => {
                self.to(at(operation, Attempt::Failed, undo), [Action::Report(Report::Failed(operation))])
            }
            Input::TimedOut if attempt == Attempt::Failed => next(operation),
            // The copy is dead already.
            Input::Message(M::Abort | M::Commit | M::Ask | M::Go) | Input::LinkUp if operation == Op::Discard => {
                self.say(undo.message())
            }
            _ => self.stay([]),
        }
    }

    /// All is taken away, and said until it is heard.
    fn telling(&self, undo: Undo, input: Input<SourceMessage, Op>) -> TargetStep {
        use SourceMessage as M;
        let outcome = match undo {
            Undo::Lose => TargetOutcome::Lost,
            _ => TargetOutcome::Aborted,
        };
        match input {
            Input::Message(M::Forget) => {
                self.to(Phase::Over(outcome), [Action::Erase, Action::Send(TargetMessage::Unknown)])
            }
            Input::Message(M::Abort) => {
                self.to(Phase::Over(outcome), [Action::Erase, Action::Send(TargetMessage::Aborted)])
            }
            Input::Message(M::Commit | M::Ask | M::Go) | Input::LinkUp | Input::TimedOut => self.say(undo.message()),
            _ => self.stay([]),
        }
    }
}

impl Machine for Target {
    type Record = TargetRecord;
    type Sent = TargetMessage;
    type Received = SourceMessage;
    type Operation = TargetOperation;

    fn step(&self, input: Input<SourceMessage, Op>) -> TargetStep {
        let link = match input {
            Input::LinkUp => Link::Up,
            Input::LinkLost => Link::Down,
            _ => self.link,
        };
        let now = Self { link, ..*self };
        match now.phase {
            Phase::Idle | Phase::Over(_) => now.unknown(input),
            Phase::Checking(course) => now.checking(course, input),
            Phase::Receiving(course) => now.receiving(course, input),
            Phase::Received => now.received(input),
            Phase::Restoring(operation, course) => now.restoring(operation, course, input),
            Phase::Prepared => now.prepared(input),
            Phase::Verifying(course) => now.verifying(course, input),
            Phase::Committing(operation, attempt) => now.committing(operation, attempt, input),
            Phase::Running { discard, source } => now.running(discard, source, input),
            Phase::Undoing { operation, attempt, undo } => now.undoing(operation, attempt, undo, input),
            Phase::Returned => now.telling(Undo::Return, input),
            Phase::Lost => now.telling(Undo::Lose, input),
        }
    }

    fn unwritten(&self, record: Option<TargetRecord>) -> TargetStep {
        let explain = Action::Explain(Why::Unwritten);
        let report = Action::Report(Report::Unwritten);
        match (record, self.phase) {
            (Some(TargetRecord::Receiving), _) => {
                self.to(Phase::Over(TargetOutcome::Aborted), [explain, Action::Send(TargetMessage::Aborted)])
            }
            (Some(TargetRecord::Restoring | TargetRecord::Prepared), _) => {
                self.to(undoing(Undo::Abort), [explain, Action::Perform(Op::Destroy)])
            }
            // The source repeats what it has said. *Aborted* must not be said while PREPARED stands: it would be believed, and a
            // restart would ask a source that has forgotten.
            (
                Some(TargetRecord::Aborting | TargetRecord::Committed | TargetRecord::Returned),
                Phase::Prepared | Phase::Verifying(_),
            ) => self.to(Phase::Prepared, [report]),
            // What stands there leads to the same end.
            (Some(TargetRecord::Aborting), _) => self.to(undoing(Undo::Abort), [Action::Perform(Op::Destroy)]),
            (Some(TargetRecord::Running), _) => self.to(Phase::Committing(Op::Announce, Attempt::Failed), [report]),
            (None, Phase::Undoing { operation, undo, .. }) => {
                self.to(Phase::Undoing { operation, attempt: Attempt::Failed, undo }, [report])
            }
            (None, Phase::Running { source, .. }) => {
                self.to(Phase::Running { discard: Attempt::Failed, source }, [report])
            }
            _ => self.stay([report]),
        }
    }

    fn operation(&self) -> Option<Op> {
        match self.phase {
            Phase::Checking(_) => Some(Op::Check),
            Phase::Receiving(_) => Some(Op::Receive),
            Phase::Restoring(operation, _) => Some(operation),
            Phase::Verifying(_) => Some(Op::FindCopy),
            Phase::Committing(operation, Attempt::UnderWay) => Some(operation),
            Phase::Running { discard: Attempt::UnderWay, .. } => Some(Op::Discard),
            Phase::Undoing { operation, attempt: Attempt::UnderWay, .. } => Some(operation),
            _ => None,
        }
    }

    fn waits(&self) -> Wait {
        match self.phase {
            Phase::Received => Wait::Answer,
            Phase::Prepared | Phase::Running { .. } | Phase::Returned | Phase::Lost => Wait::Repeat,
            Phase::Committing(_, Attempt::Failed) | Phase::Undoing { attempt: Attempt::Failed, .. } => Wait::Repeat,
            Phase::Idle | Phase::Over(_) => Wait::Nothing,
            _ => Wait::Operation,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    fn is_in_doubt(&self) -> bool {
        matches!(self.phase, Phase::Prepared)
    }
}

impl Undo {
    fn record(self) -> TargetRecord {
        match self {
            Self::Abort => TargetRecord::Aborting,
            Self::Return => TargetRecord::Returned,
            Self::Lose => TargetRecord::Lost,
        }
    }

    fn message(self) -> TargetMessage {
        match self {
            Self::Abort => TargetMessage::Aborted,
            Self::Return => TargetMessage::Returned,
            Self::Lose => TargetMessage::Lost,
        }
    }
}

const RUNNING: TargetPhase = Phase::Running { discard: Attempt::UnderWay, source: Word::Due };

fn undoing(undo: Undo) -> TargetPhase {
    Phase::Undoing { operation: Op::Destroy, attempt: Attempt::UnderWay, undo }
}

/// Whether an input ends a migration for which nothing is prepared yet.
fn reason(input: Input<SourceMessage, Op>) -> Option<Why<Op>> {
    match input {
        Input::Message(SourceMessage::Abort) => Some(Why::Peer),
        Input::CriuGone => Some(Why::CriuGone),
        Input::LinkLost => Some(Why::LinkLost),
        Input::TimedOut => Some(Why::TimedOut),
        Input::Cancelled | Input::Forced(Forced::Abort) => Some(Why::Cancelled),
        _ => None,
    }
}
