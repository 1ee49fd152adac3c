//! Schedules by chance, with more faults than can be gone through one by one. A seed tells one schedule: it is printed.

use std::fmt;

use crate::moves::{self, Sort};
use crate::rules::Rules;
use crate::state::{Budget, State};

/// What a walk may meet.
pub(crate) const HOSTILE: Budget = Budget {
    crashes: 6,
    criu: 3,
    cuts: 6,
    losses: [3; 2],
    duplicates: 3,
    failures: 4,
    full: 2,
    cancels: 2,
    kills: 1,
    reboots: 0,
    reverse: true,
};
/// Longer than any way to an end.
const STEPS: usize = 2000;

/// A walk that went wrong.
pub(crate) struct Lost {
    seed: u64,
    property: &'static str,
    story: Vec<String>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CRR_MODEL_SEED={}: {}:", self.seed, self.property)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Xorshift: the same schedules everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// One schedule: at first one step in eight is a fault, and when the budget or the time is up everything must come to an end.
/// Says how many steps it took.
pub(crate) fn walk(rules: &Rules, seed: u64, spell: bool) -> Result<usize, Lost> {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        chance.below(2);
    }
    let mut budget = HOSTILE;
    // Every third goes down with a host as well.
    budget.reboots = u8::from(matches!(seed % 3, 0));
    let mut state = State::start(budget);
    let mut story = Vec::new();
    let lost = |property, story| Lost { seed, property, story };
    for step in 0..STEPS {
        let calm = step > STEPS / 4;
        if state.is_good() && calm {
            return Ok(step);
        }
        let mut found = moves::moves(rules, &state, spell);
        let wants_fault = !calm && chance.below(8) == 0;
        let sort = if wants_fault { Sort::Fault } else { Sort::Regular };
        // That a link is cut for good leaves nothing to walk to.
        let fits = |found: &moves::Move| found.sort == sort && !found.result.as_ref().is_ok_and(|next| next.severed);
        let matching: Vec<usize> = (0..found.len()).filter(|at| fits(&found[*at])).collect();
        if matching.is_empty() {
            if wants_fault || !calm {
                continue;
            }
            return Err(lost("nothing can happen any more", story));
        }
        let next = found.swap_remove(matching[chance.below(matching.len())]);
        if spell {
            story.push(format!("{} {} {}", next.what.id, next.what.side, next.what.text));
        }
        state = match next.result {
            Ok(state) => state,
            Err(property) => return Err(lost(property, story)),
        };
    }
    match state.is_good() {
        true => Ok(STEPS),
        false => Err(lost("no end is reached in time", story)),
    }
}
