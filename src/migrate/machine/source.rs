//! The side that has the tree, and decides.

use serde::{Deserialize, Serialize};

use super::target::TargetMessage;
use super::{Action, Attempt, Boot, Course, Forced, Input, Link, Machine, Record, Report, Step, Wait, Why, Word};

use self::SourceOperation as Op;
use self::SourcePhase as Phase;

/// The source of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    phase: SourcePhase,
    link: Link,
}

/// Where a source is: see the table in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourcePhase {
    /// Pre-checkpoint: tree and host are looked at.
    Examining(Course),
    /// Pre-restore: the target looks at the offer.
    Offered,
    /// Checkpoint: CRIU dumps, memory travels.
    Dumping(Course),
    /// The tree is frozen; the rest travels.
    Delivering(Course),
    /// The address is taken off.
    Withdrawing(Course),
    /// Restore: the target is to say that it is prepared.
    Waiting,
    /// HELD, and the tree is gone with the last boot: the target's copy is the only one there may be.
    Orphaned,
    /// Given up; the target is to say that its copy is dead.
    Stopping,
    /// Given up; this host is put right.
    Righting {
        /// What is being done.
        operation: SourceOperation,
        /// How it stands.
        attempt: Attempt,
        /// Whether the target has said that its copy is dead.
        target: Word,
    },
    /// The tree runs; the target is to hear of it.
    Telling,
    /// Decided. The tree stays frozen.
    Committed(Standing),
    /// The target runs; the copy here is killed.
    Ending(Attempt),
    /// It is; the target is to remove its record.
    Closing,
    /// Nothing is left to be done.
    Over(SourceOutcome),
}

/// What is known of the target after COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It will run.
    Expected,
    /// It knows nothing of this migration.
    Unknown,
    /// Its host went down with the committed copy.
    Lost,
}

/// How a migration ended for its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceOutcome {
    /// The tree runs on the target.
    Migrated,
    /// The target will not have it; nothing was touched.
    Refused,
    /// The tree runs here.
    Aborted,
    /// The tree went down with this host, and the target has none.
    Lost,
    /// Nothing is known here of such a migration.
    Forgotten,
}

/// What a source writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceRecord {
    /// A dump is about to begin.
    Intent,
    /// The tree is frozen, and complete in the images.
    Held,
    /// Given up.
    Abort,
    /// The tree runs on here; the target may not know.
    Resumed,
    /// The tree will run on the target and nowhere else.
    Commit,
    /// It runs there; the copy here is to be killed.
    Done,
    /// It is; the target may still have its record.
    Ended,
}

/// What a source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceMessage {
    /// What is to be migrated.
    Offer,
    /// Everything is there and the address is off: restore.
    Go,
    /// Decided: run.
    Commit,
    /// Given up: kill the copy. With the reason.
    Abort,
    /// How does it stand?
    Ask,
    /// The record may be removed.
    Forget,
}

/// What a source has done on its host. All of it can be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceOperation {
    /// Look at tree, host and files.
    Examine,
    /// Drop new connections from `query-ext-files` on, dump to `post-dump`, and freeze the tree in a cgroup of ours before
    /// anything else. Done: it is frozen.
    Dump,
    /// Send what has not been sent. Done: the target has acknowledged all of it.
    Deliver,
    /// Take the address off.
    Withdraw,
    /// Put the address back, and announce it.
    ReturnAddress,
    /// Repair mode off, SO_REUSEADDR as it was, network lock and fence away, CRIU answered with a no. The tree stays frozen.
    PutRight,
    /// Let the tree run, in its own cgroups.
    Thaw,
    /// Kill the frozen tree silently, end CRIU, remove its lock, the fence and the images.
    End,
}

impl Record for SourceRecord {
    fn touches_tree(&self) -> bool {
        !matches!(self, Self::Resumed | Self::Ended)
    }
}

