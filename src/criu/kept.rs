//! What was found out about a CRIU, kept until the next boot.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::suitability::Verdict;
use crate::arena::FeatureCache;
use crate::error::{Error, Result};
use crate::host::{KernelRelease, RuntimeDirectory};
use crate::request::Version;

/// Which CRIU on which kernel: facts about one say nothing of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
    kernel: KernelRelease,
}

impl Identity {
    /// The CRIU at `path` (a wrapper script counts as itself) on the kernel that runs.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such file.
    pub fn of(path: &Path, kernel: &KernelRelease) -> Result<Self> {
        let metadata = path.metadata().map_err(Error::io("look at", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            kernel: kernel.clone(),
        })
    }

    /// Where what this CRIU finds out about this kernel is kept until the next boot.
    pub fn features(&self) -> FeatureCache {
        let mut about = blake3::Hasher::new();
        about.update(&serde_json::to_vec(self).unwrap_or_default());
        // Where the cache is needed, /run is not emptied by a boot.
        about.update(&std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
        FeatureCache::new(RuntimeDirectory::default(), self.name("kdat"), *about.finalize().as_bytes())
    }

    fn file_name(&self) -> String {
        self.name("json")
    }

    fn name(&self, extension: &str) -> String {
        let digest = blake3::hash(self.path.as_os_str().as_encoded_bytes()).to_hex();
        format!("criu-{}.{extension}", &digest[..16])
    }
}

/// What was found out about one CRIU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFacts {
    /// Its version.
    pub version: Option<Version>,
    /// Whether it can look at this kernel, or why not. Only asked of those that are too old for it by their number.
    pub starts: Option<Result<(), String>>,
    /// What its self-test said.
    pub verdict: Option<Verdict>,
}

/// A file: facts, and what they are about.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    identity: Identity,
    facts: KeptFacts,
}

/// The store of what was found out: one file for each CRIU in `/run/crr`.
///
/// Keeping a version saves the 4 ms of a request for it.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    directory: RuntimeDirectory,
}

impl Kept {
    /// A store in another directory than `/run/crr`.
    pub fn at(directory: RuntimeDirectory) -> Self {
        Self { directory }
    }

    /// What is known; nothing if the file is absent, damaged, foreign or about a CRIU or kernel that was replaced.
    pub fn load(&self, identity: &Identity) -> KeptFacts {
        let file: Option<File> = self.directory.read(&identity.file_name());
        file.filter(|file| file.identity == *identity).map(|file| file.facts).unwrap_or_default()
    }

    /// Keeps `facts`.
    ///
    /// # Errors
    /// As [`RuntimeDirectory::write`]; without root usually that it may not.
    pub fn store(&self, identity: &Identity, facts: &KeptFacts) -> Result<()> {
        let file = File { identity: identity.clone(), facts: facts.clone() };
        self.directory.write(&identity.file_name(), &file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, Kept, PathBuf, KernelRelease) {
        let scratch = tempfile::tempdir().expect("directory");
        let kept = Kept::at(RuntimeDirectory::at(scratch.path().join("run")));
        let binary = scratch.path().join("criu");
        std::fs::write(&binary, "#!/bin/sh\n").expect("file");
        (scratch, kept, binary, "6.18.44".parse().expect("a release"))
    }

    #[test]
    fn facts_are_of_one_binary_on_one_kernel() {
        let (scratch, kept, binary, kernel) = fresh();
        let facts = KeptFacts {
            version: Some(Version::new(4, 2)),
            starts: Some(Err("no".into())),
            verdict: Some(Verdict { suits: true, why: String::new(), steps: Vec::new() }),
        };
        let identity = Identity::of(&binary, &kernel).expect("identity");
        assert_eq!(kept.load(&identity), KeptFacts::default());
        kept.store(&identity, &facts).expect("stored");
        assert_eq!(kept.load(&identity), facts);

        let other_kernel = Identity::of(&binary, &"6.18.45".parse().expect("a release")).expect("identity");
        assert_eq!(kept.load(&other_kernel), KeptFacts::default());
        // The same name, another file: an upgrade.
        std::fs::write(scratch.path().join("new"), "#!/bin/sh\n").expect("file");
        std::fs::rename(scratch.path().join("new"), &binary).expect("renamed");
        let upgraded = Identity::of(&binary, &kernel).expect("identity");
        assert_eq!(kept.load(&upgraded), KeptFacts::default());
        assert!(Identity::of(&scratch.path().join("none"), &kernel).is_err());
    }

    #[test]
    fn a_damaged_file_is_nothing_and_is_replaced() {
        let (scratch, kept, binary, kernel) = fresh();
        let identity = Identity::of(&binary, &kernel).expect("identity");
        let facts = KeptFacts { version: Some(Version::new(4, 2)), ..KeptFacts::default() };
        kept.store(&identity, &facts).expect("stored");
        let path = scratch.path().join("run").join(identity.file_name());
        let whole = std::fs::read(&path).expect("file");
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("cut");
            assert_eq!(kept.load(&identity), KeptFacts::default(), "{length} bytes");
        }
        kept.store(&identity, &facts).expect("stored");
        assert_eq!(kept.load(&identity), facts);
    }
}
