//! `crr restore --dir DIR [-d]`

mod container;
mod options;
mod several;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use crr::checkpoint::Trust;
use crr::container::restore::Wanted;
use crr::copy::Writes;
use crr::error::Error;
use crr::event::EventKind;
use crr::operation::Interrupt;
use crr::request::{Parent, RestoreState};
use crr::restore::{
    self, Arrival, ContainerProblem, Files, Finished, Home, Original, Problem, Remarks, Request, Restoring, Verify,
};

use container::ContainerArgs;

use super::super::exit::Code;
use super::super::failure::Failure;
use super::super::foreground::{self, Terminal};
use super::super::output::Output;
use super::super::passing::{self, Signals};
use super::super::progress::ProgressLine;
use super::super::values::{self, CgroupArgs, LogArgs};
use super::super::{Global, block_on};

/// Brings a checkpointed tree back
///
/// Checks first, without touching anything, all that can be checked, and names everything wrong at once. What the checkpoint
/// records need not be given as an option. Without --detach crr stays as the parent of the tree's root and exits as it does.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The checkpoint directory
    #[arg(long, short = 'D', visible_aliases = ["images-dir", "image-path"], value_name = "DIR")]
    dir: PathBuf,
    /// Exit when the tree runs, instead of waiting for its end
    #[arg(long, short = 'd', visible_alias = "restore-detached")]
    detach: bool,
    /// Begin before the checkpoint is there: make ready all that does not depend on it, wait until it comes to DIR, for so long
    /// at the most, and restore it as soon as what was dumped has ended
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, value_parser = values::seconds)]
    wait: Option<Option<Duration>>,
    /// Leave the tree stopped; SIGCONT resumes it
    #[arg(long, short = 's')]
    leave_stopped: bool,
    /// Write the PID of the tree's root there, before the tree runs
    #[arg(long, alias = "pid-file", value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Where --json prints without --detach: standard output is the tree's then
    #[arg(long, value_name = "N", requires = "json")]
    json_fd: Option<i32>,
    /// Restore a copy while the original runs on: in PID, mount, network and IPC namespaces of its own, where all that it
    /// writes to files is thrown away with it, and established TCP connections are closed
    #[arg(long, conflicts_with_all = ["tcp_established", "shell_job", "root", "join_ns", "empty_ns", "exec_cmd", "unprivileged", "container"])]
    new_pid_ns: bool,
    /// With --new-pid-ns, let the copy write to the files that the original uses; what it takes from the original is said
    #[arg(long, requires = "new_pid_ns")]
    share_files: bool,
    #[command(flatten)]
    as_container: ContainerArgs,
    #[command(flatten)]
    own: Own,
    #[command(flatten)]
    resources: options::Resources,
    #[command(flatten)]
    cgroups: CgroupArgs,
    #[command(flatten)]
    log: LogArgs,
    /// With --exec-cmd, the command that becomes the parent of the tree, after `--`
    #[arg(last = true, requires = "exec_cmd")]
    command: Vec<String>,
}

