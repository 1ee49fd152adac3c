//! Standard output is data, standard error is for people.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;
use super::progress::ProgressLine;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressStyle {
    /// A line on a terminal, for work that takes longer than a second; nothing elsewhere
    #[default]
    Auto,
    /// One JSON object a line
    Json,
    /// Not at all
    None,
}

/// Where a command's results go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    progress: ProgressStyle,
}

impl Output {
    pub(crate) fn new(json: bool, progress: ProgressStyle) -> Self {
        Self { json, progress }
    }

    /// Whether one JSON object is wanted instead of text.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Shows progress as the caller wants it.
    pub(crate) fn progress(&self) -> ProgressLine {
        ProgressLine::new(self.progress)
    }

    /// Prints a command's result: the object with `--json`, in which `ok` is true unless it says otherwise, else the text.
    pub(crate) fn result<T: Serialize>(&self, object: &T, text: &str) {
        if self.json {
            let mut object =
                serde_json::to_value(object).unwrap_or_else(|error| serde_json::json!({"error": error.to_string()}));
            if let Some(object) = object.as_object_mut() {
                // As in a failure: a script looks at one key to tell them apart.
                object.entry("ok").or_insert(true.into());
            }
            self.data(&format!("{object:#}\n"));
        } else {
            self.data(text);
        }
    }

    /// Prints to standard output. A reader that has gone away is no failure.
    pub(crate) fn data(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Tells a person something that is not the result.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "crr: {}", crr::escape::escape(text));
    }

    /// Prints a failure: to standard error as text, with `--json` to standard output as an object too.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            self.data(&format!("{:#}\n", failure.to_json()));
        }
        let bold = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let mut text = String::new();
        for (depth, line) in failure.chain.iter().enumerate() {
            let line = crr::escape::escape(line);
            text += &if depth == 0 { format!("crr: {on}{line}{off}\n") } else { format!("  because: {line}\n") };
        }
        for finding in &failure.findings {
            text += &super::findings::line(finding);
        }
        if let Some(explanation) = &failure.explanation {
            for line in explanation.to_string().lines() {
                text += &format!("  {line}\n");
            }
        }
        for line in &failure.state {
            text += &format!("  {}\n", crr::escape::escape(line));
        }
        if let Some(hint) = &failure.hint {
            text += &format!("  {on}What to do:{off} {}\n", crr::escape::escape(hint));
        }
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}
