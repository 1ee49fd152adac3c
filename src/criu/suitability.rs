//! Whether a CRIU suits this kernel.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::KernelRelease;
use crate::request::Version;

/// The first version that dumps TCP and UDP sockets on Linux 6.16 and later, where two socket options are refused for them.
const INET_SINCE: Version = Version::new(4, 2);

/// What a self-test found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether everything came back as it was.
    pub suits: bool,
    /// What did not, with CRIU's own words; empty if everything did.
    pub why: String,
    /// What was done, in order. The last one failed if the CRIU does not suit.
    pub steps: Vec<VerdictStep>,
}

/// A step of a self-test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictStep {
    /// What was done, such as `dump`.
    pub name: String,
    /// How long it took.
    pub took_ms: u64,
    /// Why it failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Whether a tree has TCP or UDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InetSockets {
    /// It has.
    Some,
    /// It has none.
    None,
    /// Nobody has looked.
    Unknown,
}

/// Whether a CRIU suits this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Suitability {
    /// It does.
    Suits,
    /// It does for trees without TCP and UDP sockets.
    SuitsWithoutInet {
        /// Why not for others.
        why: String,
    },
    /// It does not.
    Unsuitable {
        /// Why.
        why: String,
    },
}

impl Suitability {
    /// By the verdict of a self-test, if there is one; else by version.
    ///
    /// `version` is what the CRIU answered, or why it did not. `starts` is what came of having it look at this kernel, which
    /// is asked of old versions on new kernels.
    pub(super) fn judge(
        kernel: &KernelRelease,
        version: &Result<Version, String>,
        starts: Option<&Result<(), String>>,
        verdict: Option<&Verdict>,
    ) -> Self {
        let version = match version {
            Ok(version) => version,
            Err(why) => return Self::Unsuitable { why: why.clone() },
        };
        match verdict {
            Some(Verdict { suits: true, .. }) => return Self::Suits,
            Some(Verdict { why, .. }) => return Self::Unsuitable { why: format!("its self-test failed: {why}") },
            None => {}
        }
        if !is_doubtful(kernel, *version) {
            return Self::Suits;
        }
        match starts {
            Some(Err(why)) => {
                Self::Unsuitable { why: format!("version {version} does not start on Linux {kernel}: {why}") }
            }
            _ => Self::SuitsWithoutInet {
                why: format!(
                    "version {version} cannot dump TCP or UDP sockets on Linux 6.16 and later (this is {kernel}); \
                     {INET_SINCE} and later can"
                ),
            },
        }
    }

    /// Whether it will do for a tree. Where nobody has looked for sockets, only a CRIU for all trees will.
    pub fn allows(&self, sockets: InetSockets) -> bool {
        match self {
            Self::Suits => true,
            Self::SuitsWithoutInet { .. } => sockets == InetSockets::None,
            Self::Unsuitable { .. } => false,
        }
    }

    /// Why it does not suit, or not for every tree.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Suits => None,
            Self::SuitsWithoutInet { why } | Self::Unsuitable { why } => Some(why),
        }
    }
}

impl fmt::Display for Suitability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suits => f.write_str("suits"),
            Self::SuitsWithoutInet { why } => write!(f, "suits only trees without TCP and UDP sockets: {why}"),
            Self::Unsuitable { why } => write!(f, "does not suit: {why}"),
        }
    }
}

/// Whether a version is too old for a kernel to go by its number alone.
pub(super) fn is_doubtful(kernel: &KernelRelease, version: Version) -> bool {
    version < INET_SINCE && kernel.at_least(6, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(
        kernel: &str,
        version: &str,
        starts: Option<&Result<(), String>>,
        verdict: Option<&Verdict>,
    ) -> Suitability {
        let version = version.parse::<Version>();
        Suitability::judge(&kernel.parse().expect(kernel), &version, starts, verdict)
    }

    #[test]
    fn without_a_verdict_the_versions_of_both_decide() {
        let sockets = [InetSockets::Some, InetSockets::None, InetSockets::Unknown];
        let allowed = |kernel, version, starts: Option<&Result<(), String>>| {
            sockets.map(|sockets| judge(kernel, version, starts, None).allows(sockets))
        };
        assert_eq!(allowed("6.18.1", "4.2.1", None), [true, true, true]);
        assert_eq!(allowed("6.15.9", "4.1.1", None), [true, true, true]);
        assert_eq!(allowed("6.16.0", "4.1.1", None), [false, true, false]);
        assert_eq!(allowed("6.16.0", "4.1.1", Some(&Ok(()))), [false, true, false]);
        assert_eq!(allowed("6.18.1", "3.17.1", Some(&Err("vdso".into()))), [false, false, false]);
        assert_eq!(allowed("6.18.1", "does not answer", None), [false, false, false]);
    }

    #[test]
    fn a_verdict_overrules_the_version() {
        let verdict = |suits| Verdict { suits, why: "vdso".into(), steps: Vec::new() };
        assert_eq!(judge("6.18.1", "4.1.1", None, Some(&verdict(true))), Suitability::Suits);
        let unsuitable = judge("6.18.1", "4.2.1", None, Some(&verdict(false)));
        assert_eq!(unsuitable.to_string(), "does not suit: its self-test failed: vdso");
    }
}
