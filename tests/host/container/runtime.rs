//! The container runtimes that the tests run, as tools/setup-runtimes keeps them.

use std::path::PathBuf;
use std::process::Command;

use crate::need;

/// One of them, by the version it had when it was chosen: those of Debian testing move on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Runc11,
    Runc13,
    /// Refuses a hybrid layout of cgroups: see [`super::unified`]. So does the next.
    Crun121,
    Crun128,
}

impl Runtime {
    /// What tools/setup-runtimes calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Runc11 => "runc-1.1",
            Self::Runc13 => "runc-1.3",
            Self::Crun121 => "crun-1.21",
            Self::Crun128 => "crun-1.28",
        }
    }

    /// Whether it is a crun, not a runc.
    pub(crate) fn is_crun(self) -> bool {
        matches!(self, Self::Crun121 | Self::Crun128)
    }

    /// Its program.
    pub(crate) fn program(self) -> PathBuf {
        let prefix = std::env::var_os("CRR_RUNTIMES").map_or("/opt/crr/runtimes".into(), PathBuf::from);
        prefix.join(self.name()).join("bin").join(if self.is_crun() { "crun" } else { "runc" })
    }

    /// Why it cannot be run here.
    pub(crate) fn unmet(self) -> Option<String> {
        let program = self.program();
        (!need::runs(Command::new(&program).arg("--version")))
            .then(|| format!("{} does not run: see tools/setup-runtimes", program.display()))
    }

    /// The program with no arguments yet, which finds the tests' CRIU by its name.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(self.program());
        let criu = need::criu().and_then(|criu| Some(criu.parent()?.to_str()?.to_owned())).unwrap_or_default();
        let separator = if criu.is_empty() { "" } else { ":" };
        command.env("PATH", format!("{criu}{separator}/usr/sbin:/usr/bin:/sbin:/bin"));
        command
    }
}
