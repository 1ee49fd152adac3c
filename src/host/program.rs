//! Programs that CRIU starts by name.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::swrk::PATH;

/// A program that CRIU starts by name, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Where it is; `None` if it is not there.
    pub path: Option<PathBuf>,
}

/// Looks for `name` where CRIU will look for it.
pub fn program(name: &'static str) -> Program {
    Program { name, path: PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|path| is_executable(path)) }
}

/// Whether `path` is a file that someone may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
