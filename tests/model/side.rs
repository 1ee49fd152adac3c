//! The two sides of a migration, alike to whoever moves them.

use crr::migrate::machine::{
    Course, InputOf, Link, Machine, Source, SourceOperation, SourcePhase, SourceRecord, Step, Target, TargetOperation,
    TargetPhase, TargetRecord,
};

use crate::rules::Rules;
use crate::state::{Migration, Process, Queue, State};
use crate::world::{Host, Id, Life, Outcome};

/// How a machine takes an input.
pub(crate) type StepOf<M> = fn(&M, InputOf<M>) -> Step<M>;

pub(crate) trait Side {
    type M: Machine;
    const NAME: &'static str;
    /// Which of the budget's directions its messages go in.
    const DIRECTION: usize;

    fn host(id: Id) -> Host;
    fn process(migration: &mut Migration) -> &mut Process<Self::M>;
    fn read(migration: &Migration) -> &Process<Self::M>;
    fn outbox(migration: &mut Migration) -> &mut Queue<<Self::M as Machine>::Sent>;
    fn inbox(migration: &mut Migration) -> &mut Queue<<Self::M as Machine>::Received>;
    fn step(rules: &Rules) -> StepOf<Self::M>;
    /// What answers where there is neither process nor record.
    fn answering() -> Self::M;
    /// What the operation does; an error is a violation.
    fn effect(
        rules: &Rules,
        state: &mut State,
        id: Id,
        operation: <Self::M as Machine>::Operation,
    ) -> Result<Outcome, &'static str>;
    /// The operation dies half-way: what is left, beside nothing and all of it.
    fn halves(state: &State, id: Id, operation: <Self::M as Machine>::Operation) -> Option<State>;
    /// CRIU is gone on this side, or the process that it talks to.
    fn orphaned(state: &mut State, id: Id);
    /// Whether CRIU can still die here.
    fn has_criu(state: &State, id: Id) -> bool;
    /// A record has just become durable.
    fn recorded(state: &mut State, id: Id, record: <Self::M as Machine>::Record) -> Result<(), &'static str>;
}

pub(crate) struct AtSource;
pub(crate) struct AtTarget;

impl Side for AtSource {
    type M = Source;
    const NAME: &'static str = "source";
    const DIRECTION: usize = 0;

    fn host(id: Id) -> Host {
        id
    }
    fn process(migration: &mut Migration) -> &mut Process<Source> {
        &mut migration.source
    }
    fn read(migration: &Migration) -> &Process<Source> {
        &migration.source
    }
    fn outbox(migration: &mut Migration) -> &mut Queue<<Source as Machine>::Sent> {
        &mut migration.to_target
    }
    fn inbox(migration: &mut Migration) -> &mut Queue<<Source as Machine>::Received> {
        &mut migration.to_source
    }
    fn step(rules: &Rules) -> StepOf<Source> {
        rules.source
    }
    fn answering() -> Source {
        Source::forgotten()
    }
    fn effect(_: &Rules, state: &mut State, id: Id, operation: SourceOperation) -> Result<Outcome, &'static str> {
        let migration = state.migrations[id].as_ref().expect("it is under way");
        if operation == SourceOperation::Thaw && migration.committed && state.world.copies[id] == Life::Frozen(id) {
            return Err("a source in COMMIT thaws its copy");
        }
        if operation == SourceOperation::Deliver {
            return Ok(match (migration.link, migration.target.machine.phase()) {
                (Link::Up, TargetPhase::Received) => Outcome::Done,
                (Link::Up, TargetPhase::Receiving(Course::Onward)) if migration.source.is_onward() => Outcome::Waits,
                _ => Outcome::Failed,
            });
        }
        Ok(state.world.source(id, operation))
    }
    fn halves(_: &State, _: Id, _: SourceOperation) -> Option<State> {
        None
    }
    // What is frozen stays frozen; what is not is let go by CRIU, and runs already here.
    fn orphaned(_: &mut State, _: Id) {}
    fn has_criu(state: &State, id: Id) -> bool {
        state.world.lock[id][id]
    }
    fn recorded(state: &mut State, id: Id, record: SourceRecord) -> Result<(), &'static str> {
        let migration = state.migrations[id].as_mut().expect("it is under way");
        match record {
            SourceRecord::Commit => migration.committed = true,
            // Only by the target's word, which is a record there.
            SourceRecord::Abort if migration.committed => {
                if !matches!(migration.target.disk, Some((TargetRecord::Returned, _))) {
                    return Err("a source in COMMIT aborts by itself");
                }
                migration.committed = false;
            }
            SourceRecord::Intent | SourceRecord::Held | SourceRecord::Resumed if migration.committed => {
                return Err("a record of before COMMIT follows it");
            }
            _ => {}
        }
        Ok(())
    }
}

impl Side for AtTarget {
    type M = Target;
    const NAME: &'static str = "target";
    const DIRECTION: usize = 1;

    fn host(id: Id) -> Host {
        1 - id
    }
    fn process(migration: &mut Migration) -> &mut Process<Target> {
        &mut migration.target
    }
    fn read(migration: &Migration) -> &Process<Target> {
        &migration.target
    }
    fn outbox(migration: &mut Migration) -> &mut Queue<<Target as Machine>::Sent> {
        &mut migration.to_source
    }
    fn inbox(migration: &mut Migration) -> &mut Queue<<Target as Machine>::Received> {
        &mut migration.to_target
    }
    fn step(rules: &Rules) -> StepOf<Target> {
        rules.target
    }
    fn answering() -> Target {
        Target::idle()
    }
    fn effect(rules: &Rules, state: &mut State, id: Id, operation: TargetOperation) -> Result<Outcome, &'static str> {
        let migration = state.migrations[id].as_ref().expect("it is under way");
        if operation == TargetOperation::Receive {
            return Ok(match (migration.link, migration.source.machine.phase()) {
                (Link::Up, SourcePhase::Delivering(Course::Onward)) => Outcome::Done,
                (Link::Up, SourcePhase::Offered | SourcePhase::Dumping(_)) if migration.target.is_onward() => {
                    Outcome::Waits
                }
                _ => Outcome::Failed,
            });
        }
        let busy = state.is_claimed(Self::host(id), id);
        let operation = (rules.target_does)(operation);
        let outcome = state.world.target(id, operation, busy)?;
        if !rules.guard {
            state.world.guard = [[false; 2]; 2];
        }
        Ok(outcome)
    }
    fn halves(state: &State, id: Id, operation: TargetOperation) -> Option<State> {
        // CRIU had been told to go on from `post-restore`.
        let mut half = *state;
        (operation == TargetOperation::Restore && half.world.target(id, operation, false).is_ok()).then_some(half)
    }
    fn orphaned(state: &mut State, id: Id) {
        state.world.let_go(id);
    }
    fn has_criu(state: &State, id: Id) -> bool {
        state.world.copies[1 - id] == Life::Held(id)
    }
    fn recorded(state: &mut State, id: Id, record: TargetRecord) -> Result<(), &'static str> {
        // What comes in has its directory from here on.
        if record == TargetRecord::Receiving {
            state.world.images[Self::host(id)][id] = true;
        }
        Ok(())
    }
}
