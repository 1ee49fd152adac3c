//! Somebody who looks at the tree while it stands still, and may object.

use std::fmt;
use std::path::Path;

use crate::error::Result;
use crate::event::EventKind;

/// Asked at events of a dump, in the order they come.
///
/// Asked at [`EventKind::QueryExtFiles`], when the tree has just been frozen, and at [`EventKind::PostDump`], when the images
/// are complete and nothing has been published. The tree stands still meanwhile: it must be quick.
pub(crate) trait Attendant: fmt::Debug + Send + Sync {
    /// Agrees, or says why the dump must not go on: the event is then refused, and the tree runs on.
    /// `images` is the directory that they are written to.
    fn attend(&mut self, event: &EventKind, images: &Path) -> Result<()>;
}