type SourceStep = Step<Source>;
type SourceAction = Action<SourceRecord, SourceMessage, SourceOperation>;

impl Source {
    /// A new migration, over a link that is there.
    pub fn begin() -> SourceStep {
        Step::new(Self::at(Phase::Examining(Course::Onward), Link::Up), [Action::Perform(Op::Examine)])
    }

    /// Goes on from a record that another process has left, without a link so far.
    pub fn restarted(record: SourceRecord, boot: Boot) -> SourceStep {
        let quiet = |phase| Step::new(Self::at(phase, Link::Down), []);
        match (record, boot) {
            (SourceRecord::Intent | SourceRecord::Held, Boot::Same) => Step::new(
                Self::at(righting(Word::Due), Link::Down),
                [
                    Action::Explain(Why::Restarted),
                    Action::Record(SourceRecord::Abort),
                    Action::Perform(Op::ReturnAddress),
                ],
            ),
            (SourceRecord::Abort, Boot::Same) => {
                Step::new(Self::at(righting(Word::Due), Link::Down), [Action::Perform(Op::ReturnAddress)])
            }
            (SourceRecord::Held, Boot::Another) => quiet(Phase::Orphaned),
            (SourceRecord::Intent | SourceRecord::Abort, Boot::Another) | (SourceRecord::Resumed, _) => {
                quiet(Phase::Telling)
            }
            (SourceRecord::Ended, _) => quiet(Phase::Closing),
            (SourceRecord::Commit, _) => quiet(Phase::Committed(Standing::Expected)),
            (SourceRecord::Done, _) => {
                Step::new(Self::at(Phase::Ending(Attempt::UnderWay), Link::Down), [Action::Perform(Op::End)])
            }
        }
    }

    /// What answers for a migration that has no record on this host.
    pub fn forgotten() -> Self {
        Self::at(Phase::Over(SourceOutcome::Forgotten), Link::Up)
    }

    /// Where it is.
    pub fn phase(&self) -> SourcePhase {
        self.phase
    }

    fn at(phase: SourcePhase, link: Link) -> Self {
        Self { phase, link }
    }

    fn to(&self, phase: SourcePhase, actions: impl Into<Vec<SourceAction>>) -> SourceStep {
        Step::new(Self { phase, ..*self }, actions)
    }

    fn stay(&self, actions: impl Into<Vec<SourceAction>>) -> SourceStep {
        Step::new(*self, actions)
    }

    /// An operation ends before anything else happens.
    fn stop_after(&self, phase: SourcePhase, operation: Op, why: Why<Op>) -> SourceStep {
        self.to(phase, [Action::Explain(why), Action::Interrupt(operation)])
    }

    /// Gives up before *go* was sent: there is no copy on the target.
    fn abort_alone(&self) -> SourceStep {
        let actions = [
            Action::Record(SourceRecord::Abort),
            Action::Send(SourceMessage::Abort),
            Action::Perform(Op::ReturnAddress),
        ];
        self.to(righting(Word::Due), actions)
    }

    /// Gives up while the target may have a copy that is not frozen yet.
    fn abort_waiting(&self, why: Why<Op>) -> SourceStep {
        match self.link {
            Link::Up => self.to(
                Phase::Stopping,
                [Action::Explain(why), Action::Record(SourceRecord::Abort), Action::Send(SourceMessage::Abort)],
            ),
            Link::Down => self.to(
                righting(Word::Due),
                [Action::Explain(why), Action::Record(SourceRecord::Abort), Action::Perform(Op::ReturnAddress)],
            ),
        }
    }

    /// The target's copy is dead, by its own word.
    fn abort_confirmed(&self, word: TargetMessage) -> SourceStep {
        let actions =
            [Action::Explain(Why::Peer), Action::Record(SourceRecord::Abort), Action::Perform(Op::ReturnAddress)];
        self.to(righting(confirmation(word)), actions)
    }