/// What crr adds to CRIU.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it is done")]
struct Own {
    /// Restore although others own or may write DIR, a file in it or a directory above: it decides what runs as root
    #[arg(long)]
    trust_images: bool,
    /// Do not compare the sums of the images
    #[arg(long)]
    no_verify: bool,
    /// Refuse where the content of a file outside the images has changed
    #[arg(long)]
    strict_files: bool,
    /// The cgroup that the tree lives in [default: the recorded one if it exists, else one of its own]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Give up after so long; nothing is left then
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    deadline: Option<Duration>,
    /// Where CRIU writes its log and statistics [default: a directory of its own]
    #[arg(long, short = 'W', visible_alias = "work-path", value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Have the command after `--` become the parent of the tree, in CRIU's place
    #[arg(long, requires = "detach", requires = "command")]
    exec_cmd: bool,
}

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Restore {
    pub(crate) fn run(self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        super::super::must_be_root()?;
        if global.json && !self.detach && self.json_fd.is_none() {
            let what = "--json without --detach needs --json-fd N: standard output is the restored program's";
            return Err(Failure::new(Code::Usage, what));
        }
        let signals = passing::listen()?;
        if self.as_container.container.len() > 1 {
            return self.several(global, signals, output);
        }
        block_on(self.restore(global, output, signals))
    }

    fn several(self, global: &Global, signals: Signals, output: &Output) -> Result<ExitCode, Failure> {
        let [bundle, console, veth] = self.as_container.for_one();
        let own = [("--pidfile", self.pidfile.is_some()), ("--json-fd", self.json_fd.is_some())];
        if let Some((option, _)) = [bundle, console, veth].into_iter().chain(own).find(|(_, given)| *given) {
            return Err(Failure::new(Code::Usage, format!("{option} is for one container, and several are named")));
        }
        if !self.detach {
            return Err(Failure::new(Code::Usage, "several containers are restored with --detach only"));
        }
        let root = self.as_container.runtime_root(global.root.as_ref());
        let ContainerArgs { container: ids, jobs, .. } = &self.as_container;
        several::run(ids, &self.dir, &root, *jobs, signals, output)
    }

    async fn restore(self, global: &Global, output: &Output, signals: Signals) -> Result<ExitCode, Failure> {
        let Self {
            dir,
            detach,
            wait,
            leave_stopped,
            pidfile,
            json_fd,
            new_pid_ns,
            share_files,
            as_container,
            own,
            resources,
            cgroups,
            log,
            command,
        } = self;
        let Own { trust_images, no_verify, strict_files, cgroup, deadline, work_dir, exec_cmd } = own;
        let parent = match (exec_cmd, detach) {
            (true, _) => Parent::Command(command),
            (false, true) => Parent::Reaper,
            (false, false) => Parent::Caller,
        };
        let state = if leave_stopped { RestoreState::Stopped } else { RestoreState::Run };
        let json = match json_fd {
            Some(number) => Some(std::fs::File::from(options::own(number)?)),
            None => None,
        };
        let names_root = resources.names_root();
        let mut options = resources.options(parent, state, cgroups, log)?;
        let wanted = as_container.wanted(global.root.as_ref(), &mut options.join)?;
        if wanted.is_some() {
            container::refuse_with_container(&[("--root", names_root), ("--cgroup", cgroup.is_some())])?;
        }
        let mut progress = Shown { line: output.progress(), memory_bytes: memory_in(&dir) };
        progress.show(if wait.is_some() { "waiting" } else { "checking" }, 0);
        let mut request = Request::new(dir);
        request.criu.clone_from(&global.criu);
        // The criu program's place for a log that is named.
        let names_log = options.log.file != request.options.log.file;
        request.work = work_dir.or_else(|| names_log.then(|| request.directory.clone()));
        request.options = options;
        request.trust = if trust_images { Trust::Anyone } else { Trust::owners() };
        request.verify = if no_verify { Verify::Skip } else { Verify::Sums };
        request.files = if strict_files { Files::Strict } else { Files::AsCriu };
        request.home = cgroup.map_or(Home::Recorded, Home::Named);
        request.deadline = deadline;
        request.original = if wait.is_some() { Original::AwaitEnd } else { Original::Refuse };
        request.copy = new_pid_ns.then_some(if share_files { Writes::Shared } else { Writes::ThrownAway });

        let terminal = Terminal::remember();
        let mut announced = Announced { pidfile, json, detach, is_json: output.is_json(), times: None };
        let owned = wanted.as_ref().map(|wanted| (wanted.runtime_root.clone(), wanted.id.clone()));
        let begun = tokio::select! {
            biased;
            signal = signals.ending() => Err(cancelled_by(signal)),
            begun = begin(wanted, request, wait) => begun.map_err(failure),
        };
        let Begun { mut restoring, notes, times } = begun.inspect_err(|failure| announced.failed(failure))?;
        notes.iter().for_each(|note| output.note(note));
        announced.times = times;
        say(output, restoring.remarks());
        let finished = match drive(&mut restoring, &signals, &mut announced, &mut progress, output).await {
            Ok(finished) => finished,
            Err(failure) => {
                let failure = undone(restoring, failure, &signals).await;
                announced.failed(&failure);
                return Err(failure);
            }
        };
        drop(progress);
        say(output, &finished.remarks);
        if let Some(Times { prepare, copy, begun }) = announced.times.filter(|_| !output.is_json()) {
            output.note(&container::times(prepare, copy, begun.elapsed()));
        }
        if detach {
            // A container's standard output is crr's.
            if !output.is_json() && owned.is_none() {
                output.data(&format!("{}\n", finished.pid));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let code = foreground::wait(finished.pid, &signals).await?;
        if let Some(enclosure) = finished.enclosure {
            enclosure.leave();
        }
        if let Some(cgroup) = finished.cgroup {
            cgroup.remove_if_empty();
        }
        if let Some((root, id)) = owned {
            // As `runc restore` does when it has waited.
            crr::container::remove(&root, &id)?.iter().for_each(|said| output.note(said));
        }
        drop(terminal);
        Ok(code)
    }
}

/// A restore under way, of whatever kind.
struct Begun {
    restoring: Restoring,
    notes: Vec<String>,
    times: Option<Times>,
}

impl Begun {
    fn of_tree(restoring: Restoring) -> Self {
        Self { restoring, notes: Vec::new(), times: None }
    }

    fn of_container(start: Instant, begun: crr::container::restore::Begun) -> Self {
        let crr::container::restore::Begun { restoring, notes, prepare, copy } = begun;
        Self { restoring, notes, times: Some(Times { prepare, copy, begun: start + prepare + copy }) }
    }
}

/// How long the restore of a container took.
#[derive(Clone, Copy)]
struct Times {
    prepare: Duration,
    copy: Duration,
    /// When CRIU was given it.
    begun: Instant,
}

/// Begins it; with `wait` as soon as the checkpoint is there, for so long at the most.
async fn begin(wanted: Option<Wanted>, request: Request, wait: Option<Option<Duration>>) -> Result<Begun, Error> {
    let Some(limit) = wait else {
        let start = Instant::now();
        return match wanted {
            Some(wanted) => Ok(Begun::of_container(start, crr::container::restore::begin(wanted, request).await?)),
            None => Ok(Begun::of_tree(restore::begin(request).await?)),
        };
    };
    // From here on nothing is missed that a dump to there says.
    let arrival = Arrival::expect(&request.directory)?;
    let begun = match wanted {
        Some(wanted) => {
            let prepared = crr::container::restore::prepare(wanted, request).await?;
            arrival.complete(limit).await?;
            let start = Instant::now();
            prepared.begin().await.map(|begun| Begun::of_container(start, begun))
        }
        None => {
            let prepared = restore::prepare(request).await?;
            arrival.complete(limit).await?;
            prepared.begin().await.map(Begun::of_tree)
        }
    };
    begun.map_err(|error| arrival.taken_back().unwrap_or(error))
}

/// What is told before the tree runs: so that whoever waits for it finds the tree in its first moment.
struct Announced {
    pidfile: Option<PathBuf>,
    json: Option<std::fs::File>,
    detach: bool,
    is_json: bool,
    times: Option<Times>,
}

impl Announced {
    fn tell(&mut self, root: i32, object: &serde_json::Value, output: &Output) -> Result<(), Failure> {
        if let Some(pidfile) = &self.pidfile {
            write_pidfile(pidfile, root)?;
        }
        if !self.is_json {
            return Ok(());
        }
        let text = format!("{object:#}\n");
        match &mut self.json {
            Some(file) => file
                .write_all(text.as_bytes())
                .map_err(|source| crr::Error::system("write to the descriptor of --json-fd", source).into()),
            None => {
                output.data(&text);
                Ok(())
            }
        }
    }

    /// Standard output gets it as with every command; whoever reads the other descriptor must not wait in vain.
    fn failed(&mut self, failure: &Failure) {
        if let (Some(file), false) = (&mut self.json, self.detach) {
            let _ = file.write_all(format!("{:#}\n", failure.to_json()).as_bytes());
        }
    }
}

/// Answers the events until the tree runs.
async fn drive(
    restoring: &mut Restoring,
    signals: &Signals,
    announced: &mut Announced,
    progress: &mut Shown,
    output: &Output,
) -> Result<Finished, Failure> {
    let mut stage = "restoring".to_owned();
    let mut restored_bytes = 0;
    let mut is_slow = false;
    let mut given_up = None;
    loop {
        if is_slow && !restoring.is_copy() {
            restored_bytes = restoring.pids().iter().map(|pid| resident_bytes(*pid)).sum();
        }
        progress.show(&stage, restored_bytes);
        let root = restoring.root();
        let object = root.map(|root| object(restoring, root, announced.times));
        let event = tokio::select! {
            biased;
            // Once the tree is there, it must be CRIU's turn to wait when it is given up: see `next_unless`. And once it runs
            // there is nothing to give up: in the foreground it is the tree's signal.
            signal = signals.ending(), if restoring.root().is_none() => return Err(cancelled_by(signal)),
            event = restoring.next_unless(|| {
                given_up = given_up.or_else(|| signals.ending_now());
                given_up.is_some()
            }) => event.map_err(|error| given_up.map_or_else(|| error.into(), cancelled_by))?,
            () = tokio::time::sleep(LOOK) => {
                is_slow = true;
                continue;
            }
        };
        let Some(event) = event else { break };
        stage = event.kind().name().to_owned();
        if let (EventKind::PreResume, Some(root), Some(object)) = (event.kind(), root, object) {
            announced.tell(root, &object, output)?;
        }
        let is_released = restore::releases(event.kind());
        let answered = event.proceed().await;
        if !is_released {
            answered?;
        }
    }
    Ok(restoring.finish().await?)
}

/// Progress, as it is shown.
struct Shown {
    line: ProgressLine,
    memory_bytes: u64,
}

impl Shown {
    fn show(&mut self, stage: &str, restored_bytes: u64) {
        let event = serde_json::json!({
            "stage": stage,
            "restored_bytes": restored_bytes,
            "estimated_bytes": self.memory_bytes,
        });
        self.line.show(&event, stage, restored_bytes, self.memory_bytes);
    }
}

/// The memory that a checkpoint holds.
fn memory_in(dir: &Path) -> u64 {
    let is_pages = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with("pages-"));
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| is_pages(&entry.file_name()));
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// The memory of a task that is there already.
fn resident_bytes(pid: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages
        * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .map_or(4096, |size| size.unsigned_abs())
}

fn object(restoring: &Restoring, root: i32, times: Option<Times>) -> serde_json::Value {
    let Remarks { notes, warnings } = restoring.remarks();
    let mut object = serde_json::json!({
        "ok": true,
        "pid": root,
        "pids": restoring.pids(),
        "cgroup": restoring.cgroup(),
        "notes": notes,
        "warnings": warnings,
    });
    if let Some(Times { prepare, copy, begun }) = times {
        // Until CRIU lets it run.
        object["prepare_us"] = micros(prepare).into();
        object["copy_us"] = micros(copy).into();
        object["restore_us"] = micros(begun.elapsed()).into();
    }
    object
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn say(output: &Output, remarks: &Remarks) {
    for note in &remarks.notes {
        output.note(note);
    }
    for warning in &remarks.warnings {
        output.note(&format!("warning: {warning}"));
    }
}

fn cancelled_by(signal: nix::sys::signal::Signal) -> Failure {
    Failure::new(Code::Cancelled, format!("cancelled by {signal}"))
}

/// Everything that stands against a restore, each on a line of its own.
fn failure(error: Error) -> Failure {
    let Error::Unrestorable { dir, problems } = &error else { return error.into() };
    let code = problems.iter().map(code_of).min_by_key(|code| order(*code)).unwrap_or(Code::HostLacks);
    let mut failure = Failure::new(code, format!("cannot restore `{}`; nothing was touched", dir.display()));
    failure.chain.extend(problems.iter().map(Problem::to_string));
    let mut hints: Vec<String> = Vec::new();
    for hint in problems.iter().filter_map(Problem::hint) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    failure.hint = (!hints.is_empty()).then(|| hints.join("; "));
    failure
}

fn code_of(problem: &Problem) -> Code {
    match problem {
        Problem::Images(_) | Problem::Sum(_) => Code::BadImages,
        Problem::Pid(_) => Code::PidTaken,
        Problem::Connections(_) => Code::ChoiceNeeded,
        Problem::NoTerminal => Code::Usage,
        Problem::Cgroup(_) => Code::NotThere,
        Problem::Copy(_) => Code::Usage,
        Problem::Container(problem) => match problem {
            ContainerProblem::NotAContainer
            | ContainerProblem::IsAContainer { .. }
            | ContainerProblem::NoBundle
            | ContainerProblem::NoConsole
            | ContainerProblem::Option { .. } => Code::Usage,
            ContainerProblem::Bundle { .. } | ContainerProblem::Rootfs(_) | ContainerProblem::Namespace { .. } => {
                Code::NotThere
            }
            ContainerProblem::IdTaken { .. } | ContainerProblem::Busy(_) | ContainerProblem::Pid(_) => Code::PidTaken,
            ContainerProblem::Stream { .. } => Code::ChoiceNeeded,
            _ => Code::HostLacks,
        },
        _ => Code::HostLacks,
    }
}

/// Of several kinds the one that is hardest to mend is the exit code.
fn order(code: Code) -> usize {
    [Code::BadImages, Code::HostLacks, Code::PidTaken].iter().position(|known| *known == code).unwrap_or(3)
}

/// Gives the restore up and says what is left. Another signal kills CRIU at once.
async fn undone(restoring: Restoring, mut failure: Failure, signals: &Signals) -> Failure {
    let (interrupter, interrupt) = Interrupt::pair();
    let cancel = restoring.cancel(interrupt);
    tokio::pin!(cancel);
    let cancelled = loop {
        tokio::select! {
            cancelled = &mut cancel => break cancelled,
            _ = signals.ending() => {
                interrupter.insist();
                interrupter.insist();
            }
        }
    };
    if cancelled.runs {
        failure.code = Code::TreeChanged;
        failure.state.push("The tree runs.".into());
    } else if cancelled.left.is_empty() {
        failure.state.push("Nothing of the tree is left; the checkpoint is unchanged.".into());
    } else {
        failure.code = Code::TreeChanged;
        failure.state.push(format!("Still there, though killed: PIDs {:?}.", cancelled.left));
    }
    if let Some(log) = cancelled.log {
        failure.state.push(format!("CRIU's log: {}", log.display()));
    }
    failure
}

/// Writes the PID by way of another name: whoever sees the file sees all of it.
pub(super) fn write_pidfile(path: &Path, pid: i32) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    std::fs::write(&temporary, format!("{pid}\n")).map_err(crr::Error::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(crr::Error::io("write", path))?;
    Ok(())
}
