//! Whether CRIU may go on: what all checks together say, and what has to be there when it does.

use std::path::Path;

use super::checks::{Checks, Found, check_criu};
use super::copy;
use super::home::Settled;
use super::network;
use super::problem::{Problem, Remarks};
use super::restoring::Restoring;
use super::subject::Subject;
use crate::checkpoint::{Checkpoint, Manifest, PutBack};
use crate::copy::Enclosure;
use crate::error::{Error, Result};
use crate::host::{Taken, abort_orphan};
use crate::request::{Tcp, Version};

pub(super) type Joined<T> = std::result::Result<T, tokio::task::JoinError>;

impl Restoring {
    /// Whether CRIU may go on, and what has to be there when it does.
    pub(super) fn judge(
        &mut self,
        directory: &Path,
        settled: Result<(std::result::Result<Settled, Problem>, Remarks)>,
        checked: Joined<Result<(Checks, Found)>>,
        taken: Vec<Taken>,
        criu: Version,
        tcp: Tcp,
    ) -> Result<()> {
        let Some(undo) = self.undo.as_mut() else { return Err(Error::Closed { attempt: "restore" }) };
        let (settled, said) = settled?;
        self.remarks.append(said);
        let settled = settled.map(|settled| {
            self.place.clone_from(&settled.place);
            undo.settled = Some(settled);
        });
        let (checks, mut found) = checked.map_err(broken)??;
        found.problems.extend(taken.into_iter().map(Problem::Pid));
        check_criu(checks.checkpoint.record(), criu, &mut found);
        let Found { mut problems, remarks, mends } = found;
        self.remarks.append(remarks);
        problems.extend(settled.err());
        if !problems.is_empty() {
            return Err(Error::Unrestorable { dir: directory.to_path_buf(), problems });
        }
        let Checks { checkpoint, subject, .. } = checks;
        let root = undo.enclosure.as_ref().map_or_else(|| "/".into(), Enclosure::root);
        let of_images = Manifest::default();
        let manifest = checkpoint.record().map_or(&of_images, |record| &record.files);
        copy::mend(manifest, &root, &mends, &mut self.remarks)?;
        undo.put_back = put_back(&checkpoint, &subject, &root, &mut self.remarks)?;
        if self.is_copy {
            // What is on the host is the original's.
            return Ok(());
        }
        // What the kernel keeps of the dumped tree's connections would be in the way of them, and of a socket that listens.
        for connection in &subject.local {
            if let Err(error) = abort_orphan(connection) {
                let from = connection.remote;
                self.remarks.warn(format!("an orphan of the connection from {from} may be in the way: {error}"));
                break;
            }
        }
        self.lock = (tcp == Tcp::Established).then(|| network::Lock::of(&subject)).flatten();
        Ok(())
    }
}

/// A check that did not come to its end: it panicked, or the runtime is shutting down.
pub(super) fn broken(error: tokio::task::JoinError) -> Error {
    Error::system("check the checkpoint", std::io::Error::other(error))
}

/// Makes what the checkpoint brings along: files that are missing, and CRIU's names for unlinked files.
fn put_back(checkpoint: &Checkpoint, subject: &Subject, root: &Path, remarks: &mut Remarks) -> Result<Option<PutBack>> {
    let Some(record) = checkpoint.record() else { return Ok(None) };
    // In a mount namespace of its own the tree finds them where CRIU puts them.
    if subject.own_mounts {
        return Ok(None);
    }
    if record.files.files().iter().any(|file| file.kept.is_some()) {
        let made = record.files.put_back(root, checkpoint, checkpoint.path())?;
        made.iter().for_each(|path| remarks.note(format!("put back `{}`", path.display())));
    }
    if record.remaps.is_empty() {
        return Ok(None);
    }
    record.remaps.put_back(root, checkpoint, checkpoint.path()).map(Some)
}
