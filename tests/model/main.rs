//! The state machines of a migration under every order of messages, deaths, cut links and failures.
//!
//! It is the shipped functions that are driven ([`crr::migrate::machine`]); the hosts around them are a model (`world.rs`): an
//! operation succeeds with all of its effect, fails with none or all of it, or its process dies before, behind or (a restore)
//! in the middle of it. What is bounded is how many faults there are, and that is printed with the number of states.

mod explore;
mod moves;
mod rules;
mod side;
mod state;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::explore::explore;
use crate::rules::SHIPPED;
use crate::state::Budget;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    let budgets = [
        ("no_fault", Budget::NONE),
        ("one_crash", Budget { crashes: 1, ..Budget::NONE }),
        ("two_crashes", Budget { crashes: 2, ..Budget::NONE }),
        ("network", Budget { cuts: 2, losses: [1; 2], duplicates: 1, ..Budget::NONE }),
        ("criu", Budget { criu: 2, crashes: 1, cuts: 1, ..Budget::NONE }),
        ("operations", Budget { failures: 2, full: 1, cancels: 1, kills: 1, ..Budget::NONE }),
        ("mixed", Budget { crashes: 1, cuts: 1, failures: 1, kills: 1, ..Budget::NONE }),
        ("reboots", Budget { reboots: 1, crashes: 1, cuts: 1, ..Budget::NONE }),
        ("reverse", Budget { reverse: true, ..Budget::NONE }),
    ];
    for (name, budget) in budgets {
        trials.push(Trial::test(name, move || survey(name, budget)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn survey(name: &str, budget: Budget) -> Result<(), Failed> {
    match explore(&SHIPPED, budget, 20_000_000) {
        Ok(survey) => {
            println!("{name}: {survey}, with {budget:?}");
            Ok(())
        }
        Err(violation) => Err(violation.to_string().into()),
    }
}
