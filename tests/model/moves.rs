//! Everything that can happen next.

use crr::migrate::machine::{ActionOf, Input, Link, Machine, SourceRecord, TargetOperation, TargetRecord, Wait};

use crate::rules::Rules;
use crate::side::{AtSource, AtTarget, Side};
use crate::state::{Budget, Executed, Migration, Process, State, Wrote};
use crate::world::{Id, Life, Outcome};

/// Whether something goes as it should, or costs some of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Regular,
    Fault,
}

/// What may happen, and what comes of it: a state, or a violation.
pub(crate) struct Move {
    pub(crate) sort: Sort,
    pub(crate) what: What,
    pub(crate) result: Result<State, &'static str>,
}

/// For people.
#[derive(Clone, Debug)]
pub(crate) struct What {
    pub(crate) id: Id,
    pub(crate) side: &'static str,
    pub(crate) text: String,
}

struct Moves<'a> {
    rules: &'a Rules,
    /// Whether what happens is spelled out.
    spell: bool,
    state: State,
    found: Vec<Move>,
}

/// All moves from `state`, always in the same order.
pub(crate) fn moves(rules: &Rules, state: &State, spell: bool) -> Vec<Move> {
    let mut moves = Moves { rules, spell, state: *state, found: Vec::new() };
    for id in 0..2 {
        if state.migrations[id].is_some() {
            moves.of_side::<AtSource>(id);
            moves.of_side::<AtTarget>(id);
            moves.of_link(id);
            moves.of_guard(id);
        }
    }
    moves.of_hosts();
    moves.found
}

