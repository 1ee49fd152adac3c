//! What a host can be used for, and the verdict on each.

use serde::Serialize;

use super::facts::Facts;
use crate::criu::{FeatureState, InetSockets, Suitability};
use crate::host::{Advice, CheckpointRestore, UserNamespace, Wsl};

/// How to get a CRIU that suits.
const GET_CRIU: &str = "install CRIU 4.2 or newer, or run tools/setup-criu of crr's repository";

/// Something to use a host for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Dump and restore of processes without connections.
    Plain,
    /// Established TCP connections are kept.
    Tcp,
    /// Memory is copied while the processes run.
    PreCopy,
    /// Memory is copied after the processes run elsewhere.
    PostCopy,
    /// Processes with namespaces of their own.
    Containers,
}

/// Who is at fault for a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The host.
    Host,
    /// The CRIU that is installed, or that none is.
    Criu,
}

/// Something that keeps a purpose from working.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// What to do about it; `None` where nothing can be done on this machine.
    pub cure: Option<String>,
    /// Who is at fault.
    pub fault: Fault,
}

/// The verdict on a purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PurposeVerdict {
    /// The purpose.
    pub purpose: Purpose,
    /// Whether this host can be used for it.
    pub works: bool,
    /// All that keeps it from working.
    pub problems: Vec<Problem>,
}

impl Purpose {
    /// All of them, in the order of a report.
    pub const ALL: &[Self] = &[Self::Plain, Self::Tcp, Self::PreCopy, Self::PostCopy, Self::Containers];

