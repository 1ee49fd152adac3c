//! `crr rm DIR…`

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use crr::Error;
use crr::checkpoint::{Checkpoint, Trust, links};
use crr::error::DirectoryProblem;
use crr::images::Images;
use crr::restore::unlock;

use super::super::failure::Failure;
use super::super::output::Output;
use super::super::{Global, must_be_root};
use super::unlock::tell;

/// Removes checkpoints and all that they hold outside their directories: network locks, names made for unlinked files
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The checkpoint directories
    #[arg(value_name = "DIR", required_unless_present = "container")]
    dirs: Vec<PathBuf>,
    /// Remove what a clone that is gone had written: the directory that `crr restore --container` made for it
    #[arg(long, value_name = "ID")]
    container: Vec<String>,
    /// Where its runtime kept it [default: /run/runc]
    #[arg(long, value_name = "DIR", requires = "container")]
    runtime_root: Option<PathBuf>,
    /// Remove a directory although others own or may write it
    #[arg(long)]
    trust_images: bool,
}

impl Rm {
    pub(crate) fn run(self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        must_be_root()?;
        let Self { dirs, container, runtime_root, trust_images } = self;
        let root = runtime_root.or_else(|| global.root.clone()).unwrap_or_else(|| PathBuf::from("/run/runc"));
        let trust = if trust_images { Trust::Anyone } else { Trust::owners() };
        let mut removed = Vec::new();
        for id in &container {
            let directory = crr::container::remove_clone(&root, &id.parse()?)?;
            removed.push(directory.display().to_string());
        }
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
    let links = unrecorded_links(dir, trust);
    Checkpoint::remove(dir, Path::new("/"), trust, |_| {})?;
    for link in links.iter().filter(|link| link.symlink_metadata().is_ok()) {
        output.note(&format!(
            "`{}` is left: CRIU made that name for the checkpoint or for another one; nothing says whose it is now",
            link.display()
        ));
    }
    Ok(())
}

/// The names that the criu program's own dump made for unlinked files. Another dump may have used one of them since.
fn unrecorded_links(dir: &Path, trust: Trust) -> Vec<PathBuf> {
    let Ok(checkpoint) = Checkpoint::open(dir, trust) else { return Vec::new() };
    let images = checkpoint.as_fd().try_clone_to_owned().map(|copy| Images::from_directory(copy, checkpoint.path()));
    match (checkpoint.record(), images) {
        (None, Ok(images)) => links(&images).unwrap_or_default().into_iter().collect(),
        _ => Vec::new(),
    }
}
