//! `crr rm DIR…`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use crr::Error;
use crr::checkpoint::{Checkpoint, Trust};
use crr::error::DirectoryProblem;
use crr::restore::unlock;

use super::super::failure::Failure;
use super::super::must_be_root;
use super::super::output::Output;
use super::unlock::tell;

/// Removes checkpoints and all that they hold outside their directories: network locks, names made for unlinked files
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The checkpoint directories
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Remove a directory although others own or may write it
    #[arg(long)]
    trust_images: bool,
}

impl Rm {
    pub(crate) fn run(self, output: &Output) -> Result<ExitCode, Failure> {
        must_be_root()?;
        let Self { dirs, trust_images } = self;
        let trust = if trust_images { Trust::Anyone } else { Trust::owners() };
        let mut removed = Vec::new();
        for dir in &dirs {
            let outcome = remove(dir, trust, output);
            if let Err(error) = outcome {
                let mut failure = Failure::from(error);
                failure.state.extend(removed.iter().map(|dir| format!("Removed before: {dir}")));
                return Err(failure);
            }
            removed.push(dir.display().to_string());
        }
        let text: String = removed.iter().map(|dir| format!("removed {}\n", crr::escape::escape(dir))).collect();
        output.result(&serde_json::json!({ "ok": true, "removed": removed }), &text);
        Ok(ExitCode::SUCCESS)
    }
}

fn remove(dir: &Path, trust: Trust, output: &Output) -> Result<(), Error> {
    match unlock(dir, trust) {
        Ok(unlocked) => tell(output, &unlocked),
        // A damaged one, or one whose removal was cut short: whatever lock it had, nobody can say which.
        Err(Error::Image { .. } | Error::Record { .. }) => {
            output.note(&format!("`{}` does not say which network lock is its own", dir.display()));
        }
        Err(Error::Directory { problem: DirectoryProblem::NotFound | DirectoryProblem::NotACheckpoint, .. }) => {}
        Err(error) => return Err(error),
    }
    Checkpoint::remove(dir, Path::new("/"), trust, |_| {})
}
