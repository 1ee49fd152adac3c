//! `crr check --pid PID [--dir DIR]`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crr::dump::{Request, Room};

use super::super::failure::Failure;
use super::super::output::Output;
use super::super::{Global, findings, must_be_root};
use super::dump::{Resources, given};

/// The tree to look at.
#[derive(Debug, Args)]
pub(crate) struct CheckTree {
    /// Look at this process and its descendants instead of the host: would a dump work, and with which options?
    #[arg(long, short = 't', visible_alias = "tree", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Look at the free space there too
    #[arg(long, short = 'D', visible_aliases = ["images-dir", "image-path"], value_name = "DIR", requires = "pid")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    resources: Resources,
}

impl CheckTree {
    /// Whether a tree is asked about.
    pub(crate) fn is_wanted(&self) -> bool {
        self.pid.is_some()
    }

    pub(crate) async fn run(self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        must_be_root()?;
        let room = if self.dir.is_some() { Room::Check } else { Room::Ignore };
        let mut request = Request::new(self.pid.unwrap_or(0), self.dir.unwrap_or_else(|| "DIR".into()));
        request.criu.clone_from(&global.criu);
        if let Some(limit) = self.resources.ghost_limit {
            request.ghost_limit_at_most = limit;
        }
        self.resources.write(&mut request.options);
        let plan = crr::dump::plan(&request, room).await?;
        let command = plan.command(&given("check"));
        let text = plan.preflight.as_ref().map_or_else(String::new, |report| findings::text(report, &command));
        let verdict = plan.verdict();
        output.result(&serde_json::json!({ "ok": verdict.is_ok(), "plan": plan, "command": command }), &text);
        Ok(verdict.map_or_else(|error| super::super::exit::Code::of(&error), |()| super::super::exit::Code::Ok).into())
    }
}
