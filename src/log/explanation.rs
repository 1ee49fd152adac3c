//! What a log says: the decisive line and its meaning.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;

use super::catalogue::{self, Entry, Rank};
use super::line::{Level, Line};
use super::pattern;

/// How many of the first errors, and as many of the last, an [`Explanation`] shows.
const CONTEXT: usize = 4;

/// How many errors are looked up in the catalogue. A log made of nothing but errors would keep a processor busy else.
const LOOKED_UP: u32 = 10_000;

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
    /// The first error that may have been harmless.
    doubtful: Option<Line>,
    /// The last generic error.
    generic: Option<Line>,
    looked_up: u32,
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
                if let Some(reading) = self.read(&line) {
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
        let among = |patterns: &[&'static str]| patterns.iter().any(|text| pattern::find(text, &line.text).is_some());
        if among(catalogue::HARMLESS) {
            return;
        }
        if among(catalogue::DOUBTFUL) {
            self.doubtful.get_or_insert(line);
            return;
        }
        if catalogue::FAILED.iter().any(|text| line.text == *text) {
            self.outcome = Outcome::Failed;
        }
        if among(catalogue::GENERIC) {
            self.generic = Some(line);
            return;
        }
        let reading = self.read(&line);
        self.note(line, reading);
    }

    /// Looks `line` up, as long as it may matter.
    fn read(&mut self, line: &Line) -> Option<(&'static Entry, Known)> {
        if self.cause.is_some() || self.looked_up == LOOKED_UP {
            return None;
        }
        self.looked_up += 1;
        read(line)
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
        let doubtful = self.doubtful.filter(|_| self.outcome == Outcome::Failed);
        let (decisive, known) = match (self.cause, self.first) {
            (Some((line, known)), _) => (Some(line), Some(known)),
            (None, Some((line, known))) => (Some(line), known),
            (None, None) => (doubtful.or(self.generic), None),
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

#[cfg(test)]
mod tests {
    use crate::log::{Explanation, Outcome, explain};

    fn of(texts: &[&str]) -> Explanation {
        explain(texts.iter().map(|text| format!("Error (a.c:1): {text}\n")).collect::<String>().as_bytes())
    }

    fn decisive(texts: &[&str]) -> (Option<u64>, Option<&'static str>) {
        let explanation = of(texts);
        (explanation.decisive.and_then(|line| line.number), explanation.known.map(|known| known.id))
    }

    const SYMPTOM: &str = "Unable to open fd=3 id=0x1e";
    const CAUSE: &str = "inet: Connected TCP socket in image";
    const OTHER_CAUSE: &str = "File /a has bad size 1 (expect 2)";

    #[test]
    fn the_earliest_line_that_names_a_cause_decides() {
        assert_eq!(decisive(&[CAUSE, SYMPTOM, OTHER_CAUSE]), (Some(1), Some("tcp-in-image")));
        assert_eq!(decisive(&["what is this", SYMPTOM, OTHER_CAUSE, CAUSE]), (Some(3), Some("file-size")));
    }

    #[test]
    fn a_symptom_decides_only_where_nothing_precedes_it() {
        assert_eq!(decisive(&[SYMPTOM, "what is this"]), (Some(1), Some("file-not-opened")));
        assert_eq!(decisive(&["what is this", SYMPTOM]), (Some(1), None));
    }

    #[test]
    fn an_unknown_error_is_shown_and_not_guessed_at() {
        let explanation = of(&["what is this", "Dumping FAILED."]);
        assert_eq!((explanation.known, explanation.outcome), (None, Outcome::Failed));
        assert_eq!(explanation.decisive.unwrap().text, "what is this");
        assert!(of(&["what is this"]).to_string().starts_with("The cause is not known"));
    }

    #[test]
    fn generic_and_doubtful_errors_are_the_last_resort() {
        let doubtful = "net: Unable to create a veth pair: -1";
        assert_eq!(decisive(&["12 exited, status=1", "Restoring FAILED."]), (Some(2), None));
        assert_eq!(decisive(&[doubtful, "12 exited, status=1", "Restoring FAILED."]), (Some(1), None));
        assert_eq!(decisive(&[doubtful, "what is this", "Restoring FAILED."]), (Some(2), None));
        assert_eq!(decisive(&[doubtful]), (None, None));
    }

    #[test]
    fn a_finished_operation_has_no_cause() {
        let log =
            format!("Error (a.c:1): {SYMPTOM}\n(00.1) x\n(00.094373) Restore finished successfully. Tasks resumed.\n");
        let explanation = explain(log.as_bytes());
        assert_eq!((explanation.outcome, explanation.decisive), (Outcome::Finished, None));
    }

    #[test]
    fn the_first_and_the_last_errors_and_the_decisive_one_are_shown() {
        let mut texts = vec!["what is this"; 40];
        texts[20] = CAUSE;
        let shown: Vec<_> = of(&texts).lines.iter().map(|line| line.number.unwrap()).collect();
        assert_eq!(shown, [1, 2, 3, 4, 21, 37, 38, 39, 40]);
    }

    #[test]
    fn an_explanation_of_nothing_says_so() {
        assert_eq!(of(&[]), Explanation::default());
        assert_eq!(of(&[]).to_string(), "The log names no error.\n");
    }
}
