//! `crr dump --pid PID --dir DIR`, `crr dump --container ID --dir DIR`

pub(crate) mod containers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use crr::checkpoint::{Flush, Trust};
use crr::dump::{Auto, Failed, Hash, Judge, Request, Room, Stage, WithFiles};
use crr::escape::escape;
use crr::operation::Interrupt;
use crr::preflight::Level;
use crr::process::Aftermath;
use crr::request::{Afterwards, DumpOptions, DumpSwitch, EmptyNamespace, NetworkLock, Tcp};

use super::super::exit::Code;
use super::super::failure::Failure;
use super::super::output::Output;
use super::super::progress::ProgressLine;
use super::super::{Global, findings, signals, values};
pub(crate) use containers::{ContainerChoices, Containers};

/// Writes a tree of processes to a directory, and ends it unless told otherwise
///
/// Looks at the tree first, turns on what it needs and says so, and refuses before anything is frozen where the dump or the
/// restore would not work. Nothing outside DIR is changed. A dump that fails leaves the tree running and DIR as it was.
#[derive(Clone, Debug, Args)]
pub(crate) struct Dump {
    /// The root of the tree
    #[arg(long, short = 't', visible_alias = "tree", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    #[arg(required_unless_present = "ids", conflicts_with = "ids")]
    pid: Option<i32>,
    /// The directory for the checkpoint: absent yet, or empty
    #[arg(long, short = 'D', visible_aliases = ["images-dir", "image-path"], value_name = "DIR")]
    dir: PathBuf,
    /// Only look, and print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Leave the tree running
    #[arg(long, short = 'R', conflicts_with = "leave_stopped")]
    leave_running: bool,
    /// Leave the tree stopped; SIGCONT resumes it
    #[arg(long, short = 's')]
    leave_stopped: bool,

    #[command(flatten)]
    containers: Containers,
    #[command(flatten)]
    own: Own,
    #[command(flatten)]
    resources: Resources,
    #[command(flatten)]
    cgroups: DumpedCgroups,
    #[command(flatten)]
    log: values::LogArgs,
}

/// What crr adds to CRIU.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How it is done")]
struct Own {
    /// Turn nothing on by itself: only the options given here count
    #[arg(long)]
    no_auto: bool,
    /// Do not look at the tree first: CRIU alone decides. Implies --no-auto
    #[arg(long)]
    no_preflight: bool,
    /// Do not flush the checkpoint to the disk before the tree is ended
    #[arg(long)]
    no_sync: bool,
    /// Do not compute sums of images and files
    #[arg(long)]
    no_hash: bool,
    /// Put executables, libraries and open files into DIR, for a restore on another host
    #[arg(long)]
    with_files: bool,
    /// Write even where others own or may write a directory above DIR
    #[arg(long)]
    trust_images: bool,
    /// Where CRIU writes its log and statistics [default: DIR]
    #[arg(long, short = 'W', visible_alias = "work-path", value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// A configuration file of CRIU's, which overrides all options here
    #[arg(long, value_name = "FILE", value_parser = values::absolute)]
    config: Option<String>,
    /// Give up after so long; the tree then runs on
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    deadline: Option<Duration>,
}

/// What of the tree needs to be allowed. crr turns most of these on by itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What is in the tree")]
pub(crate) struct Resources {
    /// Keep established TCP connections
    #[arg(long, conflicts_with = "tcp_close")]
    tcp_established: bool,
    /// Close established TCP connections in the restored tree
    #[arg(long)]
    tcp_close: bool,
    /// Drop TCP connections that nobody has accepted yet
    #[arg(long, visible_alias = "tcp-skip-in-flight")]
    skip_in_flight: bool,
    /// The tree is a job of a shell
    #[arg(long, short = 'j')]
    shell_job: bool,
    /// Allow unix sockets with peers outside the tree
    #[arg(long, short = 'x')]
    ext_unix_sk: bool,
    /// Dump file locks
    #[arg(long, short = 'l')]
    file_locks: bool,
    /// Link unlinked files that have other names under a temporary one
    #[arg(long)]
    link_remap: bool,
    /// The largest deleted file that goes into the images [default: as needed, up to 64M]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) ghost_limit: Option<u32>,
    /// Something that comes from outside, as CRIU spells it: unix[INODE], file[MNT:INODE], mnt[PATH]:NAME, …
    #[arg(long, value_name = "RES")]
    external: Vec<String>,
    /// How connections are kept silent while their sockets do not exist [default: nftables with --tcp-established, else skip]
    #[arg(long, value_enum, value_name = "METHOD")]
    network_lock: Option<values::Lock>,
    /// Look for a device by its number if it is not at its path
    #[arg(long)]
    evasive_devices: bool,
    /// Always search for the paths of watched inodes
    #[arg(long)]
    force_irmap: bool,
    /// Search this path for watched inodes
    #[arg(long, value_name = "PATH")]
    irmap_scan_path: Vec<String>,
    /// Leave out this mount point
    #[arg(long, value_name = "PATH")]
    skip_mnt: Vec<String>,
    /// Take these file system types to be mountable again
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    enable_fs: Vec<String>,
    /// Leave out the content of this namespace
    #[arg(long, value_enum, value_name = "NS")]
    empty_ns: Vec<values::EmptyNs>,
    /// Freeze this cgroup rather than each task
    #[arg(long, value_name = "DIR", value_parser = values::absolute)]
    freeze_cgroup: Option<String>,
    /// How long freezing may take, in seconds; 0 is for ever [default: 10]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// What of the CPU is recorded: none, fpu, cpu, ins, all
    #[arg(long, value_enum, value_name = "CAP")]
    cpu_cap: Option<values::CpuCap>,
    /// Run CRIU without root's capabilities
    #[arg(long)]
    unprivileged: bool,
}

