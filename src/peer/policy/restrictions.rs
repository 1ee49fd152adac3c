//! A section of the policy.

use std::time::Duration;

use serde::Deserialize;

use super::values::{Capability, Network, Place, Range, Size};

/// What a peer may bring. Nothing is allowed that is not listed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Restrictions {
    pub(super) unrestricted: bool,
    pub(super) uids: Vec<Range>,
    pub(super) gids: Vec<Range>,
    pub(super) capabilities: Vec<Capability>,
    pub(super) open: Vec<Place>,
    pub(super) write: Vec<Place>,
    pub(super) map: Vec<Place>,
    pub(super) create: Vec<Place>,
    pub(super) cgroups: Vec<Place>,
    pub(super) addresses: Vec<Network>,
    pub(super) ports: Vec<Range>,
    pub(super) remotes: Vec<Network>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) terminals: bool,
    pub(super) watches: bool,
    pub(super) profiles: Vec<String>,
    pub(super) no_new_privileges: bool,
    pub(super) max_tasks: Option<u64>,
    pub(super) max_bytes: Option<Size>,
    pub(super) max_seconds: Option<u32>,
}

/// The namespaces that a policy can allow. Of the others a mount namespace mounts what it says, a network namespace is made by
/// ip and nft run as root, and those of PIDs, IPC, users and cgroups come with one of these.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Namespace {
    Uts,
}

/// What a peer may use at most, whether restricted or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Tasks and threads.
    pub tasks: Option<u64>,
    /// Bytes of images, memory included.
    pub bytes: Option<u64>,
    /// How long a migration may take, from its first message on.
    pub time: Option<Duration>,
}

impl Restrictions {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            tasks: self.max_tasks,
            bytes: self.max_bytes.map(|Size(bytes)| bytes),
            time: self.max_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        }
    }

    /// Whether nothing is allowed beyond the limits.
    pub(super) fn is_only_limits(&self) -> bool {
        let Self { unrestricted, max_tasks, max_bytes, max_seconds, .. } = *self;
        *self == Self { unrestricted, max_tasks, max_bytes, max_seconds, ..Self::default() }
    }
}