    fn done(&self) -> SourceStep {
        let actions =
            [Action::Record(SourceRecord::Done), Action::Send(SourceMessage::Forget), Action::Perform(Op::End)];
        self.to(Phase::Ending(Attempt::UnderWay), actions)
    }

    fn commit(&self) -> SourceStep {
        let actions = [Action::Record(SourceRecord::Commit), Action::Send(SourceMessage::Commit)];
        self.to(Phase::Committed(Standing::Expected), actions)
    }

    fn over(&self, outcome: SourceOutcome) -> SourceStep {
        self.to(Phase::Over(outcome), [Action::Erase])
    }

    /// Before anything was written down, and before CRIU.
    fn early(&self, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        let gone = Phase::Over(SourceOutcome::Aborted);
        match (self.phase, input) {
            (Phase::Examining(Course::Onward), Input::Done(Op::Examine)) => {
                self.to(Phase::Offered, [Action::Send(SourceMessage::Offer)])
            }
            (Phase::Examining(Course::Onward), Input::Failed(Op::Examine)) => {
                self.to(gone, [Action::Explain(Why::Failed(Op::Examine))])
            }
            (Phase::Examining(Course::Stop), Input::Done(_) | Input::Failed(_)) => self.to(gone, []),
            (Phase::Examining(Course::Onward), input) => match reason(input) {
                Some(why) => self.stop_after(Phase::Examining(Course::Stop), Op::Examine, why),
                None => self.stay([]),
            },
            (Phase::Offered, Input::Message(M::Ready)) => {
                let actions = [Action::Record(SourceRecord::Intent), Action::Perform(Op::Dump)];
                self.to(Phase::Dumping(Course::Onward), actions)
            }
            (Phase::Offered, Input::Message(M::Refused)) => {
                self.to(Phase::Over(SourceOutcome::Refused), [Action::Explain(Why::Peer)])
            }
            (Phase::Offered, input) => match reason(input) {
                Some(why) => self.to(gone, [Action::Explain(why), Action::Send(SourceMessage::Abort)]),
                None => self.stay([]),
            },
            _ => self.stay([]),
        }
    }

    /// With an operation under way and CRIU at work, before *go*.
    fn at_work(&self, operation: Op, course: Course, input: Input<TargetMessage, Op>) -> SourceStep {
        match (course, input) {
            (Course::Onward, Input::Done(done)) if done == operation => match operation {
                Op::Dump => self.to(
                    Phase::Delivering(Course::Onward),
                    [Action::Record(SourceRecord::Held), Action::Perform(Op::Deliver)],
                ),
                Op::Deliver => self.to(Phase::Withdrawing(Course::Onward), [Action::Perform(Op::Withdraw)]),
                _ => self.to(Phase::Waiting, [Action::Send(SourceMessage::Go)]),
            },
            (Course::Onward, Input::Failed(failed)) if failed == operation => {
                let mut step = self.abort_alone();
                step.actions.insert(0, Action::Explain(Why::Failed(operation)));
                step
            }
            (Course::Stop, Input::Done(ended) | Input::Failed(ended)) if ended == operation => self.abort_alone(),
            // The dump fails by itself.
            (Course::Onward, Input::CriuGone) if operation == Op::Dump => self.stay([]),
            (Course::Onward, input) => match reason(input) {
                Some(why) => self.stop_after(at(operation, Course::Stop), operation, why),
                None => self.stay([]),
            },
            (Course::Stop, _) => self.stay([]),
        }
    }

    fn waiting(&self, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        match input {
            Input::Message(M::Prepared) => self.commit(),
            // By a person's word, given there.
            Input::Message(M::Running) => self.done(),
            Input::Message(word @ (M::Aborted | M::Returned | M::Unknown | M::Lost)) => self.abort_confirmed(word),
            input => match reason(input) {
                Some(why) => self.abort_waiting(why),
                None => self.stay([]),
            },
        }
    }

