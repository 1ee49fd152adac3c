//! What is found out about a host.

use serde::Serialize;

use crate::criu::{Candidate, Feature, FeatureState, InetSockets, Search, features};
use crate::error::Result;
use crate::host::cgroup::{Kind, Layout};
use crate::host::netlock::{Ledger, Locks, nf_tables_works};
use crate::host::{
    Capabilities, CheckpointRestore, Environment, KernelRelease, Program, Sysctl, Wsl, program, sysctls,
};

/// The programs that CRIU may start, and for which network locks and containers need them.
const PROGRAMS: [&str; 8] =
    ["iptables", "ip6tables", "iptables-restore", "ip6tables-restore", "iptables-save", "ip", "tar", "gzip"];

/// What was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The kernel.
    pub kernel: KernelRelease,
    /// Whether the kernel was built for checkpoint and restore.
    pub checkpoint_restore: CheckpointRestore,
    /// Whether crr runs as root.
    pub root: bool,
    /// Capabilities held and missing.
    pub capabilities: Capabilities,
    /// What this process is confined to.
    pub environment: Environment,
    /// How cgroups are set up.
    pub cgroups: Kind,
    /// The mounted hierarchies.
    #[serde(flatten)]
    pub layout: Layout,
    /// Every CRIU found, in the order in which they are considered.
    pub criu: Vec<Candidate>,
    /// The place in `criu` of the one that is used where a tree's sockets are not known.
    pub chosen: Option<usize>,
    /// What that CRIU says of each feature.
    pub features: Vec<Feature>,
    /// Why the kernel's nf_tables cannot be used; absent if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nf_tables_failure: Option<String>,
    /// Programs that CRIU may start.
    pub programs: Vec<Program>,
    /// Settings of the kernel.
    pub sysctls: Vec<Sysctl>,
    /// CRIU's network locks whose checkpoint is not known.
    pub unknown_locks: Vec<ForeignLock>,
    /// What could not be looked at for locks.
    pub locks_unread: Vec<String>,
}

/// A network lock of CRIU's whose checkpoint is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignLock {
    /// What it is.
    pub what: String,
    /// The commands that remove it.
    pub removal: Vec<String>,
}

/// Something that could be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What, and what comes of it.
    pub what: String,
    /// What would change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Facts {
    pub(super) async fn gather(search: &Search) -> Result<Self> {
        let kernel = KernelRelease::running()?;
        let capabilities = Capabilities::held()?;
        let layout = Layout::read()?;
        let criu = search.candidates().await?;
        let allowing = |sockets| criu.iter().position(|candidate| candidate.suitability.allows(sockets));
        let given = criu.iter().position(|candidate| candidate.is_given() && candidate.version.is_some());
        let chosen = given.or_else(|| allowing(InetSockets::Some)).or_else(|| allowing(InetSockets::None));
        let features = match chosen.and_then(|at| criu.get(at)) {
            Some(candidate) => features(&candidate.binary).await?,
            None => Vec::new(),
        };
        let locks = Locks::look();
        let foreign = Ledger::default();
        let foreign = foreign.unknown(&locks.found).into_iter();
        Ok(Self {
            checkpoint_restore: CheckpointRestore::look(),
            root: rustix::process::geteuid().is_root(),
            environment: Environment::look(&kernel),
            cgroups: layout.kind(),
            nf_tables_failure: nf_tables_works().err().map(|error| error.to_string()),
            programs: PROGRAMS.map(program).into(),
            sysctls: sysctls(&capabilities),
            unknown_locks: foreign
                .map(|lock| ForeignLock { what: lock.to_string(), removal: lock.removal_commands() })
                .collect(),
            locks_unread: locks.unread,
            kernel,
            capabilities,
            layout,
            criu,
            chosen,
            features,
        })
    }

    /// The CRIU that is used where a tree's sockets are not known.
    pub fn chosen(&self) -> Option<&Candidate> {
        self.criu.get(self.chosen?)
    }

    /// What CRIU says of the feature `name`; `None` if it does not know it or could not be asked.
    pub(super) fn feature(&self, name: &str) -> Option<&FeatureState> {
        self.features.iter().find(|feature| feature.name == name).map(|feature| &feature.state)
    }

    pub(super) fn has_program(&self, name: &str) -> bool {
        self.programs.iter().any(|program| program.name == name && program.path.is_some())
    }

    pub(super) fn sysctl(&self, name: &str) -> Option<&Sysctl> {
        self.sysctls.iter().find(|sysctl| sysctl.name == name)
    }

    /// What could be better, but keeps nothing from working.
    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut note = |what: String, cure: Option<&str>| notes.push(Note { what, cure: cure.map(str::to_owned) });
        for capability in self.capabilities.missing().filter(|capability| !capability.always) {
            note(format!("{} is missing: {}", capability.name, capability.without), None);
        }
        if let Some((sysctl, advice)) =
            self.sysctl("net.netfilter.nf_conntrack_buckets").and_then(|sysctl| Some((sysctl, sysctl.advice.as_ref()?)))
        {
            note(format!("{}: {}", sysctl.name, advice.why), advice.command.as_deref());
        }
        if !self.environment.run_is_tmpfs {
            note(
                "/run is not a tmpfs: CRIU learns anew what the kernel can do, 25 to 45 ms for each operation".into(),
                Some("mount -t tmpfs tmpfs /run, at boot"),
            );
        }
        if self.environment.stale_kernel_cache {
            note(
                "an interrupted CRIU left /run/criu.kdat.tmp, which keeps every later one from saving what it learnt"
                    .into(),
                Some("rm /run/criu.kdat.tmp"),
            );
        }
        if self.environment.wsl == Some(Wsl::Two) {
            note("this is WSL 2, which the tests of crr do not cover".into(), None);
        }
        for unread in &self.locks_unread {
            note(format!("network locks could not be looked for: {unread}"), None);
        }
        notes
    }
}
