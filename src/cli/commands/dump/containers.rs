//! `crr dump --container ID… --dir DIR`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use crr::checkpoint::ImagesKind;
use crr::container::dump::{BelowEngine, Exec, Plan, Report, Request};
use crr::dump::{Progress, Room};
use crr::operation::Interrupt;
use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;
use tokio::sync::Semaphore;

use super::super::super::exit::Code;
use super::super::super::failure::Failure;
use super::super::super::output::Output;
use super::super::super::{Global, findings, signals};
use super::{Dump, failure, told};

/// Which containers, and what of them.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Containers")]
pub(crate) struct Containers {
    /// A container of runc's or crun's instead of a tree. Several go into DIR/ID each
    #[arg(long = "container", value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// How many containers are dumped at the same time [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    #[command(flatten)]
    pub(super) choices: ContainerChoices,
}

/// What a dump of a container, or a look at it, can be told.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Containers")]
pub(crate) struct ContainerChoices {
    /// Where the runtime keeps its containers [default: /run/runc and /run/crun]
    #[arg(long, value_name = "DIR")]
    runtime_root: Option<PathBuf>,
    /// Who can restore the images: crr and the runtime, or, which is faster, crr only
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    images: Images,
    /// Leave out processes that the runtime's exec has started; they end with the container
    #[arg(long)]
    drop_exec: bool,
    /// End a container that an engine (Docker, containerd, podman) watches over; it takes that for a failure
    #[arg(long)]
    below_engine: bool,
}

/// `--images KIND`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Images {
    /// The container's runtime, and crr
    #[default]
    #[value(alias = "runc", alias = "crun")]
    Runtime,
    /// crr only
    Crr,
}

impl ContainerChoices {
    /// Refuses them where no container is named.
    pub(crate) fn need_container(&self) -> Result<(), Failure> {
        let Self { runtime_root, images, drop_exec, below_engine } = self;
        match runtime_root.is_some() || *images != Images::default() || *drop_exec || *below_engine {
            true => Err(Failure::new(
                Code::Usage,
                "--runtime-root, --images, --drop-exec and --below-engine go with --container ID",
            )),
            false => Ok(()),
        }
    }

    /// The dump of one of them.
    pub(crate) fn request(&self, id: &str, dump: crr::dump::Request, global: &Global) -> Request {
        let mut request = Request::new(id, &dump.dir);
        request.runtime_root = self.runtime_root.clone().or_else(|| global.root.clone());
        request.images = match self.images {
            Images::Runtime => ImagesKind::Runtime,
            Images::Crr => ImagesKind::Crr,
        };
        request.exec = if self.drop_exec { Exec::Drop } else { Exec::Refuse };
        request.below_engine = if self.below_engine { BelowEngine::Proceed } else { BelowEngine::Refuse };
        request.dump = dump;
        request
    }
}

impl Dump {
    /// The dump of the container at that place of the command line.
    fn of_container(&self, index: usize, global: &Global) -> Result<Request, Failure> {
        let Some(id) = self.containers.ids.get(index) else {
            return Err(Failure::new(Code::Internal, "no such container on the command line"));
        };
        // An ID is a plain file name, or it is refused when the container is looked for.
        let dir = if self.containers.ids.len() > 1 { self.dir.join(id) } else { self.dir.clone() };
        let dump = self.clone().request_of(i32::MAX, dir, global)?;
        Ok(self.containers.choices.request(id, dump, global))
    }

    /// Dumps the containers, or says what would be done.
    pub(super) async fn run_containers(self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        let ids = &self.containers.ids;
        if let Some(twice) = ids.iter().enumerate().find(|(at, id)| ids[..*at].contains(id)) {
            return Err(Failure::new(Code::Usage, format!("container {} is named twice", twice.1)));
        }
        match (self.dry_run, ids.len()) {
            (true, _) => self.plan_containers(global, output).await,
            (false, 1) => self.one(global, output).await,
            (false, _) => self.several(global, output).await,
        }
    }

    async fn plan_containers(&self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        let mut plans = Vec::new();
        for index in 0..self.containers.ids.len() {
            plans.push(crr::container::dump::plan(&self.of_container(index, global)?, Room::Check).await?);
        }
        tell(plans, "dump", output)
    }

