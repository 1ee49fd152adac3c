//! Making files again what they were at the dump, where nobody else sees it: in the overlays of a copy.

use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::fcntl::OFlag;

use super::compare::{Difference, DifferenceKind};
use super::{Manifest, OutsideFile};
use crate::checkpoint::root::Root;
use crate::error::{Error, Result};

impl Manifest {
    /// Whether [`Manifest::mend`] can do something about it: there is a copy of the file in the checkpoint, or it has grown, as
    /// logs do while the original runs on.
    pub fn can_mend(&self, difference: &Difference) -> bool {
        let Some(file) = self.file(&difference.path).filter(|file| file.is_plain()) else { return false };
        match difference.kind {
            DifferenceKind::Size { expected_bytes, found_bytes } => file.kept.is_some() || found_bytes > expected_bytes,
            DifferenceKind::Mode { .. } | DifferenceKind::Content | DifferenceKind::Modified => file.kept.is_some(),
            _ => false,
        }
    }

    /// Cuts what has grown to its former size, and removes what the checkpoint has a copy of: [`Manifest::put_back`] makes it
    /// again. Says what was cut.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written to or removed.
    pub fn mend(&self, root: &Path, differences: &[Difference]) -> Result<Vec<PathBuf>> {
        let root = Root::open(root)?;
        let mut cut = Vec::new();
        for Difference { path, kind } in differences {
            let is_kept = self.file(path).is_some_and(|file| file.kept.is_some());
            match kind {
                _ if is_kept => {
                    let (parent, name) = root.parent(path)?;
                    parent.unlink(name, Type::File)?;
                }
                DifferenceKind::Size { expected_bytes, .. } => {
                    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
                    let failed = Error::io("cut", root.path_of(path));
                    root.get(path, flags).and_then(|file| file.set_len(*expected_bytes)).map_err(failed)?;
                    cut.push(path.clone());
                }
                _ => {}
            }
        }
        Ok(cut)
    }

    fn file(&self, path: &Path) -> Option<&OutsideFile> {
        self.0.iter().find(|file| file.path == path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn manifest(kept: Option<u32>) -> Manifest {
        let mode = Some(libc::S_IFREG | 0o644);
        let file = OutsideFile {
            path: "/log".into(),
            uses: Vec::new(),
            size_bytes: Some(3),
            mode,
            build_id: None,
            seen: None,
            blake3: None,
            kept,
        };
        Manifest(vec![file])
    }

    fn size(found_bytes: u64) -> Difference {
        Difference { path: "/log".into(), kind: DifferenceKind::Size { expected_bytes: 3, found_bytes } }
    }

    #[test]
    fn a_file_that_has_grown_is_cut_and_one_that_has_shrunk_is_not_invented() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("log"), "one, two").unwrap();
        let manifest = manifest(None);
        assert!(manifest.can_mend(&size(8)) && !manifest.can_mend(&size(2)));
        assert_eq!(manifest.mend(root.path(), &[size(8)]).unwrap(), [PathBuf::from("/log")]);
        assert_eq!(fs::read_to_string(root.path().join("log")).unwrap(), "one");
        let other = Difference { path: "/other".into(), kind: DifferenceKind::Content };
        assert!(!manifest.can_mend(&other));
    }

    #[test]
    fn a_file_that_is_kept_makes_room_for_its_former_self() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("log"), "o").unwrap();
        let manifest = manifest(Some(0));
        assert!(manifest.can_mend(&size(1)));
        assert!(manifest.mend(root.path(), &[size(1)]).unwrap().is_empty());
        assert!(!root.path().join("log").exists());
    }
}
