//! Memory on its way from the real CRIU to a store: whole, as CRIU's own page server would have written it, and with a tree that
//! runs on whatever fails.

mod arrivals;
mod faults;
mod run;

use std::process::ExitCode;

use libtest_mimic::Trial;

use crate::need::Need::{self, Cc, Criu, Netns, Root};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = arrivals::trials();
    trials.extend(faults::trials());
    trials
}

/// What this program does instead of testing where a test has started it as its helper.
pub(crate) fn as_helper() -> Option<ExitCode> {
    faults::as_helper()
}
