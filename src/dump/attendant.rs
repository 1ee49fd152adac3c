//! Somebody who looks at the tree while it stands still, and may object or keep it standing.

use std::fmt;
use std::path::Path;

use crate::error::Result;
use crate::event::EventKind;

/// What becomes of a tree that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there, as it was or stopped.
    Lives,
    /// CRIU has killed it, or is about to.
    Ends,
}

/// Asked at events of a dump, in the order they come.
///
/// Asked at [`EventKind::QueryExtFiles`], when the tree has just been frozen, and at [`EventKind::PostDump`], when the images
/// are complete and nothing has been published. The tree stands still meanwhile: it must be quick.
pub(crate) trait Attendant: fmt::Debug + Send + Sync {
    /// Agrees, or says why the dump must not go on: the event is then refused, and the tree runs on.
    /// `images` is the directory that they are written to.
    fn attend(&mut self, event: &EventKind, images: &Path) -> Result<()>;

    /// Keeps the tree standing for as long as it likes, when the checkpoint is whole and published and CRIU is to be told to
    /// end the tree. An error lets the tree run on, and removes the checkpoint. Blocks, in a thread of its own.
    ///
    /// From here on nobody but the attendant puts the tree's connections right if CRIU dies, until the dump has failed.
    fn hold(&mut self, checkpoint: &Path) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }

    /// CRIU has been told to end the tree ([`Fate::Ends`]), or the dump has failed and what CRIU left in the tree has been put
    /// right ([`Fate::Lives`]): what the attendant has frozen is thawed now. The last that it hears; not called for a dump that
    /// lets the tree run on and succeeds.
    fn let_go(&mut self, fate: Fate) {
        let _ = fate;
    }

    /// CRIU has ended the tree, and says so: what was around it goes now, while the checkpoint is completed. Says what could not
    /// be removed. Blocks, in a thread of its own.
    fn tidy(&mut self) -> Vec<String> {
        Vec::new()
    }
}