/// What of cgroups goes into the images.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cgroups")]
struct DumpedCgroups {
    #[command(flatten)]
    shared: values::CgroupArgs,
    /// Which controllers and properties are dumped, in CRIU's simplified YAML
    #[arg(long, value_name = "TEXT")]
    cgroup_props: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE", value_parser = values::absolute)]
    cgroup_props_file: Option<String>,
    /// Dump this controller and no other
    #[arg(long, value_name = "NAME")]
    cgroup_dump_controller: Vec<String>,
}

impl DumpedCgroups {
    fn write(self, options: &mut DumpOptions) {
        let Self { shared, cgroup_props, cgroup_props_file, cgroup_dump_controller } = self;
        options.cgroups = shared.options();
        options.cgroup_props = cgroup_props;
        options.cgroup_props_file = cgroup_props_file;
        options.cgroup_dump_controllers = cgroup_dump_controller;
    }
}

impl Dump {
    pub(crate) async fn run(self, global: &Global, output: &Output) -> Result<ExitCode, Failure> {
        super::super::must_be_root()?;
        // Before there is a CRIU or a second thread.
        crr::host::stand_back();
        if self.pid.is_none() {
            return self.run_containers(global, output).await;
        }
        self.containers.choices.need_container()?;
        let dry_run = self.dry_run;
        let request = self.request(global)?;
        let given = given("dump");
        if dry_run {
            let plan = crr::dump::plan(&request, Room::Check).await?;
            let command = plan.command(&given);
            let text = plan.preflight.as_ref().map_or_else(String::new, |report| findings::text(report, &command));
            output
                .result(&serde_json::json!({ "ok": plan.verdict().is_ok(), "plan": plan, "command": command }), &text);
            plan.verdict()?;
            return Ok(ExitCode::SUCCESS);
        }
        let (interrupter, interrupt) = Interrupt::pair();
        let _signals = signals::insist_on_termination(interrupter)?;
        let mut progress = output.progress();
        let shown = |event: crr::dump::Progress| show(&mut progress, event);
        let report = crr::dump::dump(request, interrupt, shown).await.map_err(|failed| failure(*failed))?;
        told(output, &report);
        let text = format!(
            "{} ({}) is in {}: {} of memory, stood still for {}\n",
            report.pid,
            findings::count(report.tasks.len(), "task"),
            escape(report.dir.as_os_str().as_encoded_bytes()),
            findings::bytes(report.memory_bytes),
            findings::time(report.frozen_us.into())
        );
        output.result(&report, &text);
        Ok(ExitCode::SUCCESS)
    }

    fn request(self, global: &Global) -> Result<Request, Failure> {
        let (pid, dir) = (self.pid.unwrap_or(i32::MAX), self.dir.clone());
        self.request_of(pid, dir, global)
    }

    fn request_of(self, pid: i32, dir: PathBuf, global: &Global) -> Result<Request, Failure> {
        let Self { leave_running, leave_stopped, own, resources, cgroups, log, .. } = self;
        let Own { no_auto, no_preflight, no_sync, no_hash, with_files, trust_images, work_dir, config, deadline } = own;
        let mut request = Request::new(pid, dir);
        request.options.afterwards = match (leave_running, leave_stopped) {
            (_, true) => Afterwards::KeepStopped,
            (true, false) => Afterwards::KeepRunning,
            (false, false) => Afterwards::Kill,
        };
        if let Some(limit) = resources.ghost_limit {
            request.ghost_limit_at_most = limit;
        }
        resources.write(&mut request.options);
        cgroups.write(&mut request.options);
        request.options.config_file = config;
        request.work_dir = work_dir;
        log.write(&mut request.options.log).map_err(|what| Failure::new(Code::Usage, what))?;
        request.criu.clone_from(&global.criu);
        request.judge = if no_preflight { Judge::CriuAlone } else { Judge::Preflight };
        request.auto = if no_auto || no_preflight { Auto::Off } else { Auto::On };
        request.flush = if no_sync { Flush::Leave } else { Flush::Disk };
        request.hash = if no_hash { Hash::Skip } else { Hash::Sum };
        request.with_files = if with_files { WithFiles::Keep } else { WithFiles::Leave };
        request.trust = if trust_images { Trust::Anyone } else { Trust::owners() };
        request.watch.deadline = deadline.map(|time| Instant::now() + time);
        Ok(request)
    }
}

