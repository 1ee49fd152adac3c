//! `crr unlock DIR`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crr::checkpoint::Trust;
use crr::restore::{Unlocked, unlock};

use super::super::failure::Failure;
use super::super::must_be_root;
use super::super::output::Output;

/// Removes the network lock of a checkpoint that will not be restored here
///
/// A dump that ends its tree leaves the connections locked, so that their peers wait for the restore. Without a restore on
/// this host they would wait for ever. After this the checkpoint cannot be restored with its connections any more.
#[derive(Debug, Args)]
pub(crate) struct Unlock {
    /// The checkpoint directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Believe the directory although others own or may write it
    #[arg(long)]
    trust_images: bool,
}

impl Unlock {
    pub(crate) fn run(self, output: &Output) -> Result<ExitCode, Failure> {
        must_be_root()?;
        let Self { dir, trust_images } = self;
        let trust = if trust_images { Trust::Anyone } else { Trust::owners() };
        let unlocked = unlock(&dir, trust)?;
        tell(output, &unlocked);
        let text: String = unlocked.removed.iter().map(|lock| format!("removed {lock}\n")).collect();
        let text = if text.is_empty() { "there is no lock of this checkpoint here\n".to_owned() } else { text };
        output
            .result(&serde_json::json!({ "ok": true, "removed": unlocked.removed, "unread": unlocked.unread }), &text);
        Ok(ExitCode::SUCCESS)
    }
}

/// What could not be looked at may hold the lock.
pub(super) fn tell(output: &Output, unlocked: &Unlocked) {
    for unread in &unlocked.unread {
        output.note(&format!("could not look for locks: {unread}"));
    }
}
