//! A tree that `crr dump` has ended, and what its checkpoint is good for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::{self, Ran};
use crate::situations::Situation;
use crate::victim::{self, Start, Victim};
use crate::{Outcome, ensure, programs};

/// A tree in its checkpoint.
pub(crate) struct Dumped {
    pub(crate) victim: Victim,
    /// The PIDs it had, and gets.
    tree: Vec<i32>,
    pub(crate) images: PathBuf,
}

impl Dumped {
    /// A parent and a child.
    pub(crate) fn pair() -> Result<Self, Failed> {
        let victim = Victim::start(&programs::program("tree")?, &["2"])?;
        victim.await_ticks(1)?;
        Self::of(victim, &[])
    }

    /// The tree of a situation.
    pub(crate) fn situation(name: &str, words: &[&str]) -> Result<Self, Failed> {
        Self::of(start(name)?, words)
    }

    /// Dumps a tree to its place for images.
    pub(crate) fn of(mut victim: Victim, words: &[&str]) -> Result<Self, Failed> {
        let (images, tree) = (victim.images(), victim.tree());
        crr::dump(victim.pid(), &images, words)?.must_pass("crr dump")?;
        victim.await_gone(&tree)?;
        Ok(Self { victim, tree, images })
    }

    /// Restores it; the tree must find itself intact, and is killed again.
    pub(crate) fn comes_back(&mut self, words: &[&str]) -> Result<Ran, Failed> {
        let images = self.images.clone();
        self.comes_back_from(&images, words)
    }

    /// The same from another directory.
    pub(crate) fn comes_back_from(&mut self, images: &Path, words: &[&str]) -> Result<Ran, Failed> {
        let ran = crr::restore(images, words)?.must_pass("crr restore")?;
        self.intact()?;
        Ok(ran)
    }

    /// The tree, restored, finds itself intact, and is killed again.
    pub(crate) fn intact(&mut self) -> Outcome {
        self.victim.self_check()?;
        self.gone()
    }

    /// Kills the tree, but not what it left outside.
    pub(crate) fn gone(&mut self) -> Outcome {
        end(&mut self.victim, &self.tree)
    }

    /// A restore must exit with `code` and leave nothing of the tree. Gives what it said.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) -> Result<String, Failed> {
        self.refused_from(&self.images, code, words)
    }

    /// The same from another directory.
    pub(crate) fn refused_from(&self, images: &Path, code: i32, words: &[&str]) -> Result<String, Failed> {
        let ran = crr::restore(images, words)?.must_exit(code, &format!("crr restore {words:?}"))?;
        self.nothing_runs()?;
        Ok(ran.stderr)
    }

    /// Nothing of the tree is there.
    pub(crate) fn nothing_runs(&self) -> Outcome {
        let alive = |pid: &&i32| victim::state(**pid).is_some_and(|state| state != 'Z');
        let made: Vec<_> = self.tree.iter().filter(alive).collect();
        ensure!(made.is_empty(), "a tree was made: {made:?} of {:?}", self.tree);
        Ok(())
    }

    /// The `checkpoint` of its crr.json.
    pub(crate) fn record(&self) -> Result<serde_json::Value, Failed> {
        let text = fs::read(self.images.join("crr.json"))?;
        let mut record: serde_json::Value = serde_json::from_slice(&text)?;
        Ok(record["checkpoint"].take())
    }

    /// Replaces a text in its crr.json.
    pub(crate) fn edit_record(&self, from: &str, to: &str) -> Outcome {
        let path = self.images.join("crr.json");
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "crr.json has no {from}");
        fs::write(path, text.replacen(from, to, 1))?;
        Ok(())
    }
}

/// Kills the processes of a tree and waits until their numbers are free.
pub(crate) fn end(victim: &mut Victim, tree: &[i32]) -> Outcome {
    for pid in tree {
        // One may have ended with another.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    victim.await_gone(tree)
}

/// Starts a situation that every machine can give.
pub(crate) fn start(name: &str) -> Result<Victim, Failed> {
    match Situation::named(name).start()? {
        Start::Ready(victim) => Ok(victim),
        Start::Skipped(reason) => Err(format!("{name}: {reason}").into()),
    }
}

/// What must not change of each file below a directory: inode, mode, owner, times and content.
pub(crate) fn snapshot(directory: &Path) -> Result<BTreeMap<PathBuf, String>, Failed> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        let mut facts = format!(
            "inode {} mode {:o} owner {}:{} written {}.{}",
            metadata.ino(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        if metadata.is_file() {
            facts += &format!(" content {}", blake3::hash(&fs::read(&path)?));
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
        found.insert(path, facts);
    }
    Ok(found)
}