impl Moves<'_> {
    fn add(
        &mut self,
        sort: Sort,
        id: Id,
        side: &'static str,
        text: impl FnOnce() -> String,
        result: Result<State, &'static str>,
    ) {
        let text = if self.spell { text() } else { String::new() };
        let result = result.and_then(|state| check(&state).map(|()| state.without_what_is_over()));
        self.found.push(Move { sort, what: What { id, side, text }, result });
    }

    /// Something that `S` hears, and does at once the first thing that comes of it.
    fn hear<S: Side>(
        &mut self,
        sort: Sort,
        id: Id,
        mut state: State,
        input: Input<<S::M as Machine>::Received, <S::M as Machine>::Operation>,
    ) {
        let step = S::step(self.rules);
        S::process(of(&mut state, id)).hear(input, step);
        self.add(sort, id, S::NAME, || format!("hears {input:?}"), Ok(state));
    }

    fn of_side<S: Side>(&mut self, id: Id) {
        let state = self.state;
        let migration = state.migrations[id].expect("it is under way");
        let process = *S::read(&migration);
        if !process.alive {
            if process.disk.is_some() {
                self.restart::<S>(id);
            }
            return;
        }
        self.crash::<S>(id, &process);
        self.criu::<S>(id);
        if let Some(action) = process.next_action() {
            self.execute::<S>(id, &process, action);
            return;
        }
        if let Some(link) = process.notice.link {
            let mut next = state;
            S::process(of(&mut next, id)).notice.link = None;
            let input = if link == Link::Up { Input::LinkUp } else { Input::LinkLost };
            self.hear::<S>(Sort::Regular, id, next, input);
            return;
        }
        if process.notice.criu {
            let mut next = state;
            S::process(of(&mut next, id)).notice.criu = false;
            self.hear::<S>(Sort::Regular, id, next, Input::CriuGone);
        }
        let mut next = state;
        let inbox = S::inbox(of(&mut next, id));
        if let Some(message) = inbox.head() {
            inbox.pop();
            self.hear::<S>(Sort::Regular, id, next, Input::Message(message));
        }
        if let Some(operation) = process.job {
            self.finish::<S>(id, operation);
        }
        self.clock_and_user::<S>(id, &process);
    }

    fn finish<S: Side>(&mut self, id: Id, operation: <S::M as Machine>::Operation) {
        let mut next = self.state;
        S::process(of(&mut next, id)).job = None;
        let mut done = next;
        match S::effect(self.rules, &mut done, id, operation) {
            Err(violation) => self.add(Sort::Regular, id, S::NAME, || format!("does {operation:?}"), Err(violation)),
            Ok(Outcome::Waits) => {}
            Ok(Outcome::Failed) => self.hear::<S>(Sort::Regular, id, next, Input::Failed(operation)),
            Ok(Outcome::Done) => {
                self.hear::<S>(Sort::Regular, id, done, Input::Done(operation));
                if let Some(budget) = spend(self.state.budget, |budget| &mut budget.failures) {
                    // With nothing of it done, or all.
                    for mut failed in [next, done] {
                        failed.budget = budget;
                        self.hear::<S>(Sort::Fault, id, failed, Input::Failed(operation));
                    }
                }
            }
        }
    }

    fn clock_and_user<S: Side>(&mut self, id: Id, process: &Process<S::M>) {
        let mut state = self.state;
        let wait = process.machine.waits();
        let outbox = S::outbox(of(&mut state, id));
        let room = !outbox.is_full();
        // What repeats a message does so when the last has arrived or is lost: that one may come twice is a fault.
        if wait == Wait::Answer && room || wait == Wait::Repeat && outbox.head().is_none() {
            self.hear::<S>(Sort::Regular, id, self.state, Input::TimedOut);
        }
        if let (Some(budget), false, true) =
            (spend(state.budget, |budget| &mut budget.cancels), wait == Wait::Nothing, room)
        {
            state.budget = budget;
            self.hear::<S>(Sort::Fault, id, state, Input::Cancelled);
            if wait == Wait::Operation {
                self.hear::<S>(Sort::Fault, id, state, Input::TimedOut);
            }
        }
    }

    fn execute<S: Side>(&mut self, id: Id, process: &Process<S::M>, action: ActionOf<S::M>) {
        let mut next = self.state;
        let migration = of(&mut next, id);
        let result = match S::process(migration).execute() {
            Executed::Record(record) => S::recorded(&mut next, id, record),
            Executed::Send(message) => {
                // Where as many are under way one more is lost: a sender that waited could wait for its own reader.
                if migration.link == Link::Up && !S::outbox(migration).is_full() {
                    S::outbox(migration).push(message);
                }
                Ok(())
            }
            Executed::Disconnect => {
                migration.disconnect();
                S::process(migration).notice.link = None;
                Ok(())
            }
            Executed::Erased | Executed::Other => Ok(()),
        };
        self.add(Sort::Regular, id, S::NAME, || format!("executes {action:?}"), result.map(|()| next));
        if let Some(budget) = spend(self.state.budget, |budget| &mut budget.full) {
            let mut full = self.state;
            full.budget = budget;
            let mut process = *process;
            if process.unwritten() {
                *S::process(of(&mut full, id)) = process;
                self.add(Sort::Fault, id, S::NAME, || format!("cannot execute {action:?}"), Ok(full));
            }
        }
    }

    fn crash<S: Side>(&mut self, id: Id, process: &Process<S::M>) {
        let Some(budget) = spend(self.state.budget, |budget| &mut budget.crashes) else { return };
        // One that has nothing to lose is started anew at once.
        if process.machine.waits() == Wait::Nothing && !process.busy() && process.disk.is_none() {
            return;
        }
        let mut states = vec![self.state];
        if let Some(operation) = process.job {
            let mut done = self.state;
            if S::effect(self.rules, &mut done, id, operation) == Ok(Outcome::Done) {
                states.push(done);
            }
            states.extend(S::halves(&self.state, id, operation));
        }
        for mut state in states {
            state.budget = budget;
            S::orphaned(&mut state, id);
            let migration = of(&mut state, id);
            migration.disconnect();
            S::process(migration).die();
            self.add(Sort::Fault, id, S::NAME, || "dies".into(), Ok(state));
        }
    }

    fn criu<S: Side>(&mut self, id: Id) {
        let Some(budget) = spend(self.state.budget, |budget| &mut budget.criu) else { return };
        if S::has_criu(&self.state, id) {
            let mut state = self.state;
            state.budget = budget;
            S::orphaned(&mut state, id);
            S::process(of(&mut state, id)).notice.criu = true;
            self.add(Sort::Fault, id, S::NAME, || "loses CRIU".into(), Ok(state));
        }
    }

    fn restart<S: Side>(&mut self, id: Id) {
        let mut next = self.state;
        let rules = self.rules;
        match S::NAME {
            "source" => of(&mut next, id).restart_source(rules),
            _ => of(&mut next, id).restart_target(rules),
        }
        let disk = next.migrations[id].and_then(|migration| S::read(&migration).disk);
        self.add(Sort::Regular, id, S::NAME, || format!("is started from {disk:?}"), Ok(next));
    }

    fn of_link(&mut self, id: Id) {
        let state = self.state;
        let migration = state.migrations[id].expect("it is under way");
        if migration.link == Link::Up {
            if let Some(budget) = spend(state.budget, |budget| &mut budget.cuts) {
                let mut next = state;
                next.budget = budget;
                of(&mut next, id).disconnect();
                self.add(Sort::Fault, id, "link", || "is cut".into(), Ok(next));
            }
            self.of_messages::<AtSource>(id);
            self.of_messages::<AtTarget>(id);
            return;
        }
        let waits = migration.source.notice.link.is_some() || migration.target.notice.link.is_some();
        let dead = |alive: bool, record: bool| !alive && record;
        let restarts = dead(migration.source.alive, migration.source.disk.is_some())
            || dead(migration.target.alive, migration.target.disk.is_some());
        let busy = migration.source.busy() || migration.target.busy();
        // It is the source that calls, as long as it has something to say.
        let done = migration.source.machine.is_over() || !migration.source.alive;
        if state.severed || waits || restarts || busy || done {
            return;
        }
        let mut next = state;
        connect::<AtSource>(of(&mut next, id));
        connect::<AtTarget>(of(&mut next, id));
        self.add(Sort::Regular, id, "link", || "is made".into(), Ok(next));
    }

    fn of_messages<S: Side>(&mut self, id: Id) {
        let state = self.state;
        let mut next = state;
        let outbox = *S::outbox(of(&mut next, id));
        let Some(message) = outbox.head() else { return };
        if let Some(budget) = spend(state.budget, |budget| &mut budget.losses[S::DIRECTION]) {
            let mut lost = state;
            lost.budget = budget;
            S::outbox(of(&mut lost, id)).pop();
            self.add(Sort::Fault, id, S::NAME, || format!("is not heard saying {message:?}"), Ok(lost));
        }
        if outbox.is_full() {
            return;
        }
        if let Some(budget) = spend(state.budget, |budget| &mut budget.duplicates) {
            let mut twice = state;
            twice.budget = budget;
            S::outbox(of(&mut twice, id)).double();
            self.add(Sort::Fault, id, S::NAME, || format!("is heard twice saying {message:?}"), Ok(twice));
        }
    }

    /// The guard kills what its crr has left.
    fn of_guard(&mut self, id: Id) {
        let state = self.state;
        let host = 1 - id;
        if self.rules.guard
            && state.world.guard[host][id]
            && !state.migrations[id].is_some_and(|migration| migration.target.alive)
        {
            let mut next = state;
            next.world.guard[host][id] = false;
            if matches!(next.world.copies[host], Life::Loose(of) | Life::Held(of) | Life::Frozen(of) if of == id) {
                next.world.copies[host] = Life::Absent;
            }
            self.add(Sort::Regular, id, "guard", || "kills the copy".into(), Ok(next));
        }
    }

    fn of_hosts(&mut self) {
        let state = self.state;
        // The way back, from where the tree runs.
        if state.budget.reverse && state.world.copies[1] == Life::Runs && !state.is_claimed(1, 1) {
            let mut next = state;
            next.budget.reverse = false;
            next.migrations[1] = Some(Migration::begin());
            self.add(Sort::Regular, 1, "user", || "begins".into(), Ok(next));
        }
        if !state.severed && state.budget.cuts > 0 {
            let mut next = state;
            next.severed = true;
            next.budget = Budget::NONE;
            for id in 0..2 {
                if let Some(migration) = &mut next.migrations[id] {
                    migration.disconnect();
                }
            }
            self.add(Sort::Fault, 0, "link", || "is cut for good".into(), Ok(next));
        }
        for id in 0..2 {
            let Some(migration) = state.migrations[id] else { continue };
            let host = 1 - id;
            let undecided = matches!(migration.target.disk, Some((TargetRecord::Prepared, _)));
            // What it becomes after COMMITTED is the program's own death.
            let verified =
                migration.target.busy() || !matches!(migration.target.job, None | Some(TargetOperation::FindCopy));
            let Some(budget) = spend(state.budget, |budget| &mut budget.kills) else { continue };
            if state.world.copies[host] == Life::Frozen(id) && undecided && !verified {
                let mut next = state;
                next.budget = budget;
                next.world.copies[host] = Life::Absent;
                self.add(Sort::Fault, id, "kernel", || "kills the frozen copy on the target".into(), Ok(next));
            }
        }
        if let Some(budget) = spend(state.budget, |budget| &mut budget.reboots) {
            for host in 0..2 {
                let mut next = state;
                next.budget = budget;
                next.rebooted = true;
                reboot(&mut next, host);
                self.add(Sort::Fault, 0, "host", || format!("{host} is started anew"), Ok(next));
            }
        }
    }
}