    fn orphaned(&self, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        match input {
            Input::LinkUp | Input::TimedOut => self.stay([Action::Send(SourceMessage::Ask)]),
            Input::Message(M::Prepared) => self.commit(),
            Input::Message(M::Running) => self.done(),
            Input::Message(M::Aborted | M::Unknown) => self.over(SourceOutcome::Lost),
            Input::Message(M::Returned | M::Lost) => self.stay([Action::Send(SourceMessage::Abort)]),
            Input::Forced(Forced::Abort) if self.link == Link::Down => self.over(SourceOutcome::Lost),
            Input::Forced(_) => self.stay([Action::Report(Report::NotInDoubt), Action::Send(SourceMessage::Ask)]),
            _ => self.stay([]),
        }
    }

    fn stopping(&self, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        match input {
            Input::Message(M::Prepared) => self.stay([Action::Send(SourceMessage::Abort)]),
            Input::Message(M::Running) => self.done(),
            Input::Message(word @ (M::Aborted | M::Returned | M::Unknown | M::Lost)) => {
                self.to(righting(confirmation(word)), [Action::Perform(Op::ReturnAddress)])
            }
            Input::LinkLost => self.to(righting(Word::Due), [Action::Perform(Op::ReturnAddress)]),
            Input::TimedOut => Step::new(
                Self::at(righting(Word::Due), Link::Down),
                [Action::Disconnect, Action::Perform(Op::ReturnAddress)],
            ),
            _ => self.stay([]),
        }
    }

    fn righting(&self, operation: Op, attempt: Attempt, target: Word, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        let next = |operation| Phase::Righting { operation, attempt: Attempt::UnderWay, target };
        match input {
            Input::Done(done) if done == operation => match (operation, target) {
                (Op::ReturnAddress, _) => self.to(next(Op::PutRight), [Action::Perform(Op::PutRight)]),
                (Op::PutRight, _) => self.to(next(Op::Thaw), [Action::Perform(Op::Thaw)]),
                (_, Word::Given) => self.over(SourceOutcome::Aborted),
                (_, Word::Due) => {
                    self.to(Phase::Telling, [Action::Record(SourceRecord::Resumed), Action::Send(SourceMessage::Abort)])
                }
            },
            Input::Failed(failed) if failed == operation => self.to(
                Phase::Righting { operation, attempt: Attempt::Failed, target },
                [Action::Report(Report::Failed(operation))],
            ),
            Input::TimedOut if attempt == Attempt::Failed => self.to(next(operation), [Action::Perform(operation)]),
            Input::Message(M::Prepared) => self.stay([Action::Send(SourceMessage::Abort)]),
            Input::Message(M::Running) => self.stay([Action::Report(Report::Conflict)]),
            Input::Message(M::Aborted | M::Unknown) => {
                self.to(Phase::Righting { operation, attempt, target: Word::Given }, [])
            }
            _ => self.stay([]),
        }
    }

    fn telling(&self, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        match input {
            Input::LinkUp | Input::TimedOut | Input::Message(M::Prepared | M::Returned | M::Lost) => {
                self.stay([Action::Send(SourceMessage::Abort)])
            }
            Input::Message(M::Aborted | M::Unknown) => self.over(SourceOutcome::Aborted),
            Input::Message(M::Running) => self.stay([Action::Report(Report::Conflict)]),
            _ => self.stay([]),
        }
    }

