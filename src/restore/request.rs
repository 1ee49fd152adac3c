//! What a caller wants restored, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::attendant::Surroundings;
use super::home::Home;
use super::worker::Worker;
use crate::checkpoint::Trust;
use crate::copy::Writes;
use crate::request::RestoreOptions;

/// A restore that is wanted.
#[derive(Debug)]
pub struct Request {
    /// The checkpoint directory.
    pub directory: PathBuf,
    /// The CRIU program. `None`: the first that suits, of `PATH`'s and the private prefix's.
    pub criu: Option<PathBuf>,
    /// CRIU's options as the caller gives them. What the checkpoint records is added.
    pub options: RestoreOptions,
    /// Which checkpoints are believed.
    pub trust: Trust,
    /// Whether the sums of the images are compared.
    pub verify: Verify,
    /// How much files outside the images may differ.
    pub files: Files,
    /// The cgroup that the tree lives in.
    pub home: Home,
    /// CRIU's working directory, for its log and statistics, which stay there. `None`: one of the restore's own, which is
    /// removed afterwards, but for the log of a restore that failed.
    pub work: Option<PathBuf>,
    /// How long the whole may take.
    pub deadline: Option<Duration>,
    /// Restore a copy, in namespaces of its own, while the original may run on; and what becomes of what it writes.
    pub copy: Option<Writes>,
    /// What is done where the tree that was dumped is still there.
    pub original: Original,
    /// A CRIU that was started before the images were there.
    pub(crate) worker: Option<Worker>,
    /// What is around the tree, if it is a container: see [`crate::container`].
    pub(crate) surroundings: Option<Surroundings>,
}

/// What a restore does where the tree that was dumped is still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Original {
    /// It refuses.
    #[default]
    Refuse,
    /// It waits some seconds for the end of a tree that its dump does not leave running: once the checkpoint is there, the tree
    /// is about to be ended.
    AwaitEnd,
}

/// Whether the sums of the images are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// They are, where there are some.
    #[default]
    Sums,
    /// They are not.
    Skip,
}

/// How much files outside the images may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// What CRIU refuses is an error; changed content, which it does not look at, is a warning.
    #[default]
    AsCriu,
    /// Changed content is an error too.
    Strict,
}

impl Request {
    /// A restore of `directory` with what the checkpoint records and CRIU's defaults.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            criu: None,
            options: RestoreOptions::new(),
            trust: Trust::owners(),
            verify: Verify::default(),
            files: Files::default(),
            home: Home::default(),
            work: None,
            deadline: None,
            copy: None,
            original: Original::default(),
            worker: None,
            surroundings: None,
        }
    }
}
