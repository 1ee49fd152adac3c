//! The hooks of a bundle.

use std::path::PathBuf;
use std::time::Duration;

/// A program that the runtime runs at a point of a container's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program, absolute, in the host's file system.
    pub path: PathBuf,
    /// Its arguments from `argv[0]` on; empty means the path alone.
    pub args: Vec<String>,
    /// Its whole environment, `NAME=value`.
    pub env: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// Those that `runc restore` runs too, in this order, when the namespaces are set up. The others belong to the making and the
/// end of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `prestart`.
    pub prestart: Vec<Hook>,
    /// `createRuntime`.
    pub create_runtime: Vec<Hook>,
}
