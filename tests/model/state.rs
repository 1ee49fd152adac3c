//! One state of everything: both hosts, both migrations, their processes, records and the network between them.

use std::fmt;
use std::hash::Hash;

use crr::migrate::machine::{
    Action, ActionOf, Boot, Course, InputOf, Link, Machine, Record, Source, SourcePhase, SourceRecord, Step, Target,
    TargetPhase, TargetRecord,
};

use crate::rules::Rules;
use crate::world::{Id, World};

/// The longest list of actions that is left when the first has been executed.
const PENDING: usize = 4;
/// How many messages are under way in one direction; a sender waits for room.
const QUEUE: usize = 3;

/// What faults are still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// A process dies.
    pub(crate) crashes: u8,
    /// CRIU dies.
    pub(crate) criu: u8,
    /// The link is cut, and what is under way is lost.
    pub(crate) cuts: u8,
    /// A message is lost on a link that stays: for each direction.
    pub(crate) losses: [u8; 2],
    /// A message comes twice.
    pub(crate) duplicates: u8,
    /// An operation fails that could have been done.
    pub(crate) failures: u8,
    /// A record cannot be written.
    pub(crate) full: u8,
    /// A user cancels, or an operation takes too long.
    pub(crate) cancels: u8,
    /// The kernel kills the frozen copy on the target.
    pub(crate) kills: u8,
    /// A host is started anew.
    pub(crate) reboots: u8,
    /// Whether the way back is tried once.
    pub(crate) reverse: bool,
}

impl Budget {
    pub(crate) const NONE: Self = Self {
        crashes: 0,
        criu: 0,
        cuts: 0,
        losses: [0; 2],
        duplicates: 0,
        failures: 0,
        full: 0,
        cancels: 0,
        kills: 0,
        reboots: 0,
        reverse: false,
    };
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { crashes, criu, cuts, losses, duplicates, failures, full, cancels, kills, reboots, reverse } = self;
        let losses = losses.iter().max().copied().unwrap_or_default();
        let named = [
            (crashes, "crashes"),
            (criu, "deaths of CRIU"),
            (cuts, "cut links"),
            (&losses, "lost messages each way"),
            (duplicates, "doubled messages"),
            (failures, "failed operations"),
            (full, "unwritten records"),
            (cancels, "cancels or late operations"),
            (kills, "kills of the copy"),
            (reboots, "reboots"),
        ];
        let text: Vec<String> =
            named.iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let faults = if text.is_empty() { "no fault".into() } else { text.join(", ") };
        write!(f, "{faults}{}", if *reverse { ", and the way back" } else { "" })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) migrations: [Option<Migration>; 2],
    pub(crate) budget: Budget,
    /// The link between the hosts is cut for good.
    pub(crate) severed: bool,
    /// A host was started anew: what ran there is gone.
    pub(crate) rebooted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Migration {
    pub(crate) source: Process<Source>,
    pub(crate) target: Process<Target>,
    pub(crate) to_target: Queue<<Source as Machine>::Sent>,
    pub(crate) to_source: Queue<<Target as Machine>::Sent>,
    pub(crate) link: Link,
    /// COMMIT has been on the source's disk, and neither *returned* nor a person has ended it.
    pub(crate) committed: bool,
    /// The link has been cut at some time.
    pub(crate) parted: bool,
}

/// A process of one side, and its disk, which stays when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process<M: Machine> {
    pub(crate) alive: bool,
    pub(crate) machine: M,
    /// The machine that asked for what is pending.
    before: M,
    pending: [Option<ActionOf<M>>; PENDING],
    pub(crate) job: Option<M::Operation>,
    pub(crate) notice: Notice,
    pub(crate) disk: Option<(M::Record, Wrote)>,
}

/// When a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wrote {
    ThisBoot,
    Before,
}

/// What a process is about to hear of its link or its CRIU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Notice {
    pub(crate) link: Option<Link>,
    pub(crate) criu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Queue<T> {
    messages: [Option<T>; QUEUE],
}

impl<T: Copy> Queue<T> {
    pub(crate) const EMPTY: Self = Self { messages: [None; QUEUE] };

    pub(crate) fn is_full(&self) -> bool {
        self.messages[QUEUE - 1].is_some()
    }

