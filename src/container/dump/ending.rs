//! What a runtime does when a container has been checkpointed: its cgroups and its state go.
//!
//! | crr is killed | left, and what the next run does |
//! |---|---|
//! | before `post-dump` is answered | the container, which runs on, and a note, which is removed |
//! | after, before the tasks are gone | CRIU ends them; the note, by which cgroups and state are removed |
//! | when cgroups are gone | a container that its runtime calls stopped, and the note: as above |
//! | when files of the state are gone | state.json is the last of them: as above |
//! | when the state is gone | the note, which is removed, and `poststop` hooks, which are run: once more if some had been |
//!
//! Nothing is removed recursively: a root file system may be mounted in the state directory, and it would be emptied.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::super::cgroup;
use super::super::hooks::Poststop;
use super::super::scene::Init;
use crate::checkpoint::{Checkpoint, Trust};
use crate::error::Result;
use crate::host::RuntimeDirectory;
use crate::operation::pause;

const PREFIX: &str = "ending-";
/// Killed tasks leave their cgroups within milliseconds.
const LEAVING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_micros(500);
/// What runtimes keep in the directory of a container, what names it the last.
const STATE_FILES: [&str; 6] = ["exec.fifo", "checkpoint", "notify.sock", "config.json", "status", "state.json"];

/// A container that is about to be ended by a dump: what has to be removed then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ending {
    /// The container's name.
    pub(super) id: String,
    /// When it was made: another of that name may come.
    pub(super) created: String,
    /// Its directory below the runtime's root.
    pub(super) state: PathBuf,
    /// The file in it that tells its first process, and what that must hold.
    pub(super) state_bytes_digest: String,
    pub(super) cgroups: Vec<PathBuf>,
    /// Its first process.
    pub(super) init: Init,
    /// Whether tasks outside of the tree were agreed to be ended as well.
    pub(super) drop_exec: bool,
    /// Where the checkpoint is to be.
    pub(super) checkpoint: PathBuf,
    /// The crr at work.
    pub(super) by: Init,
    /// What is run when it is gone.
    pub(super) poststop: Option<Poststop>,
    /// Whether nothing but that is left to be done, and perhaps the removal of the state.
    #[serde(default)]
    pub(super) is_removed: bool,
}

impl Ending {
    /// Notes what is about to happen. To be called before CRIU is told to end the tree.
    pub(super) fn note(&self) -> Result<()> {
        RuntimeDirectory::default().write(&self.name(), self)
    }

    /// It does not happen.
    pub(super) fn forget(&self) {
        // A note that stays is found to mean nothing, as the container runs.
        let _ = RuntimeDirectory::default().remove(&self.name());
    }

    fn name(&self) -> String {
        let digest = blake3::hash(self.state.as_os_str().as_encoded_bytes()).to_hex();
        format!("{PREFIX}{}.json", &digest[..16])
    }

    /// Removes what there is of the container, whose tasks CRIU has killed. Blocks until they are gone. Says what is left.
    pub(super) fn finish(&self) -> Vec<String> {
        let mut left = Vec::new();
        let deadline = Instant::now() + LEAVING;
        while self.init.is_alive() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        if self.init.is_alive() {
            return vec![format!("the first process {} of container {} has not ended", self.init.pid, self.id)];
        }
        // Another container has its name by now, and with that perhaps its cgroups; or they are gone, as they go first.
        if self.state_is_of_it() == Some(false) || !self.state.exists() {
            // Whoever else has removed it, has run the hooks as well.
            if self.is_removed && !self.state.exists() {
                left.extend(self.poststop.iter().flat_map(Poststop::run));
            }
            self.forget();
            return left;
        }
        for directory in &self.cgroups {
            let killed = if self.drop_exec { cgroup::kill(directory) } else { Ok(()) };
            if let Err(error) = killed.and_then(|()| cgroup::remove(directory)) {
                left.push(format!("the cgroup `{}` is left: {error}", directory.display()));
            }
        }
        pause("cgroups-removed");
        if self.poststop.is_some() {
            // Whoever finds the state gone then knows who has removed it.
            let noted = Self { is_removed: true, ..self.clone() }.note();
            left.extend(noted.err().map(|error| format!("{error}; the poststop hooks are run all the same")));
        }
        if let Err(error) = self.remove_state() {
            left.push(format!("the state `{}` is left: {error}", self.state.display()));
        }
        pause("state-removed");
        left.extend(self.poststop.iter().flat_map(Poststop::run));
        match self.state.exists() {
            false => self.forget(),
            // The hooks are not for those who try again.
            true => drop(Self { poststop: None, is_removed: false, ..self.clone() }.note()),
        }
        left
    }

