//! `crr check [--for PURPOSE,…] [--self-test]`

use std::process::ExitCode;
use std::time::Duration;

use crr::criu::Search;
use crr::readiness::{Fault, Purpose, PurposeVerdict, Readiness};

use super::super::Global;
use super::super::exit::Code;
use super::super::failure::Failure;
use super::super::host_report;
use super::super::output::Output;
use super::check_tree::CheckTree;

/// A self-test takes half a second.
const SELF_TEST: Duration = Duration::from_secs(60);

/// Tells what this host can be used for, or whether a dump of a process tree would work
///
/// Exits with 0 if plain dump and restore work, and all that --for names.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Fail unless these work too
    #[arg(long = "for", value_delimiter = ',', value_enum, value_name = "PURPOSE")]
    purposes: Vec<PurposeArg>,
    /// Dump and restore a process of crr's own with each CRIU, and remember which of them can
    #[arg(long, conflicts_with_all = ["pid", "container"])]
    self_test: bool,
    #[command(flatten)]
    tree: CheckTree,
}

/// A purpose, as a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PurposeArg {
    /// Established TCP connections
    Tcp,
    /// Memory copied while the processes run
    PreCopy,
    /// Memory copied after the processes run elsewhere
    PostCopy,
    /// Processes with namespaces of their own
    Containers,
}

impl PurposeArg {
    fn purpose(self) -> Purpose {
        match self {
            Self::Tcp => Purpose::Tcp,
            Self::PreCopy => Purpose::PreCopy,
            Self::PostCopy => Purpose::PostCopy,
            Self::Containers => Purpose::Containers,
        }
    }
}

impl Check {
    pub(crate) async fn run(self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        if self.tree.is_wanted() {
            return self.tree.run(global, output).await;
        }
        if let Some(wrong) = self.tree.lacks_tree() {
            return Err(Failure::new(Code::Usage, wrong));
        }
        let search = Search::new(global.criu.clone(), std::env::var_os("PATH").as_deref());
        if self.self_test {
            self_test(&search, output).await?;
        }
        let readiness = Readiness::look(&search).await?;
        let wanted = std::iter::once(Purpose::Plain).chain(self.purposes.iter().map(|purpose| purpose.purpose()));
        let code = code(wanted.map(|purpose| readiness.of(purpose)));
        let left_of_containers = crr::container::leftovers();
        let text = host_report::text(&readiness, &left_of_containers);
        output.result(&Judged { ok: code == Code::Ok, readiness: &readiness, left_of_containers }, &text);
        Ok(code.into())
    }
}

/// The object of `--json`.
#[derive(serde::Serialize)]
struct Judged<'a> {
    /// Whether all that was asked for works.
    ok: bool,
    #[serde(flatten)]
    readiness: &'a Readiness,
    /// What crrs that were killed have left of containers.
    left_of_containers: Vec<String>,
}

/// Tests each CRIU that is there and keeps the verdicts.
async fn self_test(search: &Search, output: &Output) -> Result<(), Failure> {
    let own = std::env::current_exe().map_err(crr::Error::io("find", "/proc/self/exe"))?;
    for (_, binary) in search.binaries() {
        let verdict = crr::criu::self_test(&binary, &own, SELF_TEST).await?;
        if let Err(error) = search.keep(&binary, verdict) {
            output.note(&format!("the verdict on `{}` cannot be kept: {error}", binary.display()));
        }
    }
    Ok(())
}

/// The exit code for what was wanted: whether the first fault is the host's or CRIU's.
fn code(wanted: impl Iterator<Item = PurposeVerdict>) -> Code {
    let faults: Vec<Fault> = wanted.flat_map(|verdict| verdict.problems).map(|problem| problem.fault).collect();
    match faults.contains(&Fault::Host) {
        _ if faults.is_empty() => Code::Ok,
        true => Code::HostLacks,
        false => Code::NoCriu,
    }
}
