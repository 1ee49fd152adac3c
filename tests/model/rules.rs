//! The rules that are checked: those that are shipped, or those with a fault put in.

use crr::migrate::machine::{
    Boot, InputOf, Machine, Source, SourceRecord, Step, Target, TargetOperation, TargetRecord,
};

/// The functions by which both sides go.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) source: fn(&Source, InputOf<Source>) -> Step<Source>,
    pub(crate) target: fn(&Target, InputOf<Target>) -> Step<Target>,
    pub(crate) source_restarted: fn(SourceRecord, Boot) -> Step<Source>,
    pub(crate) target_restarted: fn(TargetRecord, Boot) -> Step<Target>,
    /// What is done where the target asks for an operation.
    pub(crate) target_does: fn(TargetOperation) -> TargetOperation,
    /// Whether a guard is posted.
    pub(crate) guard: bool,
}

/// What crr does.
pub(crate) const SHIPPED: Rules = Rules {
    source: Source::step,
    target: Target::step,
    source_restarted: Source::restarted,
    target_restarted: Target::restarted,
    target_does: |operation| operation,
    guard: true,
};