    fn remove_state(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&self.state, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            other => other?,
        };
        match self.state_is_of_it() {
            Some(false) => return Err(io::Error::other("another container has that name by now")),
            Some(true) => {
                for name in STATE_FILES {
                    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
                        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
            }
            // It goes last: only an empty directory can be left.
            None => {}
        }
        match fs::remove_dir(&self.state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let entries = fs::read_dir(&self.state).into_iter().flatten().flatten();
                let names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
                Err(io::Error::other(format!("{error} (it holds {})", names.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// Whether the state directory is still that of the container; `None` if what says so is gone.
    fn state_is_of_it(&self) -> Option<bool> {
        let now = ["state.json", "status"].iter().find_map(|name| fs::read(self.state.join(name)).ok())?;
        Some(digest(&now) == self.state_bytes_digest)
    }

    /// Whether the checkpoint is there that the container was ended for.
    fn is_published(&self) -> bool {
        let Ok(checkpoint) = Checkpoint::open(&self.checkpoint, Trust::Anyone) else { return false };
        let container = checkpoint.record().and_then(|record| record.container.as_ref());
        container.is_some_and(|container| container.id == self.id && container.created == self.created)
    }
}

/// What tells the state of one container from that of the next.
pub(super) fn digest(state: &[u8]) -> String {
    blake3::hash(state).to_hex().to_string()
}

/// The notes of crrs that are gone.
pub(super) fn abandoned() -> Vec<Ending> {
    let directory = RuntimeDirectory::default();
    let names = directory.names(PREFIX);
    names.iter().filter_map(|name| directory.read::<Ending>(name)).filter(|note| !note.by.is_alive()).collect()
}

/// Brings to an end what killed crrs have left, and says what was done and what is left.
pub(in crate::container) fn sweep() -> Vec<String> {
    let mut said = Vec::new();
    for note in abandoned() {
        if note.init.is_alive() || !note.is_published() {
            note.forget();
            continue;
        }
        let left = note.finish();
        if left.is_empty() {
            said.push(format!(
                "container {} had been dumped to {} by a crr that was killed: its cgroups and state are removed now",
                note.id,
                note.checkpoint.display()
            ));
        }
        said.extend(left);
    }
    said
}

/// The containers that killed crrs have ended, but not removed.
pub(in crate::container) fn leftovers() -> Vec<String> {
    let ended = abandoned().into_iter().filter(|note| !note.init.is_alive() && note.is_published());
    ended.map(|note| format!("the cgroups and the state of container `{}`, which was dumped", note.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(state: PathBuf) -> Ending {
        let bytes = fs::read(state.join("state.json")).unwrap_or_default();
        let gone = Init { pid: i32::MAX, start_ticks: 1 };
        Ending {
            id: "a".into(),
            created: "now".into(),
            state,
            state_bytes_digest: digest(&bytes),
            cgroups: Vec::new(),
            init: gone,
            drop_exec: false,
            checkpoint: "/nowhere".into(),
            by: gone,
            poststop: None,
            is_removed: false,
        }
    }

    #[test]
    fn a_state_directory_goes_with_its_known_files() {
        let scratch = tempfile::tempdir().expect("directory");
        let state = scratch.path().join("a");
        fs::create_dir(&state).expect("directory");
        for name in ["state.json", "exec.fifo", "config.json"] {
            fs::write(state.join(name), name).expect("file");
        }
        ending(state.clone()).remove_state().expect("removed");
        assert!(!state.exists());
        ending(state).remove_state().expect("nothing to do");
    }

    #[test]
    fn what_is_not_a_runtimes_stays_and_is_named() {
        let scratch = tempfile::tempdir().expect("directory");
        let state = scratch.path().join("a");
        fs::create_dir_all(state.join("criu-root/etc")).expect("directories");
        fs::write(state.join("state.json"), "{}").expect("file");
        let error = ending(state.clone()).remove_state().expect_err("a directory in it").to_string();
        assert!(error.contains("criu-root"), "{error}");
        assert!(state.join("criu-root/etc").exists());
    }

    #[test]
    fn a_later_container_of_that_name_keeps_its_cgroups() {
        let scratch = tempfile::tempdir().expect("directory");
        let (state, cgroup) = (scratch.path().join("a"), scratch.path().join("cgroup"));
        fs::create_dir(&state).expect("directory");
        fs::create_dir(&cgroup).expect("directory");
        fs::write(state.join("state.json"), "old").expect("file");
        let ending = Ending { cgroups: vec![cgroup.clone()], ..ending(state.clone()) };
        fs::write(state.join("state.json"), "new").expect("file");
        assert_eq!(ending.finish(), Vec::<String>::new());
        assert!(cgroup.exists() && state.join("state.json").exists());
        fs::write(state.join("state.json"), "old").expect("file");
        assert_eq!(ending.finish(), Vec::<String>::new());
        assert!(!cgroup.exists() && !state.exists());
    }

    #[test]
    fn the_state_of_a_later_container_of_that_name_stays() {
        let scratch = tempfile::tempdir().expect("directory");
        let state = scratch.path().join("a");
        fs::create_dir(&state).expect("directory");
        fs::write(state.join("state.json"), "old").expect("file");
        let ending = ending(state.clone());
        fs::write(state.join("state.json"), "new").expect("file");
        assert!(ending.remove_state().is_err());
        assert!(state.join("state.json").exists());
    }
}