    fn committed(&self, standing: Standing, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        match input {
            Input::Message(M::Running) => self.done(),
            Input::Message(M::Prepared) => {
                self.to(Phase::Committed(Standing::Expected), [Action::Send(SourceMessage::Commit)])
            }
            Input::LinkUp | Input::TimedOut => self.stay([Action::Send(SourceMessage::Commit)]),
            // The right to run comes back, by a record of the target's.
            Input::Message(M::Returned) => self.abort_confirmed(M::Returned),
            Input::Message(M::Unknown) => {
                self.to(Phase::Committed(Standing::Unknown), [Action::Report(Report::TargetUnknown)])
            }
            Input::Message(M::Lost) => self.to(Phase::Committed(Standing::Lost), [Action::Report(Report::TargetLost)]),
            Input::Forced(Forced::Abort) if self.link == Link::Down || standing != Standing::Expected => self.to(
                righting(Word::Due),
                [
                    Action::Explain(Why::Forced),
                    Action::Record(SourceRecord::Abort),
                    Action::Send(SourceMessage::Abort),
                    Action::Perform(Op::ReturnAddress),
                ],
            ),
            Input::Forced(_) => self.stay([Action::Report(Report::NotInDoubt), Action::Send(SourceMessage::Commit)]),
            Input::Cancelled => self.stay([Action::Report(Report::TooLate)]),
            _ => self.stay([]),
        }
    }

    fn ending(&self, attempt: Attempt, input: Input<TargetMessage, Op>) -> SourceStep {
        match input {
            // It forgets last: it is the source that calls.
            Input::Done(Op::End) => {
                self.to(Phase::Closing, [Action::Record(SourceRecord::Ended), Action::Send(SourceMessage::Forget)])
            }
            Input::Failed(Op::End) => {
                self.to(Phase::Ending(Attempt::Failed), [Action::Report(Report::Failed(Op::End))])
            }
            Input::TimedOut if attempt == Attempt::Failed => {
                self.to(Phase::Ending(Attempt::UnderWay), [Action::Perform(Op::End)])
            }
            Input::Message(TargetMessage::Running) => self.stay([Action::Send(SourceMessage::Forget)]),
            Input::Cancelled => self.stay([Action::Report(Report::TooLate)]),
            _ => self.stay([]),
        }
    }

    fn closing(&self, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        match input {
            Input::LinkUp | Input::TimedOut | Input::Message(M::Running | M::Lost) => {
                self.stay([Action::Send(SourceMessage::Forget)])
            }
            Input::Message(M::Unknown) => self.over(SourceOutcome::Migrated),
            _ => self.stay([]),
        }
    }
}

impl Machine for Source {
    type Record = SourceRecord;
    type Sent = SourceMessage;
    type Received = TargetMessage;
    type Operation = SourceOperation;

    fn step(&self, input: Input<TargetMessage, Op>) -> SourceStep {
        use TargetMessage as M;
        let link = match input {
            Input::LinkUp => Link::Up,
            Input::LinkLost => Link::Down,
            _ => self.link,
        };
        let now = Self { link, ..*self };
        match now.phase {
            Phase::Examining(_) | Phase::Offered => now.early(input),
            Phase::Dumping(course) => now.at_work(Op::Dump, course, input),
            Phase::Delivering(course) => now.at_work(Op::Deliver, course, input),
            Phase::Withdrawing(course) => now.at_work(Op::Withdraw, course, input),
            Phase::Waiting => now.waiting(input),
            Phase::Orphaned => now.orphaned(input),
            Phase::Stopping => now.stopping(input),
            Phase::Righting { operation, attempt, target } => now.righting(operation, attempt, target, input),
            Phase::Telling => now.telling(input),
            Phase::Committed(standing) => now.committed(standing, input),
            Phase::Ending(attempt) => now.ending(attempt, input),
            Phase::Closing => now.closing(input),
            Phase::Over(_) => match input {
                Input::Message(M::Prepared | M::Returned | M::Lost) => now.stay([Action::Send(SourceMessage::Abort)]),
                Input::Message(M::Running) => now.stay([Action::Send(SourceMessage::Forget)]),
                _ => now.stay([]),
            },
        }
    }