fn of(state: &mut State, id: Id) -> &mut Migration {
    state.migrations[id].as_mut().expect("it is under way")
}

fn connect<S: Side>(migration: &mut Migration) {
    migration.link = Link::Up;
    let process = S::process(migration);
    if process.alive {
        process.notice.link = Some(Link::Up);
    } else {
        *process = Process::new(S::answering());
    }
}

/// All processes of a host are gone, and what they made; the disk stays.
fn reboot(state: &mut State, host: usize) {
    let world = &mut state.world;
    world.copies[host] = Life::Absent;
    world.address[host] = false;
    world.fence[host] = [false; 2];
    world.lock[host] = [false; 2];
    world.images[host] = [false; 2];
    world.guard[host] = [false; 2];
    for id in 0..2 {
        let Some(migration) = &mut state.migrations[id] else { continue };
        migration.disconnect();
        if host == id {
            migration.source.die();
            migration.source.disk = migration.source.disk.map(|(record, _)| (record, Wrote::Before));
        } else {
            migration.target.die();
            migration.target.disk = migration.target.disk.map(|(record, _)| (record, Wrote::Before));
        }
    }
}

fn spend(mut budget: Budget, which: impl Fn(&mut Budget) -> &mut u8) -> Option<Budget> {
    let left = which(&mut budget);
    *left = left.checked_sub(1)?;
    Some(budget)
}

