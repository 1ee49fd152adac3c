//! The hooks of a bundle.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A program that the runtime runs at a point of a container's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Those that runc runs, too, when it restores a container and when a checkpoint ends one. The others belong to its making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `prestart`, when the namespaces are set up.
    pub prestart: Vec<Hook>,
    /// `createRuntime`, right after them.
    pub create_runtime: Vec<Hook>,
    /// `poststop`, when the container is gone.
    pub poststop: Vec<Hook>,
}
