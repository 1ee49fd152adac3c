//! What CRIU would make of a process tree, found out before anything is frozen.
//!
//! [`examine`] reads the tree and gives a [`Report`]: the findings, the options a dump needs ([`Needs`]), the connections,
//! an estimate of the images' size, and a [`Verdict`]. It predicts CRIU 4.2's behaviour: a rule stands here because CRIU's
//! source has it or because CRIU was seen to do so, and the tests under `tests/` compare the verdicts with the real thing.
//!
//! | level | the dump | shown as |
//! |---|---|---|
//! | [`Level::WillNotWork`] | is refused, and no option helps | exit 78 |
//! | [`Level::NeedsChoice`] | works with one of the options named, each of which loses something or needs the user's word | exit 79 |
//! | [`Level::TurnsOn`] | works with an option that crr gives by itself | said |
//! | [`Level::Warning`] | passes, but the restore cannot, or something is lost without a word | said |
//! | [`Level::Note`] | works; something to know | said |

mod circumstances;
mod descriptors;
mod devices;
mod examine;
mod files;
mod findings;
#[cfg(test)]
mod fixture;
mod intent;
mod locks;
mod losses;
mod memory;
mod mounts;
mod namespaces;
mod needs;
mod outside;
mod peers;
mod report;
mod room;
#[cfg(test)]
mod rules;
mod sessions;
mod sockets;
mod tasks;
mod terminals;

pub use circumstances::{Capabilities, Circumstances, KernelRelease};
pub use examine::{examine, examine_tree};
pub use intent::{GHOST_LIMIT_BYTES, Intent};
pub use needs::{Need, Needs};
pub use report::{Choice, Connection, Finding, Level, Report, TaskSummary, TreeSummary, Verdict};