/// What must hold in every state.
fn check(state: &State) -> Result<(), &'static str> {
    state.world.check()?;
    for id in 0..2 {
        let Some(migration) = &state.migrations[id] else { continue };
        let (here, there) = (id, 1 - id);
        // Two at all only in the documented window: behind the fence, before PREPARED, out of the source's reach.
        if let Life::Loose(of) = state.world.copies[there] {
            let prepared = matches!(
                migration.target.disk,
                Some((TargetRecord::Prepared | TargetRecord::Committed | TargetRecord::Running, _))
            );
            if of == id && !migration.target.alive && !state.world.guard[there][id] {
                return Err("a copy runs loose, and nobody is there to kill it");
            }
            if of == id && prepared {
                return Err("a copy runs loose and is called prepared");
            }
            if of == id && state.world.copies[here] == Life::Runs && !migration.parted {
                return Err("the source is thawed while the target's copy may run and can be reached");
            }
        }
        let done = matches!(migration.source.disk, Some((SourceRecord::Done, _)));
        if done && !state.rebooted && matches!(state.world.copies[there], Life::Frozen(of) if of == id) {
            return Err("the source kills its copy before the target's runs");
        }
    }
    Ok(())
}

/// A link that is cut for good: one copy runs, or it is the doubt that is documented.
pub(crate) fn is_settled_alone(state: &State) -> bool {
    let doubt = state.migrations.iter().flatten().any(|migration| {
        matches!(migration.source.disk, Some((SourceRecord::Commit, _)))
            && matches!(migration.target.disk, Some((TargetRecord::Prepared | TargetRecord::Returned, _)))
    });
    // With a host that was started anew the program may be lost.
    state.world.running() == 1 || doubt || state.rebooted
}