    fn unwritten(&self, record: Option<SourceRecord>) -> SourceStep {
        let explain = Action::Explain(Why::Unwritten);
        let report = Action::Report(Report::Unwritten);
        let send = Action::Send(SourceMessage::Abort);
        match (record, self.phase) {
            (Some(SourceRecord::Intent), _) => self.to(Phase::Over(SourceOutcome::Aborted), [explain, send]),
            (Some(SourceRecord::Held), _) => {
                self.to(righting(Word::Due), [explain, send, Action::Perform(Op::ReturnAddress)])
            }
            (Some(SourceRecord::Commit), Phase::Waiting) => self.to(Phase::Stopping, [explain, send]),
            // What stands there means abort as well.
            (Some(SourceRecord::Abort), Phase::Dumping(_) | Phase::Delivering(_) | Phase::Withdrawing(_)) => {
                self.to(righting(Word::Due), [send, Action::Perform(Op::ReturnAddress)])
            }
            (Some(SourceRecord::Abort), Phase::Waiting) if self.link == Link::Up => self.to(Phase::Stopping, [send]),
            (Some(SourceRecord::Abort), Phase::Waiting) => {
                self.to(righting(Word::Due), [Action::Perform(Op::ReturnAddress)])
            }
            (_, Phase::Righting { operation, target, .. }) => {
                self.to(Phase::Righting { operation, attempt: Attempt::Failed, target }, [report])
            }
            (_, Phase::Ending(_)) => self.to(Phase::Ending(Attempt::Failed), [report]),
            // What led here will be said again.
            _ => self.stay([report]),
        }
    }

    fn operation(&self) -> Option<Op> {
        match self.phase {
            Phase::Examining(_) => Some(Op::Examine),
            Phase::Dumping(_) => Some(Op::Dump),
            Phase::Delivering(_) => Some(Op::Deliver),
            Phase::Withdrawing(_) => Some(Op::Withdraw),
            Phase::Righting { operation, attempt: Attempt::UnderWay, .. } => Some(operation),
            Phase::Ending(Attempt::UnderWay) => Some(Op::End),
            _ => None,
        }
    }

    fn waits(&self) -> Wait {
        match self.phase {
            Phase::Offered | Phase::Waiting | Phase::Stopping => Wait::Answer,
            Phase::Orphaned | Phase::Telling | Phase::Committed(_) | Phase::Closing => Wait::Repeat,
            Phase::Righting { attempt: Attempt::Failed, .. } | Phase::Ending(Attempt::Failed) => Wait::Repeat,
            Phase::Over(_) => Wait::Nothing,
            _ => Wait::Operation,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    fn is_in_doubt(&self) -> bool {
        matches!(self.phase, Phase::Committed(_) | Phase::Orphaned)
    }
}

fn righting(target: Word) -> SourcePhase {
    Phase::Righting { operation: Op::ReturnAddress, attempt: Attempt::UnderWay, target }
}

fn at(operation: Op, course: Course) -> SourcePhase {
    match operation {
        Op::Dump => Phase::Dumping(course),
        Op::Deliver => Phase::Delivering(course),
        _ => Phase::Withdrawing(course),
    }
}

/// Whether the target has no record any more either. *Returned* and *lost* are records there, until it hears *abort*.
fn confirmation(word: TargetMessage) -> Word {
    match word {
        TargetMessage::Aborted | TargetMessage::Unknown => Word::Given,
        _ => Word::Due,
    }
}

/// Whether an input ends a migration that is not decided.
fn reason(input: Input<TargetMessage, Op>) -> Option<Why<Op>> {
    use TargetMessage as M;
    match input {
        Input::Message(M::Refused | M::Aborted | M::Returned | M::Unknown | M::Lost) => Some(Why::Peer),
        Input::CriuGone => Some(Why::CriuGone),
        Input::LinkLost => Some(Why::LinkLost),
        Input::TimedOut => Some(Why::TimedOut),
        Input::Cancelled | Input::Forced(Forced::Abort) => Some(Why::Cancelled),
        _ => None,
    }
}