    /// Its name on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tcp => "tcp",
            Self::PreCopy => "pre-copy",
            Self::PostCopy => "post-copy",
            Self::Containers => "containers",
        }
    }

    pub(super) fn judge(self, facts: &Facts) -> PurposeVerdict {
        let mut problems = Problems::default();
        problems.plain(facts);
        // Who is not root sees neither what root could do nor what CRIU says when root asks it.
        let blind = !facts.root || facts.environment.user_namespace == UserNamespace::Nested;
        match self {
            Self::Plain => {}
            _ if blind => {}
            Self::Tcp => problems.tcp(facts),
            Self::PreCopy => problems.feature(
                facts,
                "mem_dirty_track",
                "changed pages cannot be told from unchanged ones",
                "use a kernel with CONFIG_MEM_SOFT_DIRTY=y",
            ),
            Self::PostCopy => problems.post_copy(facts),
            Self::Containers => problems.containers(facts),
        }
        PurposeVerdict { purpose: self, works: problems.0.is_empty(), problems: problems.0 }
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn host(&mut self, what: impl Into<String>, cure: Option<&str>) {
        self.0.push(Problem { what: what.into(), cure: cure.map(str::to_owned), fault: Fault::Host });
    }

    fn criu(&mut self, what: impl Into<String>) {
        self.0.push(Problem { what: what.into(), cure: Some(GET_CRIU.into()), fault: Fault::Criu });
    }

    fn advice(&mut self, name: &str, advice: &Advice) {
        self.host(format!("{name}: {}", advice.why), advice.command.as_deref());
    }

    fn plain(&mut self, facts: &Facts) {
        let in_container = facts.environment.user_namespace == UserNamespace::Nested;
        if facts.environment.wsl == Some(Wsl::One) {
            self.host("this is WSL 1, which has no Linux kernel", Some("use WSL 2 or a virtual machine"));
        }
        if !facts.root {
            self.host("crr does not run as root", Some("run it as root"));
        } else if in_container {
            self.host(
                "root here is somebody else on the machine (an unprivileged container, or another user namespace)",
                Some("run crr on the machine itself, or in a privileged container"),
            );
        } else {
            for capability in facts.capabilities.missing().filter(|capability| capability.always) {
                self.host(
                    format!("{} is missing: {}", capability.name, capability.without),
                    Some("run crr on the machine itself, or give the container this capability"),
                );
            }
        }
        if facts.checkpoint_restore == CheckpointRestore::Missing {
            let cure = match facts.environment.wsl {
                Some(_) => "give WSL 2 a kernel of your own that has it",
                None => "use a kernel with CONFIG_CHECKPOINT_RESTORE=y, which all large distributions have",
            };
            self.host("the kernel was built without CONFIG_CHECKPOINT_RESTORE", Some(cure));
        }
        if let Some(advice) = facts.sysctl("kernel.yama.ptrace_scope").and_then(|sysctl| sysctl.advice.as_ref()) {
            self.advice("kernel.yama.ptrace_scope", advice);
        }
        let Some(chosen) = facts.chosen() else {
            match facts.criu.is_empty() {
                true => self.criu("no CRIU was found"),
                false => {
                    for candidate in &facts.criu {
                        self.criu(format!("`{}` {}", candidate.binary.display(), candidate.suitability));
                    }
                }
            }
            return;
        };
        if let Suitability::Unsuitable { why } = &chosen.suitability {
            self.criu(format!("`{}` does not suit: {why}", chosen.binary.display()));
            return;
        }
        // What really dumped and restored has no need to say that it could.
        let proven = chosen.verdict.as_ref().is_some_and(|verdict| verdict.suits);
        if let (false, true, Some(FeatureState::Absent { why } | FeatureState::Unknown { why })) =
            (proven, facts.root, facts.feature("check"))
        {
            self.host(format!("`criu check` is not content: {why}"), None);
        }
    }

    fn tcp(&mut self, facts: &Facts) {
        if let Some(chosen) = facts.chosen() {
            if let Suitability::SuitsWithoutInet { why } = &chosen.suitability {
                self.criu(format!("`{}`: {why}", chosen.binary.display()));
            }
        }
        if !facts.capabilities.has_net_admin() {
            self.host(
                "CAP_NET_ADMIN is missing: connections cannot be taken apart",
                Some("run crr with this capability"),
            );
            return;
        }
        let by_nftables = facts.nf_tables_failure.is_none()
            && !matches!(facts.feature("network_lock_nftables"), Some(FeatureState::Absent { .. }));
        let by_iptables = ["iptables", "ip6tables"].iter().all(|name| facts.has_program(name));
        if !by_nftables && !by_iptables {
            let why = facts.nf_tables_failure.as_deref().unwrap_or("this CRIU cannot use it");
            self.host(
                format!("connections cannot be kept silent: nf_tables does not work ({why}), and there is no iptables"),
                Some("apt-get install iptables, or use a kernel with CONFIG_NF_TABLES_INET"),
            );
        }
    }

    fn post_copy(&mut self, facts: &Facts) {
        let cure = "use a kernel with CONFIG_USERFAULTFD=y";
        self.feature(facts, "uffd", "memory cannot be filled on demand", cure);
        self.feature(facts, "uffd-noncoop", "changes of a process's address space are not told", cure);
        if let Some(advice) = facts.sysctl("fs.pipe-max-size").and_then(|sysctl| sysctl.advice.as_ref()) {
            self.advice("fs.pipe-max-size", advice);
        }
    }

    fn containers(&mut self, facts: &Facts) {
        for capability in facts.capabilities.missing() {
            if ["CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD"].contains(&capability.name) {
                self.host(
                    format!("{} is missing: {}", capability.name, capability.without),
                    Some("run crr with this capability"),
                );
            }
        }
        for (name, package, what) in [
            ("ip", "iproute2", "addresses and routes of network namespaces"),
            ("tar", "tar", "the content of mounted tmpfs file systems"),
            ("gzip", "gzip", "the content of mounted tmpfs file systems"),
        ] {
            if !facts.has_program(name) {
                let cure = format!("apt-get install {package}");
                self.host(format!("there is no program {name}, by which CRIU saves {what}"), Some(&cure));
            }
        }
        for (feature, what) in [
            ("nsid", "network namespaces cannot be told apart"),
            ("sk_ns", "the network namespace of a socket is not told"),
        ] {
            self.feature(facts, feature, what, "use a newer kernel");
        }
    }

    /// A feature that is needed. What a CRIU that does not suit says of the kernel is worth nothing, and it is a problem already.
    fn feature(&mut self, facts: &Facts, name: &str, without: &str, cure: &str) {
        let asked = facts.chosen().filter(|chosen| chosen.suitability.allows(InetSockets::None));
        if asked.is_none() {
            return;
        }
        match facts.feature(name) {
            Some(FeatureState::Present) => {}
            Some(FeatureState::Absent { why } | FeatureState::Unknown { why }) => {
                let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
                self.host(format!("the feature {name} is missing: {without}{why}"), Some(cure));
            }
            None => self.criu(format!("CRIU does not know the feature {name}: {without}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::criu::{Candidate, Feature, Origin};
    use crate::host::cgroup::{Kind, Layout};
    use crate::host::{Capabilities, Environment, Program, Sysctl};
    use crate::request::Version;

    /// A host on which everything works.
    fn good() -> Facts {
        let present = |name: &str| Feature { name: name.into(), state: FeatureState::Present };
        let names = ["check", "mem_dirty_track", "uffd", "uffd-noncoop", "nsid", "sk_ns", "network_lock_nftables"];
        let program = |name| Program { name, path: Some(PathBuf::from("/usr/bin").join(name)) };
        Facts {
            kernel: "6.12.48-amd64".parse().expect("a release"),
            checkpoint_restore: CheckpointRestore::BuiltIn,
            root: true,
            capabilities: Capabilities::all_but(&[]),
            environment: Environment {
                wsl: None,
                user_namespace: UserNamespace::Initial,
                run_is_tmpfs: true,
                stale_kernel_cache: false,
            },
            cgroups: Kind::Unified,
            layout: Layout::default(),
            criu: vec![Candidate {
                binary: "/usr/sbin/criu".into(),
                origin: Origin::Path,
                version: Some(Version::new(4, 2)),
                verdict: None,
                suitability: Suitability::Suits,
            }],
            chosen: Some(0),
            features: names.map(present).into(),
            nf_tables_failure: None,
            programs: ["iptables", "ip6tables", "ip", "tar", "gzip"].map(program).into(),
            sysctls: Vec::new(),
            unknown_locks: Vec::new(),
            locks_unread: Vec::new(),
        }
    }

    /// What does not work after a change to a good host.
    fn broken(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = good();
        change(&mut facts);
        let failed = Purpose::ALL.iter().filter(|purpose| !purpose.judge(&facts).works);
        failed.map(|purpose| purpose.word()).collect()
    }

    const ALL: [&str; 5] = ["plain", "tcp", "pre-copy", "post-copy", "containers"];

    fn lose(facts: &mut Facts, name: &str) {
        for feature in facts.features.iter_mut().filter(|feature| feature.name == name) {
            feature.state = FeatureState::Absent { why: String::new() };
        }
    }

    #[test]
    fn a_good_host_is_good_for_everything() {
        assert_eq!(broken(|_| {}), [""; 0]);
    }

    #[test]
    fn what_plain_dumps_need_everything_needs() {
        assert_eq!(broken(|facts| facts.root = false), ALL);
        assert_eq!(broken(|facts| facts.checkpoint_restore = CheckpointRestore::Missing), ALL);
        assert_eq!(broken(|facts| facts.environment.user_namespace = UserNamespace::Nested), ALL);
        assert_eq!(broken(|facts| facts.environment.wsl = Some(Wsl::One)), ALL);
        assert_eq!(broken(|facts| facts.capabilities = Capabilities::all_but(&["CAP_SYS_PTRACE"])), ALL);
        assert_eq!(broken(|facts| lose(facts, "check")), ALL);
        assert_eq!(broken(|facts| (facts.chosen, facts.criu) = (None, Vec::new())), ALL);
    }

    #[test]
    fn each_purpose_has_needs_of_its_own() {
        assert_eq!(broken(|facts| lose(facts, "mem_dirty_track")), ["pre-copy"]);
        assert_eq!(broken(|facts| lose(facts, "uffd")), ["post-copy"]);
        assert_eq!(broken(|facts| facts.programs.retain(|program| program.name != "ip")), ["containers"]);
        let without_inet = Suitability::SuitsWithoutInet { why: "old".into() };
        assert_eq!(broken(|facts| facts.criu[0].suitability = without_inet), ["tcp"]);
        let no_net_admin = Capabilities::all_but(&["CAP_NET_ADMIN"]);
        assert_eq!(broken(|facts| facts.capabilities = no_net_admin), ["tcp", "containers"]);
        let advice = Advice { why: "small".into(), command: Some("sysctl -w fs.pipe-max-size=4194304".into()) };
        let pipe = Sysctl { name: "fs.pipe-max-size", value: Some("1048576".into()), advice: Some(advice) };
        assert_eq!(broken(|facts| facts.sysctls.push(pipe)), ["post-copy"]);
    }

    #[test]
    fn one_way_to_lock_the_network_is_enough() {
        let no_nftables = |facts: &mut Facts| facts.nf_tables_failure = Some("no".into());
        let no_iptables = |facts: &mut Facts| facts.programs.retain(|program| program.name != "ip6tables");
        assert_eq!(broken(no_nftables), [""; 0]);
        assert_eq!(broken(no_iptables), [""; 0]);
        assert_eq!(
            broken(|facts| {
                no_nftables(facts);
                no_iptables(facts);
            }),
            ["tcp"]
        );
    }

    #[test]
    fn what_an_unsuitable_criu_says_of_the_kernel_is_not_repeated() {
        let mut facts = good();
        facts.criu[0].suitability = Suitability::Unsuitable { why: "its self-test failed".into() };
        ["check", "uffd", "uffd-noncoop"].iter().for_each(|name| lose(&mut facts, name));
        let verdict = Purpose::PostCopy.judge(&facts);
        assert_eq!(verdict.problems.len(), 1, "{verdict:?}");
        assert_eq!(verdict.problems[0].fault, Fault::Criu);
    }

    #[test]
    fn without_root_nothing_more_is_said_than_that() {
        let mut facts = good();
        facts.root = false;
        facts.capabilities = Capabilities::all_but(&["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        lose(&mut facts, "uffd");
        for purpose in Purpose::ALL {
            let problems = purpose.judge(&facts).problems;
            let what: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
            assert_eq!(what, ["crr does not run as root"], "{purpose:?}");
        }
    }

    #[test]
    fn without_a_criu_nobody_blames_the_kernel_for_features() {
        let mut facts = good();
        facts.features.clear();
        facts.chosen = None;
        facts.criu[0].suitability = Suitability::Unsuitable { why: "it does not answer".into() };
        let verdict = Purpose::PostCopy.judge(&facts);
        assert!(verdict.problems.iter().all(|problem| problem.fault == Fault::Criu), "{verdict:?}");
        assert_eq!(verdict.problems.len(), 1);
    }
}
