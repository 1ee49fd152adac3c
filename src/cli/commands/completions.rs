//! `crr completions SHELL`

use std::process::ExitCode;

use super::super::failure::Failure;

/// Prints a completion script for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        clap_complete::generate(self.shell, &mut super::super::command(), "crr", &mut std::io::stdout());
        Ok(ExitCode::SUCCESS)
    }
}
