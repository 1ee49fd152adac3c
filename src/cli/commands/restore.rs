//! `crr restore --dir DIR [-d]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crr::event::EventKind;
use crr::operation::Interrupt;
use crr::request::{Parent, RestoreOptions, RestoreSwitch, Tcp};
use crr::restore::{self, Restoring};
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::exit::Code;
use super::super::failure::Failure;
use super::super::foreground::{self, Terminal};
use super::super::output::Output;
use super::super::passing::{self, Arrived};
use super::super::values::{self, CgroupArgs, LogArgs};
use super::super::{Global, block_on};

/// Brings a checkpointed tree back
///
/// Without --detach crr stays as the parent of the tree's root and exits as it does.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The checkpoint directory
    #[arg(long, short = 'D', visible_aliases = ["images-dir", "image-path"], value_name = "DIR")]
    dir: PathBuf,
    /// Exit when the tree runs, instead of waiting for its end
    #[arg(long, short = 'd', visible_alias = "restore-detached")]
    detach: bool,
    /// Write the PID of the tree's root there, before the tree runs
    #[arg(long, alias = "pid-file", value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Where CRIU writes its log and statistics [default: a directory of its own]
    #[arg(long, short = 'W', visible_alias = "work-path", value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Give up after this time
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    deadline: Option<Duration>,
    /// The tree is a job of the caller's shell and takes its terminal
    #[arg(long, short = 'j')]
    shell_job: bool,
    /// Restore established TCP connections
    #[arg(long, conflicts_with = "tcp_close")]
    tcp_established: bool,
    /// Restore TCP connections as closed
    #[arg(long)]
    tcp_close: bool,
    #[command(flatten)]
    cgroups: CgroupArgs,
    #[command(flatten)]
    log: LogArgs,
}

impl Restore {
    pub(crate) fn run(self, global: Global, output: &Output) -> Result<ExitCode, Failure> {
        let signals = passing::listen()?;
        block_on(self.restore(global, output, signals))
    }

    async fn restore(
        self,
        global: Global,
        output: &Output,
        mut signals: UnboundedReceiver<Arrived>,
    ) -> Result<ExitCode, Failure> {
        let Self { dir, detach, pidfile, work_dir, deadline, shell_job, tcp_established, tcp_close, cgroups, log } =
            self;
        let mut options = RestoreOptions::new();
        log.write(&mut options.log).map_err(|what| Failure::new(Code::Usage, what))?;
        options.cgroups = cgroups.options();
        if shell_job {
            options.switches.insert(RestoreSwitch::ShellJob);
        }
        options.tcp = match (tcp_established, tcp_close) {
            (true, _) => Tcp::Established,
            (_, true) => Tcp::Close,
            _ => Tcp::Refuse,
        };
        options.parent = if detach { Parent::Reaper } else { Parent::Caller };
        let criu = global.criu.unwrap_or_else(|| {
            let private = PathBuf::from("/opt/crr/criu/bin/criu");
            if private.exists() { private } else { "criu".into() }
        });
        let mut request = restore::Request::new(dir, criu);
        request.options = options;
        request.work = work_dir;
        request.deadline = deadline;
        let terminal = Terminal::remember();
        let mut restoring = restore::begin(request).await?;
        let outcome = drive(&mut restoring, &mut signals, pidfile.as_deref()).await;
        let root = match outcome {
            Ok(pid) => pid,
            Err(failure) => return Err(undone(restoring, failure, &mut signals).await),
        };
        if detach {
            output.data(&format!("{root}\n"));
            return Ok(ExitCode::SUCCESS);
        }
        let code = foreground::wait(root, &mut signals).await?;
        drop(terminal);
        Ok(code)
    }
}

/// Answers the events until the tree runs; the PID of its root.
async fn drive(
    restoring: &mut Restoring,
    signals: &mut UnboundedReceiver<Arrived>,
    pidfile: Option<&std::path::Path>,
) -> Result<i32, Failure> {
    loop {
        let root = restoring.root();
        let event = tokio::select! {
            biased;
            signal = ending(signals) => return Err(Failure::new(Code::Cancelled, format!("cancelled by {signal}"))),
            event = restoring.next() => event?,
        };
        let Some(event) = event else { break };
        if let (EventKind::PreResume, Some(pid), Some(pidfile)) = (event.kind(), root, pidfile) {
            write_pidfile(pidfile, pid)?;
        }
        event.proceed().await?;
    }
    Ok(restoring.finish().await?.pid)
}

/// Waits for a signal that asks to give up.
async fn ending(signals: &mut UnboundedReceiver<Arrived>) -> nix::sys::signal::Signal {
    loop {
        match signals.recv().await {
            Some(arrived) if arrived.ends() => return arrived.signal,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Gives the restore up and says what is left. Another signal kills CRIU at once.
async fn undone(restoring: Restoring, mut failure: Failure, signals: &mut UnboundedReceiver<Arrived>) -> Failure {
    let (interrupter, interrupt) = Interrupt::pair();
    let cancel = restoring.cancel(interrupt);
    tokio::pin!(cancel);
    let cancelled = loop {
        tokio::select! {
            cancelled = &mut cancel => break cancelled,
            _ = ending(signals) => {
                interrupter.insist();
                interrupter.insist();
            }
        }
    };
    if cancelled.left.is_empty() {
        failure.state.push("nothing of the tree is left; the checkpoint is unchanged".into());
    } else {
        failure.code = Code::TreeChanged;
        failure.state.push(format!("still there, though killed: PIDs {:?}", cancelled.left));
    }
    if let Some(log) = cancelled.log {
        failure.state.push(format!("CRIU's log: {}", log.display()));
    }
    failure
}

/// Writes the PID by way of another name: whoever sees the file sees all of it.
fn write_pidfile(path: &std::path::Path, pid: i32) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    std::fs::write(&temporary, format!("{pid}\n")).map_err(crr::Error::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(crr::Error::io("write", path))?;
    Ok(())
}
