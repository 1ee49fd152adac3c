//! Tests on real process trees with the real CRIU. They need root, CRIU and some kernel features: a test whose needs are not
//! met is reported as *ignored, with the reason*, never as passed; `CRR_TEST_REQUIRE` (see [`need`]) makes that a failure.
//!
//! Everything runs in a mount and a network namespace of this program's own, so that nothing here meets the machine's
//! network or leaves a mount behind.

mod bed;
mod crr;
mod dumped;
mod elsewhere;
mod need;
mod programs;
mod rounds;
mod situations;
mod spawning;
mod state;
mod until;
mod victim;
mod world;

mod abandoned;
mod arena;
mod bad_input;
mod cgroups;
mod container;
mod copy;
mod damaged;
mod held;
mod hit_table;
mod interop;
mod joining;
mod kill;
mod latency;
mod leftovers;
mod locks;
mod moved;
mod network;
mod options;
mod pages;
mod parent_death;
mod policy;
mod remaps;
mod restore;
mod self_test;
mod terminal;
mod trees;
mod trust;
mod waiting;
mod words;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use need::Need;

/// What a test gives: an `Err` says what was not as it should be.
type Outcome = Result<(), Failed>;

/// Fails the test with a message when the condition does not hold.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}

/// A test that is run where all its needs are met.
fn test(name: impl Into<String>, needs: &'static [Need], run: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        for need in needs {
            if let Some(reason) = need.unmet() {
                if need.is_required() {
                    return Err(format!("CRR_TEST_REQUIRE asks for {need}, but {reason}").into());
                }
                return Ok(Completion::ignored_with(reason));
            }
        }
        run().map(|()| Completion::Completed)
    })
}

fn main() -> ExitCode {
    let helper = kill::as_helper().or_else(container::as_helper).or_else(bed::as_helper);
    if let Some(code) = helper.or_else(held::as_helper).or_else(pages::as_helper) {
        return code;
    }
    let arguments = Arguments::from_args();
    // Before the first thread: a thread alone would enter the namespaces alone.
    world::enter();
    let mut trials = Vec::new();
    trials.extend(trees::trials());
    trials.extend(arena::trials());
    trials.extend(network::trials());
    trials.extend(terminal::trials());
    trials.extend(cgroups::trials());
    trials.extend(locks::trials());
    trials.extend(self_test::trials());
    trials.extend(remaps::trials());
    trials.extend(restore::trials());
    trials.extend(copy::trials());
    trials.extend(abandoned::trials());
    trials.extend(bad_input::trials());
    trials.extend(kill::trials());
    trials.extend(latency::trials());
    trials.extend(interop::trials());
    trials.extend(joining::trials());
    trials.extend(damaged::trials());
    trials.extend(trust::trials());
    trials.extend(waiting::trials());
    trials.extend(moved::trials());
    trials.extend(options::trials());
    trials.extend(pages::trials());
    trials.extend(parent_death::trials());
    trials.extend(policy::trials());
    trials.extend(words::trials());
    trials.extend(leftovers::trials());
    trials.extend(container::trials());
    trials.extend(bed::trials());
    trials.extend(held::trials());
    trials.extend(hit_table::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    programs::remove();
    if hit_table::finish() { conclusion.exit_code() } else { ExitCode::FAILURE }
}
