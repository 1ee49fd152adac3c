//! What a log says: the decisive line and its meaning.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;

use super::catalogue::{self, Entry, Rank};
use super::line::{Level, Line};
use super::pattern;

/// How many of the first errors, and as many of the last, an [`Explanation`] shows.
const CONTEXT: usize = 4;

/// How the operation ended, as the log tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// CRIU wrote that it finished. It does so from log level 3 (information) on.
    Finished,
    /// CRIU wrote that it failed.
    Failed,
    /// Neither: it was killed, its log level hides it, or this is not its whole log.
    #[default]
    Untold,
}

/// The catalogue's reading of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// The [id](Entry::id) of the catalogue's entry.
    pub id: &'static str,
    /// What happened, in a sentence or two, with the values from the line.
    pub cause: String,
    /// What to do about it.
    pub cure: String,
}

/// Why an operation failed, as its log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// How the operation ended.
    pub outcome: Outcome,
    /// The line that names the cause. `None` if there is no error in the log or the operation finished.
    pub decisive: Option<Line>,
    /// What the decisive line means. `None` if that is not known.
    pub known: Option<Known>,
    /// The errors around the decisive line and that line itself, in the order of the log: the first few and the last few.
    pub lines: Vec<Line>,
}

/// The cause, the cure, and CRIU's lines; for a person.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.known, &self.decisive, self.outcome) {
            (Some(known), _, _) => writeln!(f, "{}\nWhat to do: {}", known.cause, known.cure)?,
            (None, Some(_), _) => writeln!(f, "The cause is not known: crr's catalogue has no entry for this error.")?,
            (None, None, Outcome::Finished) => writeln!(f, "CRIU finished; the log holds no failure.")?,
            (None, None, _) => writeln!(f, "The log names no error.")?,
        }
        if !self.lines.is_empty() {
            writeln!(f, "CRIU's log:")?;
        }
        for line in &self.lines {
            let mark = if Some(line) == self.decisive.as_ref() { '>' } else { ' ' };
            writeln!(f, "{mark} {line}")?;
        }
        Ok(())
    }
}

/// Reads lines one after the other and keeps what an explanation needs: constant memory, whatever the log's length.
#[derive(Default)]
pub(super) struct Reader {
    outcome: Outcome,
    /// The first line that names a cause.
    cause: Option<(Line, Known)>,
    /// The first error that is neither harmless nor generic.
    first: Option<(Line, Option<Known>)>,
    /// The last generic error.
    generic: Option<Line>,
    head: Vec<Line>,
    tail: VecDeque<Line>,
}

impl Reader {
    /// Takes the next line.
    pub(super) fn take(&mut self, line: Line) {
        match line.level {
            Level::Error => {}
            Level::Plain => {
                // Not CRIU's log format: only what is known by its text can be told from any other program's output.
                if let Some(reading) = read(&line) {
                    self.note(line, Some(reading));
                }
                return;
            }
            Level::Info => {
                if catalogue::FINISHED.iter().any(|text| line.text.starts_with(text)) {
                    self.outcome = Outcome::Finished;
                }
                return;
            }
            Level::Warn => return,
        }
        if catalogue::HARMLESS.iter().any(|pattern| pattern::find(pattern, &line.text).is_some()) {
            return;
        }
        if catalogue::FAILED.iter().any(|text| line.text == *text) {
            self.outcome = Outcome::Failed;
        }
        if catalogue::GENERIC.iter().any(|pattern| pattern::find(pattern, &line.text).is_some()) {
            self.generic = Some(line);
            return;
        }
        let reading = read(&line);
        self.note(line, reading);
    }

    fn note(&mut self, line: Line, reading: Option<(&'static Entry, Known)>) {
        if self.head.len() < CONTEXT {
            self.head.push(line.clone());
        } else {
            if self.tail.len() == CONTEXT {
                self.tail.pop_front();
            }
            self.tail.push_back(line.clone());
        }
        match reading {
            Some((entry, known)) if entry.rank == Rank::Cause => {
                if self.cause.is_none() {
                    self.cause = Some((line, known));
                }
            }
            reading => {
                if self.first.is_none() {
                    self.first = Some((line, reading.map(|(_, known)| known)));
                }
            }
        }
    }

    /// Decides.
    pub(super) fn finish(self) -> Explanation {
        if self.outcome == Outcome::Finished {
            return Explanation { outcome: self.outcome, ..Explanation::default() };
        }
        let (decisive, known) = match (self.cause, self.first, self.generic) {
            (Some((line, known)), _, _) => (Some(line), Some(known)),
            (None, Some((line, known)), _) => (Some(line), known),
            (None, None, generic) => (generic, None),
        };
        let mut lines = self.head;
        // Between the first and the last errors, where it is neither.
        if let Some(line) = decisive.as_ref().filter(|line| !lines.contains(line) && !self.tail.contains(line)) {
            lines.push(line.clone());
        }
        lines.extend(self.tail);
        Explanation { outcome: self.outcome, decisive, known, lines }
    }
}

/// Looks `line` up. Of several entries the first that names a cause wins, then the first.
fn read(line: &Line) -> Option<(&'static Entry, Known)> {
    let mut symptom = None;
    for entry in catalogue::entries() {
        let Some(values) = entry.patterns.iter().find_map(|pattern| pattern::find(pattern, &line.text)) else {
            continue;
        };
        let known = Known {
            id: entry.id,
            cause: pattern::fill(entry.cause, &values),
            cure: pattern::fill(entry.cure, &values),
        };
        if entry.rank == Rank::Cause {
            return Some((entry, known));
        }
        symptom.get_or_insert((entry, known));
    }
    symptom
}
