//! `crr check --pid PID [--dir DIR]`, `crr check --container ID [--dir DIR]`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crr::dump::{Request, Room};
use crr::request::Afterwards;

use super::super::failure::Failure;
use super::super::output::Output;
use super::super::{Global, findings, must_be_root};
use super::dump::{ContainerChoices, Resources, containers, given};

/// The tree to look at.
#[derive(Debug, Args)]
pub(crate) struct CheckTree {
    /// Look at this process and its descendants instead of the host: would a dump work, and with which options?
    #[arg(long, short = 't', visible_alias = "tree", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Look at this container of runc's or crun's instead: would a dump work, and with which options?
    #[arg(long, value_name = "ID", conflicts_with = "pid")]
    container: Option<String>,
    #[command(flatten)]
    of_container: ContainerChoices,
    /// Look at the free space there too
    #[arg(long, short = 'D', visible_aliases = ["images-dir", "image-path"], value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What it says of a dump that leaves the tree running
    #[arg(long, short = 'R')]
    leave_running: bool,
    #[command(flatten)]
    resources: Resources,
}

impl CheckTree {
    /// Whether a tree is asked about.
    pub(crate) fn is_wanted(&self) -> bool {
        self.pid.is_some() || self.container.is_some()
    }

    /// An option that says something about a tree, where none is named.
    pub(crate) fn lacks_tree(&self) -> Option<&'static str> {
        let lacks = !self.is_wanted() && (self.dir.is_some() || self.leave_running);
        lacks.then_some("--dir and --leave-running go with --pid or --container")
    }

    pub(crate) async fn run(self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        must_be_root()?;
        // The tree is at work.
        crr::host::stand_back();
        let room = if self.dir.is_some() { Room::Check } else { Room::Ignore };
        let mut request = Request::new(self.pid.unwrap_or(i32::MAX), self.dir.unwrap_or_else(|| "DIR".into()));
        request.criu.clone_from(&global.criu);
        if let Some(limit) = self.resources.ghost_limit {
            request.ghost_limit_at_most = limit;
        }
        self.resources.write(&mut request.options);
        if self.leave_running {
            request.options.afterwards = Afterwards::KeepRunning;
        }
        if let Some(id) = &self.container {
            let request = self.of_container.request(id, request, global);
            return containers::tell(vec![crr::container::dump::plan(&request, room).await?], "check", output);
        }
        self.of_container.need_container()?;
        let plan = crr::dump::plan(&request, room).await?;
        let command = plan.command(&given("check"));
        let text = plan.preflight.as_ref().map_or_else(String::new, |report| findings::text(report, &command));
        let verdict = plan.verdict();
        output.result(&serde_json::json!({ "ok": verdict.is_ok(), "plan": plan, "command": command }), &text);
        Ok(verdict.map_or_else(|error| super::super::exit::Code::of(&error), |()| super::super::exit::Code::Ok).into())
    }
}
