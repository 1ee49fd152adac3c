//! Words, streams and exit codes. What is done is the library's.

mod commands;
mod exit;
mod failure;
mod findings;
mod foreground;
mod host_report;
mod output;
mod passing;
mod progress;
mod signals;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::Code;
use failure::Failure;
use output::Output;

/// Checkpoint and restore of Linux process trees.
#[derive(Debug, Parser)]
#[command(name = "crr", version, about, long_about = LONG_ABOUT, after_help = exit::TABLE, max_term_width = 100)]
struct Crr {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "Checkpoint and restore of Linux process trees.

crr dump writes a tree of processes to a directory, crr restore brings it back, crr check tells beforehand what \
will not work. crr drives CRIU and needs root.";

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "With every command")]
struct Global {
    /// The CRIU program [default: the first suitable of PATH's and /opt/crr/criu/bin/criu]
    #[arg(long, global = true, value_name = "PATH", env = "CRR_CRIU")]
    criu: Option<std::path::PathBuf>,
    /// Where the runtime keeps its containers, as runc has it; after the command --root is CRIU's
    #[arg(long, value_name = "DIR", id = "runtime root")]
    root: Option<std::path::PathBuf>,
    /// Print one JSON object to standard output instead of text
    #[arg(long, global = true)]
    json: bool,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    progress: output::ProgressStyle,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Box<commands::check::Check>),
    Dump(Box<commands::dump::Dump>),
    Completions(commands::completions::Completions),
    Explain(commands::explain::Explain),
    Man(commands::man::Man),
    Peer(commands::peer::Peers),
    Restore(Box<commands::restore::Restore>),
    Rm(commands::rm::Rm),
    Run(commands::run::Run),
    Unlock(commands::unlock::Unlock),
}

/// Parses, runs, prints; the exit code is one of [`exit::TABLE`] or the restored program's.
pub(crate) fn main() -> ExitCode {
    let crr = match Crr::try_parse() {
        Ok(crr) => crr,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Code::Usage.into() } else { Code::Ok.into() };
        }
    };
    let output = Output::new(crr.global.json, crr.global.progress);
    match run(crr, &output) {
        Ok(code) => code,
        Err(failure) => {
            let code = failure.code;
            output.failure(&failure);
            code.into()
        }
    }
}

fn run(crr: Crr, output: &Output) -> Result<ExitCode, Failure> {
    let Crr { global, command } = crr;
    match command {
        Command::Check(check) => block_on(check.run(&global, output)),
        Command::Dump(dump) => block_on(dump.run(&global, output)),
        Command::Completions(completions) => completions.run(),
        Command::Explain(explain) => explain.run(output),
        Command::Man(man) => man.run(),
        Command::Peer(peers) => peers.run(output),
        Command::Restore(restore) => restore.run(&global, output),
        Command::Rm(rm) => rm.run(&global, output),
        Command::Run(run) => run.run(output),
        Command::Unlock(unlock) => unlock.run(output),
    }
}

/// Runs a command's future. One thread is enough: CRIU does the work.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| crr::Error::system("start the runtime", source))?;
    let done = runtime.block_on(future);
    if done.is_ok() {
        // Nothing is under way any more: idle threads need not be waited for one by one.
        runtime.shutdown_background();
    }
    done
}

/// CRIU and most of /proc need root.
fn must_be_root() -> Result<(), Failure> {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(Code::NotPermitted, "checkpoint and restore need root: run it with sudo")),
    }
}

/// The whole command line, for completions and man pages.
fn command() -> clap::Command {
    Crr::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
