//! `crr man [--out DIR]`

use std::path::PathBuf;
use std::process::ExitCode;

use super::super::failure::Failure;

/// Prints the man page, or writes one page per command into a directory
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Write crr.1, crr-dump.1, … there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let command = super::super::command();
        match self.out {
            Some(directory) => clap_mangen::generate_to(command, &directory)
                .map_err(crr::Error::io("write man pages into", &directory))?,
            None => clap_mangen::Man::new(command)
                .render(&mut std::io::stdout())
                .map_err(|source| crr::Error::system("print the man page", source))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
