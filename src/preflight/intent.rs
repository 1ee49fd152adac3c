//! What the user asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::report::Finding;
use crate::request::{Afterwards, DumpOptions, DumpSwitch, Tcp};

/// The largest ghost limit that crr turns on by itself: 64 MiB.
pub const GHOST_LIMIT_BYTES: u32 = 64 * 1024 * 1024;

/// The options already given, and how far crr may go by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Switches given.
    pub switches: BTreeSet<DumpSwitch>,
    /// What is to become of TCP connections.
    pub tcp: Tcp,
    /// What comes from outside, in CRIU's syntax.
    pub external: Vec<String>,
    /// Mount points left out.
    pub skip_mnt: Vec<String>,
    /// File system types that are mounted afresh, or `all`.
    pub enable_fs: Vec<String>,
    /// A ghost limit that was given and holds, whatever is found.
    pub ghost_limit: Option<u32>,
    /// How far crr may raise the ghost limit by itself, in bytes.
    pub ghost_limit_at_most: u32,
    /// What becomes of the tree.
    pub afterwards: Afterwards,
    /// Whether crr may turn on options by itself (`--no-auto` forbids it).
    pub automatic: bool,
    /// Whether the user knows of uprobes and wants them left out.
    pub allow_uprobes: bool,
    /// Whether the tree is a container: its restore gives it its root file system, and mounts what was named external.
    pub container: bool,
    /// Whether the tree's cgroup is frozen, and CRIU told which that is: its tasks are in state D then.
    pub frozen: bool,
    /// What the caller has found out already: it comes into the report with the rest.
    pub found: Vec<Finding>,
    /// Where the images go, for its free space. The directory itself need not exist yet.
    pub directory: Option<PathBuf>,
}

impl Default for Intent {
    fn default() -> Self {
        Self {
            switches: BTreeSet::new(),
            tcp: Tcp::Refuse,
            external: Vec::new(),
            skip_mnt: Vec::new(),
            enable_fs: Vec::new(),
            ghost_limit: None,
            ghost_limit_at_most: GHOST_LIMIT_BYTES,
            afterwards: Afterwards::Kill,
            automatic: true,
            allow_uprobes: false,
            container: false,
            frozen: false,
            found: Vec::new(),
            directory: None,
        }
    }
}

impl Intent {
    /// The intent that `options` express. Its ghost limit is taken for one that was given.
    pub fn of(options: &DumpOptions) -> Self {
        Self {
            switches: options.switches.clone(),
            tcp: options.tcp,
            external: options.external.clone(),
            skip_mnt: options.skip_mnt.clone(),
            enable_fs: options.enable_fs.clone(),
            ghost_limit: options.ghost_limit,
            afterwards: options.afterwards,
            frozen: options.freeze_cgroup.is_some(),
            ..Self::default()
        }
    }

    /// Whether a switch was given.
    pub(super) fn has(&self, switch: DumpSwitch) -> bool {
        self.switches.contains(&switch)
    }

    /// Whether `name` was given as `--external`, with or without a name for it behind a colon.
    pub(super) fn has_external(&self, name: &str) -> bool {
        self.external
            .iter()
            .any(|given| given.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_resource_is_known_with_and_without_its_name() {
        let intent = Intent { external: vec!["unix[42]".into(), "net[7]:lan".into()], ..Intent::default() };
        assert!(intent.has_external("unix[42]") && intent.has_external("net[7]"));
        assert!(!intent.has_external("unix[4]") && !intent.has_external("net[7"));
    }
}
