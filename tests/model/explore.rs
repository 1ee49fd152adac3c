//! Every state that can be reached, by breadth: what is found first is the shortest way to it.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::moves::{self, Sort};
use crate::rules::Rules;
use crate::state::{Budget, State};

/// What was seen.
pub(crate) struct Survey {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) depth: usize,
    pub(crate) settled: usize,
    pub(crate) time: Duration,
}

impl std::fmt::Display for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { states, transitions, depth, settled, time } = self;
        write!(
            f,
            "{states} states, {transitions} transitions, depth {depth}, {settled} settled, {} ms",
            time.as_millis()
        )
    }
}

/// A property that does not hold, and how it comes to that.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) property: String,
    pub(crate) story: Vec<String>,
    pub(crate) states: usize,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} (after {} states):", self.property, self.states)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// How a state was reached: from which, by which of its moves.
#[derive(Clone, Copy)]
struct Origin {
    from: u32,
    by: u16,
}

/// Two independent hashes: states are many, and told apart by these alone. With 10^8 states the odds that any two coincide
/// are below 10^-22.
fn fingerprint(state: &State) -> u128 {
    let mut first = BuildHasherDefault::<DefaultHasher>::default().build_hasher();
    state.hash(&mut first);
    let mut second = first.clone();
    second.write_u8(1);
    // SipHash of the same input with one more byte: as good as another key.
    u128::from(first.finish()) << 64 | u128::from(second.finish())
}

/// Goes through everything within `budget`.
pub(crate) fn explore(rules: &Rules, budget: Budget, limit: usize) -> Result<Survey, Violation> {
    let begun = Instant::now();
    let mut known: HashMap<u128, u32> = HashMap::new();
    let mut origins: Vec<Origin> = Vec::new();
    // Regular moves only, backwards: from which states one is reached without a fault.
    let mut regular: Vec<(u32, u32)> = Vec::new();
    let mut goals: Vec<u32> = Vec::new();
    let mut level = Vec::new();
    let (mut transitions, mut depth, mut settled) = (0, 0, 0);

    let start = State::start(budget);
    known.insert(fingerprint(&start), 0);
    origins.push(Origin { from: 0, by: 0 });
    level.push((0_u32, start));
    while !level.is_empty() {
        let mut next = Vec::new();
        for (place, state) in level {
            let good = state.is_good();
            settled += usize::from(good);
            if if state.severed { moves::is_settled_alone(&state) } else { good } {
                goals.push(place);
            }
            for (by, step) in moves::moves(rules, &state, false).into_iter().enumerate() {
                transitions += 1;
                let reached = match step.result {
                    Ok(reached) => reached,
                    Err(property) => {
                        let mut story = tell(rules, budget, &origins, place);
                        let last = &moves::moves(rules, &state, true)[by].what;
                        story.push(format!("{} {} {}", last.id, last.side, last.text));
                        return Err(Violation { property: property.into(), story, states: known.len() });
                    }
                };
                let candidate = u32::try_from(origins.len()).expect("fewer than 2^32 states");
                let found = *known.entry(fingerprint(&reached)).or_insert(candidate);
                if found == candidate {
                    origins.push(Origin { from: place, by: u16::try_from(by).expect("few moves") });
                    next.push((found, reached));
                }
                if step.sort == Sort::Regular && found != place {
                    regular.push((found, place));
                }
            }
        }
        assert!(origins.len() < limit, "more than {limit} states: the bounds are too wide for this run");
        level = next;
        depth += 1;
    }
    drop(known);
    if let Some(stuck) = without_way(origins.len(), regular, goals) {
        let story = tell(rules, budget, &origins, stuck);
        let property = "without further faults no end is reached from here".into();
        return Err(Violation { property, story, states: origins.len() });
    }
    Ok(Survey { states: origins.len(), transitions, depth, settled, time: begun.elapsed() })
}

/// The first state from which no goal is reached by regular moves.
fn without_way(states: usize, mut backwards: Vec<(u32, u32)>, mut open: Vec<u32>) -> Option<u32> {
    backwards.sort_unstable();
    let mut first = vec![0_u32; states + 1];
    for (to, _) in &backwards {
        first[*to as usize + 1] += 1;
    }
    for place in 0..states {
        first[place + 1] += first[place];
    }
    let mut seen = vec![false; states];
    for goal in &open {
        seen[*goal as usize] = true;
    }
    while let Some(place) = open.pop() {
        let place = place as usize;
        for (_, from) in &backwards[first[place] as usize..first[place + 1] as usize] {
            if !std::mem::replace(&mut seen[*from as usize], true) {
                open.push(*from);
            }
        }
    }
    seen.iter().position(|seen| !seen).map(|place| u32::try_from(place).expect("it was one"))
}

/// The way to a state, in words.
fn tell(rules: &Rules, budget: Budget, origins: &[Origin], place: u32) -> Vec<String> {
    let mut way = Vec::new();
    let mut at = place;
    while at != 0 {
        let origin = origins[at as usize];
        way.push(origin.by);
        at = origin.from;
    }
    let mut state = State::start(budget);
    let mut story = Vec::new();
    for by in way.into_iter().rev() {
        let step = moves::moves(rules, &state, true).swap_remove(usize::from(by));
        story.push(format!("{} {} {}", step.what.id, step.what.side, step.what.text));
        state = step.result.expect("it was reached");
    }
    story.push(format!("there: {:?}, disks {:?}", state.world, disks(&state)));
    story
}

fn disks(state: &State) -> Vec<String> {
    let disk = |migration: &crate::state::Migration| {
        format!(
            "{:?} {:?} / {:?} {:?}, link {:?}",
            migration.source.disk,
            migration.source.machine.phase(),
            migration.target.disk,
            migration.target.machine.phase(),
            migration.link
        )
    };
    state.migrations.iter().flatten().map(disk).collect()
}
