//! Who may do what when: the state machines of the source and the target of a migration.
//!
//! Both are pure: [`Machine::step`] takes an [`Input`] and gives the next machine and an ordered list of [`Action`]s. No I/O,
//! no clock, no chance. What they rest on was tried with live connections; that they never let two copies run and never lose
//! both is checked by `tests/model`, which drives these very functions through every order of messages, crashes, cut links
//! and failures up to its bounds.
//!
//! # The protocol
//!
//! ```text
//!      source                              target
//!      Examine
//!                --- offer ------------->  Check
//!      [INTENT]  <-- ready --------------  [RECEIVING]
//!      Dump      === images, pages =====>  Receive
//!      [HELD]
//!      Deliver   === the rest ==========>
//!      Withdraw (the address)
//!                --- go ---------------->  [RESTORING] Fence, RaiseAddress, Restore, Freeze, DismissGuard
//!                <-- prepared -----------  [PREPARED]
//!      [COMMIT]  --- commit ------------>  FindCopy [COMMITTED] Unfence, Answer, Thaw, Announce
//!      [DONE]    <-- running ------------  [RUNNING]
//!                --- forget ------------>  Discard (the images)
//!      End [ENDED]                         (no record)
//!      (no record) <-- unknown ---------
//! ```
//!
//! `[X]` is a record, written and durable before anything to the right of or below it is done. **The source decides, by COMMIT.**
//! No record and every record before COMMIT mean abort, so the source may give up at any time until then, alone, and run on.
//! With COMMIT the right to run has gone to the target: the source never thaws its copy for a time-out, a cut link, a restart or
//! a cancel. It leaves COMMIT in three ways: the target says *running*; the target says *returned*, which is a record of its own
//! there and means that its copy was dead before it was let go and will never run; or a person says so.
//! A target that is PREPARED decides nothing: frozen and fenced it repeats *prepared*, which is also its question.
//!
//! # The source
//!
//! | phase | on disk | what is | lost link, time-out, cancel | restart (same boot) | restart (rebooted) |
//! |---|---|---|---|---|---|
//! | `Examining`, `Offered` | nothing | runs | given up | - | - |
//! | `Dumping` | INTENT | CRIU dumps | given up when CRIU is through | ABORT, put right | tell *abort* |
//! | `Delivering`, `Withdrawing` | HELD | frozen in our cgroup, CRIU at `post-dump` | ABORT, put right | ABORT, put right | `Orphaned` |
//! | `Waiting` | HELD | as before, the address is off | ABORT | ABORT, put right | `Orphaned` |
//! | `Orphaned` | HELD | gone with the last boot | asks; commits if the target is PREPARED | - | the same |
//! | `Stopping` | ABORT | frozen until the target says that its copy is dead, the link is cut, or a time-out cuts it | put right | put right | tell *abort* |
//! | `Righting` | ABORT | `ReturnAddress`, `PutRight`, `Thaw` | goes on | once more from the start | tell *abort* |
//! | `Telling` | RESUMED | runs; the target does not know | repeats *abort* | the same | the same |
//! | `Committed` | COMMIT | **frozen for good** | repeats *commit* | the same | the same (it is gone, and the record must not be) |
//! | `Ending` | DONE | is killed | goes on | once more | once more |
//! | `Closing` | ENDED | is gone; the target has a record | repeats *forget* | the same | the same |
//! | `Over` | nothing | runs here, or there | - | | |
//!
//! # The target
//!
//! | phase | on disk | what is | lost link, time-out, cancel | restart (same boot) | restart (rebooted) |
//! |---|---|---|---|---|---|
//! | `Idle`, `Checking` | nothing | nothing | forgotten | - | - |
//! | `Receiving`, `Received` | RECEIVING | images | ABORTING | ABORTING | ABORTING |
//! | `Restoring` | RESTORING | behind the fence, not frozen before `Freeze`: the guard's window | ABORTING | ABORTING | ABORTING |
//! | `Prepared`, `Verifying` | PREPARED | frozen and fenced | repeats *prepared* | the same | RETURNED |
//! | `Committing` | COMMITTED | let go, step by step | goes on | once more from the start | LOST |
//! | `Running` | RUNNING | runs; `Discard` | repeats *running* | the same | LOST |
//! | `Undoing` | ABORTING, RETURNED or LOST | `Destroy`, `DropAddress`, `Unfence`, `Discard` | goes on | once more | once more |
//! | `Returned`, `Lost` | RETURNED, LOST | nothing | repeats it | the same | the same |
//! | `Over` | nothing | runs, or is gone | - | | |
//!
//! LOST is a copy that was committed and went down with its host: whether it had run nobody knows. The source keeps its own,
//! frozen, for a person to decide about.
//!
//! # The guard's window
//!
//! Between the answer to CRIU's `post-restore` and `Freeze` the death of CRIU or of crr lets the copy run, behind the fence.
//! [`TargetOperation::Restore`] posts a guard first, which kills the copy when its crr is gone; `DismissGuard` comes after
//! `Freeze` and before PREPARED, so there is no PREPARED that a guard could still kill. The source waits in `Stopping` for the
//! target's word for the same reason, and only once *go* has been sent.
//!
//! # Idempotence
//!
//! Every operation is, and every message may come twice, late on the same connection, or to a machine that was restarted.
//! A host without a record answers as well: [`Source::forgotten`] says *abort* to *prepared* and *forget* to *running*,
//! [`Target::idle`] says *aborted* to *abort* and *unknown* to *commit* and *forget*. The source is the last to remove its record,
//! since it is the one that calls: a target reached by ssh could not ask it.
//! While a record for which [`Record::touches_tree`] holds is there, the host must neither begin a migration of the same tree or
//! address nor accept one: redoing an operation would undo what the later one did.
//!
//! # A driver
//!
//! ```
//! use crr::migrate::machine::{Action, Input, Machine};
//!
//! /// What the driver has: a journal, a connection, and hands.
//! trait Hands<M: Machine> {
//!     fn write(&mut self, record: Option<M::Record>) -> std::io::Result<()>;
//!     fn send(&mut self, message: M::Sent);
//!     fn begin(&mut self, operation: M::Operation);
//!     fn other(&mut self, action: Action<M::Record, M::Sent, M::Operation>);
//!     /// The next of: a message, the outcome of the operation, the link, the clock, a person.
//!     fn next(&mut self) -> Input<M::Received, M::Operation>;
//! }
//!
//! fn drive<M: Machine>(first: crr::migrate::machine::Step<M>, hands: &mut impl Hands<M>) {
//!     // Where the first record cannot be written nothing has happened: the next start begins with the record that is there.
//!     let (mut before, mut machine, mut actions) = (None, first.next, first.actions);
//!     loop {
//!         for action in std::mem::take(&mut actions) {
//!             let written = match action {
//!                 Action::Record(record) => hands.write(Some(record)).map_err(|_| Some(record)),
//!                 Action::Erase => hands.write(None).map_err(|_| None),
//!                 Action::Send(message) => Ok(hands.send(message)), // without a link: nothing
//!                 Action::Perform(operation) => Ok(hands.begin(operation)), // always the last
//!                 other => Ok(hands.other(other)),
//!             };
//!             if let Err(record) = written {
//!                 // The record on disk is the old one, and so are the rest of this step's actions void.
//!                 let Some(before): Option<M> = before else { return };
//!                 let step = before.unwritten(record);
//!                 (machine, actions) = (step.next, step.actions);
//!                 break;
//!             }
//!         }
//!         if !actions.is_empty() {
//!             before = Some(machine);
//!             continue;
//!         }
//!         if machine.is_over() {
//!             return;
//!         }
//!         let step = machine.step(hands.next());
//!         before = Some(std::mem::replace(&mut machine, step.next));
//!         actions = step.actions;
//!     }
//! }
//! ```