    pub(crate) fn head(&self) -> Option<T> {
        self.messages[0]
    }

    pub(crate) fn push(&mut self, message: T) {
        let free = self.messages.iter_mut().find(|place| place.is_none());
        *free.expect("room was looked for") = Some(message);
    }

    pub(crate) fn pop(&mut self) {
        self.messages.rotate_left(1);
        self.messages[QUEUE - 1] = None;
    }

    /// The first will come twice.
    pub(crate) fn double(&mut self) {
        self.messages.rotate_right(1);
        self.messages[0] = self.messages[1];
    }
}

/// Where a process is with its actions.
#[derive(Debug)]
pub(crate) enum Executed<M: Machine> {
    Record(M::Record),
    Erased,
    Send(M::Sent),
    Disconnect,
    Other,
}

impl<M: Machine> Process<M> {
    pub(crate) fn new(machine: M) -> Self {
        let notice = Notice { link: None, criu: false };
        Self { alive: true, machine, before: machine, pending: [None; PENDING], job: None, notice, disk: None }
    }

    pub(crate) fn started(step: Step<M>) -> Self {
        let mut process = Self::new(step.next);
        process.take(step.next, &step);
        process
    }

    fn take(&mut self, before: M, step: &Step<M>) {
        self.machine = step.next;
        self.pending = [None; PENDING];
        // What only informs changes nothing here.
        let real =
            |action: &&ActionOf<M>| !matches!(action, Action::Explain(_) | Action::Report(_) | Action::Interrupt(_));
        for (place, action) in step.actions.iter().filter(real).enumerate() {
            self.pending[place] = Some(*action);
        }
        self.settle(before);
    }

    fn settle(&mut self, before: M) {
        // Beginning an operation changes nothing by itself.
        if let Some(Action::Perform(operation)) = self.pending[0] {
            assert!(self.pending[1].is_none(), "an operation is the last action: {:?}", self.pending);
            self.job = Some(operation);
            self.pending[0] = None;
        }
        self.before = if self.pending[0].is_some() { before } else { self.machine };
        assert!(!self.alive || self.busy() || self.machine.operation() == self.job, "{self:?}");
    }

    /// Whether actions are to be executed before anything is heard.
    pub(crate) fn busy(&self) -> bool {
        self.pending[0].is_some()
    }

    pub(crate) fn next_action(&self) -> Option<ActionOf<M>> {
        self.pending[0]
    }

    /// Takes the first action, and says what the surroundings have to do.
    pub(crate) fn execute(&mut self) -> Executed<M> {
        let action = self.pending[0].expect("a pending action");
        self.pending.rotate_left(1);
        self.pending[PENDING - 1] = None;
        let done = match action {
            Action::Record(record) => {
                self.disk = Some((record, Wrote::ThisBoot));
                Executed::Record(record)
            }
            Action::Erase => {
                self.disk = None;
                Executed::Erased
            }
            Action::Send(message) => Executed::Send(message),
            Action::Disconnect => Executed::Disconnect,
            _ => Executed::Other,
        };
        self.settle(self.before);
        done
    }

    /// The first action is a record that cannot be written.
    pub(crate) fn unwritten(&mut self) -> bool {
        let record = match self.pending[0] {
            Some(Action::Record(record)) => Some(record),
            Some(Action::Erase) => None,
            _ => return false,
        };
        // The first step of a restarted process has no machine before it: it ends, and the next one tries again.
        if self.before == self.machine {
            return false;
        }
        let before = self.before;
        let step = before.unwritten(record);
        assert!(!step.actions.iter().any(|action| matches!(action, Action::Record(_) | Action::Erase)));
        self.take(before, &step);
        true
    }

    pub(crate) fn hear(&mut self, input: InputOf<M>, step: impl Fn(&M, InputOf<M>) -> Step<M>) {
        let before = self.machine;
        let step = step(&before, input);
        self.take(before, &step);
    }

    pub(crate) fn die(&mut self) {
        self.alive = false;
        self.pending = [None; PENDING];
        self.before = self.machine;
        self.job = None;
        self.notice = Notice { link: None, criu: false };
    }

