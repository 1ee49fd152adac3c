//! Progress on standard error: a bar on a terminal for work of more than a second, or one JSON object a line.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde::Serialize;

use super::output::ProgressStyle;

/// Work that takes less than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows how far an operation is.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    style: ProgressStyle,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl ProgressLine {
    pub(crate) fn new(style: ProgressStyle) -> Self {
        Self { style, begun: Instant::now(), bar: None }
    }

    /// Shows a stage, by name, and bytes done of those expected.
    pub(crate) fn show<T: Serialize>(&mut self, event: &T, stage: &str, done: u64, expected: u64) {
        match self.style {
            ProgressStyle::None => {}
            ProgressStyle::Json => {
                if let Ok(mut line) = serde_json::to_string(event) {
                    line.push('\n');
                    let _ = std::io::stderr().lock().write_all(line.as_bytes());
                }
            }
            ProgressStyle::Auto => {
                if self.bar.is_none() && self.begun.elapsed() >= PATIENCE && std::io::stderr().is_terminal() {
                    self.bar = Some(bar());
                }
                if let Some(bar) = &self.bar {
                    bar.set_length(expected.max(done));
                    bar.set_position(done);
                    bar.set_message(stage.to_owned());
                }
            }
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = BarStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}") {
        bar.set_style(style);
    }
    bar
}