/// Shows where a dump is.
fn show(progress: &mut ProgressLine, event: crr::dump::Progress) {
    let stage = match event.stage {
        Stage::Preflight => "looking",
        Stage::Write => "writing",
        Stage::Publish => "flushing",
        Stage::Sum => "summing",
    };
    progress.show(&event, stage, event.written_bytes, event.estimated_bytes);
}

/// Tells what a dump that succeeded has turned on, and what it could not do.
fn told(output: &Output, report: &crr::dump::Report) {
    for finding in report.findings.iter().filter(|finding| finding.level <= Level::Warning) {
        findings::line(finding).trim().lines().for_each(|line| output.note(line.trim()));
    }
    for complaint in &report.complaints {
        output.note(complaint);
    }
}

/// The options of this command line but for those that a plan spells itself.
pub(super) fn given(command: &str) -> Vec<String> {
    let mut words = std::env::args().skip_while(|word| word != command).skip(1);
    let mut given = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--pid" | "--tree" | "-t" | "--dir" | "--images-dir" | "--image-path" | "-D" | "--container"
            | "--runtime-root" => drop(words.next()),
            "--dry-run" | "--json" => {}
            word if [
                "--pid=",
                "--tree=",
                "--dir=",
                "--images-dir=",
                "--image-path=",
                "--container=",
                "--runtime-root=",
            ]
            .iter()
            .any(|own| word.starts_with(own)) => {}
            _ => given.push(word),
        }
    }
    given
}

/// A dump that failed, with what is left of tree and directory.
fn failure(failed: Failed) -> Failure {
    let unharmed = failed.is_tree_unharmed();
    let Failed { error, aftermath, committed, log, kept, put_right, left } = failed;
    let mut failure = Failure::from(error);
    let state = &mut failure.state;
    if let Some(aftermath) = aftermath {
        let Aftermath { alive, gone, traced, stopped, parasites } = aftermath;
        if unharmed {
            let stopped = if stopped.is_empty() { "runs on" } else { "is as it was, stopped" };
            state.push(format!("The tree {stopped}: {} looked at.", findings::count(alive.len(), "task")));
        }
        if !gone.is_empty() {
            let ended = if committed { "were ended by CRIU" } else { "have ended by themselves meanwhile" };
            state.push(format!("Tasks that {ended}: {gone:?}."));
        }
        if !traced.is_empty() {
            state.push(format!("Tasks that are still held by a tracer: {traced:?}."));
        }
        if !parasites.is_empty() {
            state.push(format!("CRIU was killed and left its parasite mapping (/memfd:CRIUMFD) in {parasites:?}: harmless, but it stays."));
        }
        if !unharmed {
            failure.code = Code::TreeChanged;
        }
    }
    state.extend(put_right.into_iter().map(|what| format!("CRIU left {what}.")));
    match kept {
        Some(kept) => {
            state.push(format!("The checkpoint {} is whole and stays: it is what is left of the tree.", kept.display()))
        }
        None => state.push("The directory is as it was.".into()),
    }
    state.extend(log.map(|log| format!("CRIU's log: {}", log.display())));
    state.extend(left);
    failure
}

impl Resources {
    pub(crate) fn write(self, options: &mut DumpOptions) {
        let Self {
            tcp_established,
            tcp_close,
            skip_in_flight,
            shell_job,
            ext_unix_sk,
            file_locks,
            link_remap,
            ghost_limit,
            external,
            network_lock,
            evasive_devices,
            force_irmap,
            irmap_scan_path,
            skip_mnt,
            enable_fs,
            empty_ns,
            freeze_cgroup,
            timeout,
            cpu_cap,
            unprivileged,
        } = self;
        options.tcp = match (tcp_established, tcp_close) {
            (true, _) => Tcp::Established,
            (false, true) => Tcp::Close,
            (false, false) => Tcp::Refuse,
        };
        let switches = [
            (skip_in_flight, DumpSwitch::SkipInFlight),
            (shell_job, DumpSwitch::ShellJob),
            (ext_unix_sk, DumpSwitch::ExtUnixSk),
            (file_locks, DumpSwitch::FileLocks),
            (link_remap, DumpSwitch::LinkRemap),
            (evasive_devices, DumpSwitch::EvasiveDevices),
            (force_irmap, DumpSwitch::ForceIrmap),
            (unprivileged, DumpSwitch::Unprivileged),
        ];
        options.switches.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, switch)| switch));
        options.ghost_limit = ghost_limit;
        options.external = external;
        options.network_lock = network_lock.map(NetworkLock::from);
        options.irmap_scan_paths = irmap_scan_path;
        options.skip_mnt = skip_mnt;
        options.enable_fs = enable_fs;
        options.empty_ns = empty_ns.into_iter().map(EmptyNamespace::from).collect();
        options.freeze_cgroup = freeze_cgroup;
        options.timeout_s = timeout;
        options.cpu = cpu_cap.map(Into::into);
    }
}
