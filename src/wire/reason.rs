//! Why something ends, as one side tells the other.

use std::fmt;

use super::fault::Fault;
use super::fields::{Text, absent, enumeration};
use crate::proto::wire as proto;

enumeration! {
    /// The kind of reason.
    Cause of proto::reason::Cause, "cause":
    /// The user wanted it.
    Cancelled = CANCELLED,
    /// It took too long.
    TimedOut = TIMED_OUT,
    /// The link was lost.
    LinkLost = LINK_LOST,
    /// CRIU died.
    CriuGone = CRIU_GONE,
    /// Something that had to be done failed.
    Failed = FAILED,
    /// A record could not be written.
    Unwritten = UNWRITTEN,
    /// The other side said so.
    Peer = PEER,
    /// The process died that was at it.
    Restarted = RESTARTED,
    /// A person decided.
    Forced = FORCED,
    /// The other side said something that it must not say.
    Protocol = PROTOCOL,
    /// It is not allowed here.
    Policy = POLICY,
}

enumeration! {
    /// Where a migration is.
    Phase of proto::Phase, "phase":
    /// The source looks at itself.
    PreCheckpoint = PRE_CHECKPOINT,
    /// The target looks at what it is offered.
    PreRestore = PRE_RESTORE,
    /// The tree is dumped, and travels.
    Checkpoint = CHECKPOINT,
    /// It is rebuilt, committed and let go.
    Restore = RESTORE,
}

/// Why something ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub cause: Cause,
    /// For people: what went wrong, with which values.
    pub text: Text,
    /// For people: what can be done about it; may be empty.
    pub hint: Text,
}

impl Reason {
    /// A reason without a hint.
    pub fn new(cause: Cause, text: impl Into<Text>) -> Self {
        Self { cause, text: text.into(), hint: Text::default() }
    }

    pub(super) fn to_proto(&self) -> proto::Reason {
        let Self { cause, text, hint } = self;
        let mut reason = proto::Reason::new();
        reason.cause = cause.to_proto();
        reason.text = text.as_raw().into();
        reason.hint = hint.as_raw().into();
        reason
    }

    pub(super) fn parse(reason: proto::Reason) -> Result<Self, Fault> {
        // A failure that does not say why is none.
        if reason.text.is_empty() {
            return Err(absent("reason"));
        }
        Ok(Self {
            cause: Cause::parse(reason.cause)?,
            text: Text::parse("reason", reason.text)?,
            hint: Text::parse("hint", reason.hint)?,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)
    }
}

/// The conversation is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where the migration was.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
}

impl Failure {
    pub(super) fn to_proto(&self) -> proto::Failure {
        let Self { phase, reason } = self;
        let mut failure = proto::Failure::new();
        failure.phase = phase.to_proto();
        failure.reason = Some(reason.to_proto()).into();
        failure
    }

    pub(super) fn parse(failure: proto::Failure) -> Result<Self, Fault> {
        let reason = failure.reason.into_option().ok_or_else(|| absent("reason"))?;
        Ok(Self { phase: Phase::parse(failure.phase)?, reason: Reason::parse(reason)? })
    }
}