mod source;
mod target;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::hash::Hash;

pub use self::source::{Source, SourceMessage, SourceOperation, SourceOutcome, SourcePhase, SourceRecord, Standing};
pub use self::target::{Target, TargetMessage, TargetOperation, TargetOutcome, TargetPhase, TargetRecord, Undo};

/// One side of a migration.
pub trait Machine: Copy + Eq + Hash + Debug {
    /// What it writes down.
    type Record: Record;
    /// What it tells the other side.
    type Sent: Copy + Eq + Hash + Debug;
    /// What it hears.
    type Received: Copy + Eq + Hash + Debug;
    /// What it has done on its own host.
    type Operation: Copy + Eq + Hash + Debug;

    /// What comes of `input`. An input that means nothing now changes nothing.
    fn step(&self, input: Input<Self::Received, Self::Operation>) -> Step<Self>;

    /// What comes of it that `record` (none: its removal), asked for by the last [`step`](Self::step) of this machine, is
    /// surely not on disk. The rest of that step's actions must not have been executed, and its next machine is void.
    ///
    /// Where it is not sure what is on disk, the process must end: the next one goes by what it reads.
    fn unwritten(&self, record: Option<Self::Record>) -> Step<Self>;

    /// The operation whose outcome it waits for.
    fn operation(&self) -> Option<Self::Operation>;

    /// What it waits for: which deadline the caller's clock is to keep.
    fn waits(&self) -> Wait;

    /// Whether nothing is left to be done, with no record on disk.
    fn is_over(&self) -> bool;