    fn boot(wrote: Wrote) -> Boot {
        match wrote {
            Wrote::ThisBoot => Boot::Same,
            Wrote::Before => Boot::Another,
        }
    }
}

impl Process<Source> {
    /// Whether nothing has asked it yet to end what it does.
    pub(crate) fn is_onward(&self) -> bool {
        self.machine.phase() == SourcePhase::Delivering(Course::Onward)
    }
}

impl Process<Target> {
    /// Whether nothing has asked it yet to end what it does.
    pub(crate) fn is_onward(&self) -> bool {
        self.machine.phase() == TargetPhase::Receiving(Course::Onward)
    }
}

impl Migration {
    pub(crate) fn begin() -> Self {
        Self {
            source: Process::started(Source::begin()),
            target: Process::new(Target::idle()),
            to_target: Queue::EMPTY,
            to_source: Queue::EMPTY,
            link: Link::Up,
            committed: false,
            parted: false,
        }
    }

    /// The link is gone, and whoever lives will hear of it.
    pub(crate) fn disconnect(&mut self) {
        if self.link == Link::Up {
            self.source.notice.link = self.source.alive.then_some(Link::Down);
            self.target.notice.link = self.target.alive.then_some(Link::Down);
        }
        self.link = Link::Down;
        self.parted = true;
        self.to_target = Queue::EMPTY;
        self.to_source = Queue::EMPTY;
    }

    pub(crate) fn restart_source(&mut self, rules: &Rules) {
        let (record, wrote) = self.source.disk.expect("a record");
        let process = Process::started((rules.source_restarted)(record, Process::<Source>::boot(wrote)));
        self.source = Process { disk: self.source.disk, ..process };
    }

    pub(crate) fn restart_target(&mut self, rules: &Rules) {
        let (record, wrote) = self.target.disk.expect("a record");
        let process = Process::started((rules.target_restarted)(record, Process::<Target>::boot(wrote)));
        self.target = Process { disk: self.target.disk, ..process };
    }

    pub(crate) fn is_over(&self) -> bool {
        let idle = |alive: bool, over: bool, busy: bool| !alive || (over && !busy);
        let target_over = self.target.machine.is_over() || self.target.machine.phase() == TargetPhase::Idle;
        self.source.disk.is_none()
            && self.target.disk.is_none()
            && idle(self.source.alive, self.source.machine.is_over(), self.source.busy())
            && idle(self.target.alive, target_over, self.target.busy())
    }
}

impl State {
    pub(crate) fn start(budget: Budget) -> Self {
        Self {
            world: World::START,
            migrations: [Some(Migration::begin()), None],
            budget,
            severed: false,
            rebooted: false,
        }
    }

    /// Whether a record of another migration than `id` on `host` concerns the tree.
    pub(crate) fn is_claimed(&self, host: usize, id: Id) -> bool {
        self.migrations.iter().enumerate().any(|(other, migration)| {
            let Some(migration) = migration else { return false };
            let source = migration.source.disk.is_some_and(|(record, _): (SourceRecord, _)| record.touches_tree());
            let target = migration.target.disk.is_some_and(|(record, _): (TargetRecord, _)| record.touches_tree());
            other != id && if host == other { source } else { target }
        })
    }

    /// Two processes that have nothing to do and nothing to hear are like none.
    pub(crate) fn without_what_is_over(mut self) -> Self {
        for place in &mut self.migrations {
            let quiet = |migration: &Migration| {
                let silent = migration.to_source.head().is_none() && migration.to_target.head().is_none();
                migration.is_over() && silent
            };
            *place = place.filter(|migration| !quiet(migration));
        }
        self
    }

    /// Everything is settled, and right.
    pub(crate) fn is_good(&self) -> bool {
        let over = self.migrations.iter().flatten().all(Migration::is_over);
        if !self.rebooted {
            return over && self.world.is_clean();
        }
        // The program may have gone down with its host. What was committed and lost is a person's to decide.
        let lost = self.migrations.iter().flatten().any(|migration| {
            matches!(migration.source.disk, Some((SourceRecord::Commit, _)))
                && matches!(migration.target.disk, Some((TargetRecord::Lost, _)))
        });
        lost || (over && self.world.is_without_leftovers())
    }
}
