//! The state machines of a migration under every order of messages, deaths, cut links and failures.
//!
//! It is the shipped functions that are driven ([`crr::migrate::machine`]); the hosts around them are a model (`world.rs`): an
//! operation succeeds with all of its effect, fails with none or all of it, or its process dies before, behind or (a restore)
//! in the middle of it. What is bounded is how many faults there are; bounds, number of states and time are printed.
//! `CRR_MODEL=all` takes wider bounds and more schedules, `CRR_MODEL_SEED=N` tells the schedule of one seed.

mod explore;
mod moves;
mod mutants;
mod rules;
mod side;
mod state;
mod walk;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::explore::explore;
use crate::mutants::{Mutant, mutants};
use crate::rules::SHIPPED;
use crate::state::Budget;
use crate::walk::walk;

/// More states than this are more than the machine of a test has room for.
const STATES: usize = 100_000_000;

fn main() {
    let arguments = Arguments::from_args();
    let all = std::env::var("CRR_MODEL").is_ok_and(|which| which == "all");
    let none = Budget::NONE;
    let mut budgets = vec![
        ("no_fault", none),
        ("two_crashes", Budget { crashes: 2, ..none }),
        ("a_bad_network", Budget { cuts: 1, losses: [1; 2], duplicates: 1, ..none }),
        ("dying_criu", Budget { criu: 1, crashes: 1, ..none }),
        ("failing_operations", Budget { failures: 1, full: 1, kills: 1, ..none }),
        ("a_user_who_cancels", Budget { cancels: 1, cuts: 1, ..none }),
        ("a_killed_copy_and_a_crash", Budget { crashes: 1, kills: 1, ..none }),
        ("a_full_disk_and_two_crashes", Budget { crashes: 2, full: 1, ..none }),
        ("a_reboot", Budget { reboots: 1, crashes: 1, ..none }),
    ];
    if all {
        budgets.extend([
            ("a_worse_network", Budget { cuts: 2, losses: [2; 2], duplicates: 1, ..none }),
            ("crashes_on_a_bad_network", Budget { crashes: 2, cuts: 1, losses: [1; 2], duplicates: 1, ..none }),
            ("more_crashes", Budget { crashes: 3, criu: 1, cuts: 1, ..none }),
            ("crashes_and_failures", Budget { crashes: 2, failures: 1, full: 1, kills: 1, ..none }),
            ("a_reboot_on_a_bad_network", Budget { reboots: 1, crashes: 1, cuts: 1, kills: 1, ..none }),
            ("there_and_back", Budget { reverse: true, ..none }),
            ("there_and_back_with_a_crash", Budget { reverse: true, crashes: 1, ..none }),
        ]);
    }
    let mut trials: Vec<Trial> =
        budgets.into_iter().map(|(name, budget)| Trial::test(name, move || survey(name, budget))).collect();
    trials.extend(mutants().into_iter().map(|mutant| Trial::test(mutant.name, move || find(&mutant))));
    let walks = if all { 200_000 } else { 2_000 };
    trials.push(Trial::test("hostile_schedules", move || schedules(walks)));
    libtest_mimic::run(&arguments, trials).exit();
}

fn survey(name: &str, budget: Budget) -> Result<(), Failed> {
    let survey = explore(&SHIPPED, budget, STATES).map_err(|violation| violation.to_string())?;
    println!("{name}: {survey}, with {budget}");
    Ok(())
}

fn find(mutant: &Mutant) -> Result<(), Failed> {
    match explore(&mutant.rules, mutant.budget, STATES) {
        Ok(survey) => Err(format!("nothing is found wrong with it: {survey}").into()),
        Err(violation) if violation.property.contains(mutant.property) => Ok(()),
        Err(violation) => Err(format!("something else is found: {violation}").into()),
    }
}

fn schedules(walks: u64) -> Result<(), Failed> {
    let tell = |seed| walk(&SHIPPED, seed, true).map_err(|lost| Failed::from(lost.to_string()));
    if let Ok(seed) = std::env::var("CRR_MODEL_SEED") {
        let steps = tell(seed.parse()?)?;
        println!("seed {seed}: {steps} steps");
        return Ok(());
    }
    let mut steps = 0;
    for seed in 1..=walks {
        match walk(&SHIPPED, seed, false) {
            Ok(taken) => steps += taken,
            Err(_) => drop(tell(seed)?),
        }
    }
    println!("{walks} schedules of {} steps on average, with {}", steps as u64 / walks, walk::HOSTILE);
    Ok(())
}