    /// Whether it cannot go on without the other side or a person.
    fn is_in_doubt(&self) -> bool;
}

/// What stands on disk of a migration.
pub trait Record: Copy + Eq + Hash + Debug {
    /// Whether a restart from it would do something to the tree, its address or its fence. As long as one is there, another
    /// migration of the same tree or address must neither begin on this host nor be accepted.
    fn touches_tree(&self) -> bool;
}

/// A machine after an input, and what has to be done, in this order.
///
/// At most one action is [`Action::Perform`], and it is the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<M: Machine> {
    /// The machine from now on.
    pub next: M,
    /// What to do.
    pub actions: Vec<ActionOf<M>>,
}

/// The actions of a machine.
pub type ActionOf<M> = Action<<M as Machine>::Record, <M as Machine>::Sent, <M as Machine>::Operation>;
/// The inputs of a machine.
pub type InputOf<M> = Input<<M as Machine>::Received, <M as Machine>::Operation>;

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action<R, M, O> {
    /// Write this record. It must be durable before the next action is executed; if it is not: [`Machine::unwritten`].
    Record(R),
    /// Remove the record.
    Erase,
    /// Send this. Without a link nothing is to be done: it is repeated when there is one.
    Send(M),
    /// Begin this. Its outcome is the input [`Input::Done`] or [`Input::Failed`]; other inputs may come first.
    Perform(O),
    /// Bring the operation that is under way to an end, soon. Its outcome still is an input.
    Interrupt(O),
    /// Cut the link. No [`Input::LinkLost`] is expected for it.
    Disconnect,
    /// The migration is given up, for this reason: to be kept for the record, the message and the person.
    Explain(Why<O>),
    /// Tell the person.
    Report(Report<O>),
}

/// Something that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input<M, O> {
    /// The other side says.
    Message(M),
    /// The operation is done.
    Done(O),
    /// The operation failed. What it had done before may be there or not.
    Failed(O),
    /// CRIU is gone while it was held at an event, or in an operation (which then fails as well).
    CriuGone,
    /// There is a link, a new one if there was one before.
    LinkUp,
    /// There is none any more.
    LinkLost,
    /// The deadline of [`Machine::waits`] has passed. It starts anew.
    TimedOut,
    /// The user does not want it any more, or the process is asked to end.
    Cancelled,
    /// A person decides what neither side can alone.
    Forced(Forced),
}

/// A person's word about a migration that is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forced {
    /// The migration is to be finished: the copy on the target runs.
    Resume,
    /// The migration is to be given up: the copy on the source runs.
    Abort,
}

/// Why a migration is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why<O> {
    /// The user wanted it.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// The link was lost.
    LinkLost,
    /// CRIU died.
    CriuGone,
    /// An operation failed.
    Failed(O),
    /// A record could not be written.
    Unwritten,
    /// The other side said so, with its reason.
    Peer,
    /// Its process died, and this one found the record.
    Restarted,
    /// A person said so.
    Forced,
}

/// Something a person should know that is no reason to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report<O> {
    /// It is too late to cancel: the decision has been made, or is the other side's.
    TooLate,
    /// The other side can be asked, so that a person's word is not needed.
    NotInDoubt,
    /// An operation that must be done failed; it is tried again at the next time-out.
    Failed(O),
    /// A record that must be written could not be; it is tried again.
    Unwritten,
    /// The target knows nothing of what was committed. A person has to decide.
    TargetUnknown,
    /// The target's host went down with the copy. A person has to decide whether this one is to run.
    TargetLost,
    /// Both copies run, after a person's word. One of them must be ended by hand.
    Conflict,
}

/// Whether there is a connection to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// There is.
    Up,
    /// There is none.
    Down,
}

/// Whether the host is the one that wrote a record, or has been started anew since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Boot {
    /// The boot id is that of the record: what it names may be there.
    Same,
    /// All processes, addresses and tables of then are gone.
    Another,
}

/// What happens with a migration when the operation under way has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Course {
    /// It goes on.
    Onward,
    /// It is given up.
    Stop,
}

/// How an operation stands that must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// It is being done.
    UnderWay,
    /// It failed, and will be tried again at the next [`Input::TimedOut`].
    Failed,
    /// It is done.
    Done,
}

/// Whether the other side has confirmed the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// Not yet.
    Due,
    /// It has.
    Given,
}

/// What a machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The end of an operation, which has a deadline of its own or none.
    Operation,
    /// An answer that is due; without it the migration is given up.
    Answer,
    /// The time to repeat a message or an operation.
    Repeat,
    /// Nothing.
    Nothing,
}

impl<M: Machine> Step<M> {
    fn new(next: M, actions: impl Into<Vec<ActionOf<M>>>) -> Self {
        Self { next, actions: actions.into() }
    }
}
