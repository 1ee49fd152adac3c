//! Which message of the wire is which word of the machines. What else a message carries is the flows' matter.

use super::machine::{SourceMessage, TargetMessage};
use crate::wire::Message;

/// What a source hears in a message, if it is one for its machine.
pub fn heard_by_source(message: &Message) -> Option<TargetMessage> {
    Some(match message {
        Message::Ready(_) => TargetMessage::Ready,
        Message::Refused(_) => TargetMessage::Refused,
        Message::Prepared(_) => TargetMessage::Prepared,
        Message::Running => TargetMessage::Running,
        Message::Aborted(_) => TargetMessage::Aborted,
        Message::Returned(_) => TargetMessage::Returned,
        Message::Lost => TargetMessage::Lost,
        Message::Unknown => TargetMessage::Unknown,
        _ => return None,
    })
}

/// What a target hears in a message, if it is one for its machine.
pub fn heard_by_target(message: &Message) -> Option<SourceMessage> {
    Some(match message {
        Message::Offer(_) => SourceMessage::Offer,
        Message::Go { .. } => SourceMessage::Go,
        Message::Commit => SourceMessage::Commit,
        Message::Abort(_) => SourceMessage::Abort,
        Message::Ask => SourceMessage::Ask,
        Message::Forget => SourceMessage::Forget,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Cause, Reason};

    #[test]
    fn no_word_is_heard_by_the_side_that_says_it() {
        let reason = || Reason::new(Cause::Failed, "x");
        let of_source =
            [Message::Go { objects: 1 }, Message::Commit, Message::Abort(reason()), Message::Ask, Message::Forget];
        let of_target = [
            Message::Running,
            Message::Aborted(reason()),
            Message::Returned(reason()),
            Message::Lost,
            Message::Unknown,
        ];
        for message in &of_source {
            assert!(heard_by_target(message).is_some() && heard_by_source(message).is_none(), "{message:?}");
        }
        for message in &of_target {
            assert!(heard_by_source(message).is_some() && heard_by_target(message).is_none(), "{message:?}");
        }
        for message in [Message::Ping(1), Message::Pong(1)] {
            assert!(heard_by_source(&message).is_none() && heard_by_target(&message).is_none());
        }
    }
}
