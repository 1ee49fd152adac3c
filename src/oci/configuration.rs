//! What a container was made of, whoever made it.

use std::path::PathBuf;

use super::{Mount, Namespace, NamespaceKind};

/// What a container was made of: the same from runc's state and from a bundle's config.json.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// The mounts, in the order in which they were made.
    pub mounts: Vec<Mount>,
    /// Files and directories that are covered, as seen in the container. Those that do not exist are not.
    pub masked_paths: Vec<PathBuf>,
    /// Files and directories that are read-only, as seen in the container.
    pub readonly_paths: Vec<PathBuf>,
    /// Device nodes, as seen in the container: the six of every container and those of the configuration.
    pub devices: Vec<PathBuf>,
    /// Its namespaces; a kind that is absent is shared with the host.
    pub namespaces: Vec<Namespace>,
    /// User ids of its user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of its user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Whether its processes run under a seccomp filter.
    pub seccomp: bool,
    /// The annotations, `name` and value.
    pub annotations: Vec<(String, String)>,
}

impl Configuration {
    /// Its namespace of `kind`, if it has one of its own.
    pub fn namespace(&self, kind: NamespaceKind) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }
}

/// A range of ids of a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapping {
    /// The first id inside.
    pub container: u32,
    /// The first id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}