    async fn one(&self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        let request = self.of_container(0, global)?;
        let (interrupter, interrupt) = Interrupt::pair();
        let _signals = signals::insist_on_termination(interrupter)?;
        let mut progress = output.progress();
        let shown = |event: Progress| super::show(&mut progress, event);
        let report = crr::container::dump::dump(request, interrupt, shown).await.map_err(|failed| failure(*failed))?;
        told(output, &report.tree);
        output.result(&report, &line(&report));
        Ok(ExitCode::SUCCESS)
    }

    /// Each on its own: one that fails does not keep the others from being dumped.
    async fn several(&self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        if !self.dir.is_dir() {
            std::fs::create_dir(&self.dir).map_err(crr::Error::io("make", &self.dir))?;
        }
        let (interrupter, interrupt) = Interrupt::pair();
        let _signals = signals::insist_on_termination(interrupter)?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let free = Arc::new(Semaphore::new(self.containers.jobs.map_or(processors, usize::from)));
        let mut running = Vec::new();
        for index in 0..self.containers.ids.len() {
            let (request, interrupt, free) = (self.of_container(index, global)?, interrupt.clone(), Arc::clone(&free));
            running.push(tokio::spawn(async move {
                let _permit = free.acquire().await;
                crr::container::dump::dump(request, interrupt, |_| {}).await.map_err(|failed| failure(*failed))
            }));
        }
        let mut code = Code::Ok;
        let mut objects = Vec::new();
        let mut table = Builder::default();
        table.push_record(["container", "tasks", "memory", "stood still", "took", "directory"]);
        for (id, dump) in self.containers.ids.iter().zip(running) {
            let done = dump.await.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "a dump panicked")));
            match done {
                Ok(report) => {
                    told(output, &report.tree);
                    table.push_record(row(&report));
                    objects.push(serde_json::to_value(&report).unwrap_or_default());
                }
                Err(failure) => {
                    table.push_record([id.as_str(), "", "", "", "", failure.chain.first().map_or("", String::as_str)]);
                    if code == Code::Ok {
                        code = failure.code;
                    }
                    let mut object = failure.to_json();
                    object["container"] = id.as_str().into();
                    objects.push(object);
                    if !output.is_json() {
                        output.note(&format!("container {id}:"));
                        output.failure(&failure);
                    }
                }
            }
        }
        let text = format!("{}\n", table.build().with(Style::blank()));
        output.result(&json!({ "ok": code == Code::Ok, "containers": objects }), &text);
        Ok(code.into())
    }
}

/// Tells what would be done; fails where it would not work. `command` is the word that this was asked by.
pub(crate) fn tell(plans: Vec<Plan>, command: &str, output: &Output) -> Result<ExitCode, Failure> {
    let given = super::given(command);
    let mut code = Code::Ok;
    let mut objects = Vec::new();
    let mut text = String::new();
    for plan in &plans {
        let command = plan.command(&given);
        text += &format!("container {}: ", plan.container);
        text += &plan.tree.preflight.as_ref().map_or_else(String::new, |report| findings::text(report, &command));
        let verdict = plan.tree.verdict();
        objects.push(json!({ "ok": verdict.is_ok(), "plan": plan, "command": command }));
        if let (Err(error), Code::Ok) = (verdict, code) {
            code = Code::of(&error);
        }
    }
    let object = match objects.len() {
        1 => objects.remove(0),
        _ => json!({ "ok": code == Code::Ok, "containers": objects }),
    };
    output.result(&object, &text);
    Ok(code.into())
}

fn line(report: &Report) -> String {
    let Report { container, tree, .. } = report;
    format!(
        "container {container} ({}) is in {}: {} of memory, stood still for {}\n",
        findings::count(tree.tasks.len(), "task"),
        crr::escape::escape(tree.dir.as_os_str().as_encoded_bytes()),
        findings::bytes(tree.memory_bytes),
        findings::time(tree.frozen_us.into())
    )
}

fn row(report: &Report) -> [String; 6] {
    let Report { container, tree, .. } = report;
    [
        container.clone(),
        tree.tasks.len().to_string(),
        findings::bytes(tree.memory_bytes),
        findings::time(tree.frozen_us.into()),
        findings::time(tree.total_us),
        crr::escape::escape(tree.dir.as_os_str().as_encoded_bytes()).to_string(),
    ]
}
