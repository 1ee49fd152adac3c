//! How much may be written to a directory.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::error::{Error, Result};

/// The free space, in bytes, of the filesystem that holds a directory, or would hold it: the nearest one above that exists
/// is asked.
///
/// # Errors
/// [`Error::Io`] if that cannot be asked.
pub fn room(dir: &Path) -> Result<u64> {
    let absolute = std::path::absolute(dir).map_err(Error::io("find", dir))?;
    let existing = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = statvfs(existing).map_err(|errno| Error::io("ask for the free space of", existing)(errno.into()))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_has_the_room_of_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let here = room(dir.path()).unwrap();
        let below = room(&dir.path().join("a/b/c")).unwrap();
        assert!(here > 0 && here.abs_diff(below) < 1 << 30, "{here} {below}");
    }
}
