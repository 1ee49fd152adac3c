//! `crr run [-d] -- CMD…`

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Args;
use crr::host::cgroup::{Layout, OwnCgroup, Place, settle};

use super::super::exit::Code;
use super::super::failure::Failure;
use super::super::output::Output;
use super::super::{block_on, foreground, passing};
use super::restore::write_pidfile;

/// Starts a program so that it can be checkpointed
///
/// In a session of its own, without any descriptor from outside, in a cgroup of its own where one can be made. Without
/// --detach crr waits for its end and exits as it does.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Exit when the program runs, instead of waiting for its end
    #[arg(long, short = 'd')]
    detach: bool,
    /// Write its PID there, before it runs
    #[arg(long, alias = "pid-file", value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Append its standard output and error to this file [default: with --detach /dev/null, else crr's own]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// A program that was started.
struct Started {
    child: Child,
    cgroup: Option<OwnCgroup>,
    failures: Vec<String>,
}

impl Run {
    pub(crate) fn run(self, output: &Output) -> Result<ExitCode, Failure> {
        let signals = passing::listen()?;
        let Self { detach, pidfile, log, command } = self;
        let mut words = command.into_iter();
        let Some(program) = words.next() else { return Err(Failure::new(Code::Usage, "no command was given")) };
        let mut command = Command::new(&program);
        command.args(words);
        streams(&mut command, log.as_deref(), detach, output)?;
        let started = start(command, &program, pidfile.as_deref())?;
        let Started { child, cgroup, failures } = started;
        if cgroup.is_none() && !failures.is_empty() {
            output.note(&format!("warning: the program is in crr's own cgroup: {}", failures.join("; ")));
        }
        let pid = i32::try_from(child.id()).unwrap_or_default();
        if detach {
            output.result(&serde_json::json!({ "ok": true, "pid": pid }), &format!("{pid}\n"));
            return Ok(ExitCode::SUCCESS);
        }
        let code = block_on(foreground::wait(pid, &signals))?;
        if let Some(cgroup) = cgroup {
            cgroup.remove_if_empty();
        }
        Ok(code)
    }
}

/// Where the program reads from and writes to: nothing that would keep it from being dumped, as far as that is up to crr.
fn streams(command: &mut Command, log: Option<&std::path::Path>, detach: bool, output: &Output) -> Result<(), Failure> {
    command.stdin(match !detach && is_file(io::stdin().as_fd()) {
        true => Stdio::inherit(),
        false => Stdio::null(),
    });
    if let Some(log) = log {
        // Appending: CRIU insists on the size of a file that is written otherwise.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(log);
        let file = file.map_err(crr::Error::io("open the log", log))?;
        let copy = file.try_clone().map_err(crr::Error::io("open the log", log))?;
        command.stdout(file).stderr(copy);
    } else if detach {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    } else {
        let what = match (io::stdout().is_terminal() || io::stderr().is_terminal(), is_pipe(io::stdout().as_fd())) {
            (true, _) => Some("a terminal, which a dump takes only as a shell's (crr turns --shell-job on)"),
            (_, true) => Some("a pipe, whose other end is outside of the tree and is lost by a dump"),
            _ => None,
        };
        if let Some(what) = what {
            output.note(&format!("warning: the program writes to {what}; --log FILE avoids that"));
        }
    }
    Ok(())
}

/// Starts the program: it is in its session and its cgroup, and its PID is written, before it runs.
fn start(mut command: Command, program: &OsString, pidfile: Option<&std::path::Path>) -> Result<Started, Failure> {
    let (mut tells, mut told) = pipe()?;
    let (mut waits, mut lets) = pipe()?;
    let ours = lets.as_raw_fd();
    let prepare = move || {
        // Without this the child would hold the end whose closing tells it that crr is gone.
        // SAFETY: a plain system call; this copy of the descriptor is the child's alone, and nothing there uses it.
        unsafe { libc::close(ours) };
        nix::unistd::setsid()?;
        told.write_all(&std::process::id().to_ne_bytes())?;
        // What it is told does not matter; an end of file is crr's death or its failure.
        waits.read_exact(&mut [0])?;
        // SAFETY: a plain system call on integers. What it fails to close is close-on-exec from birth.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: `prepare` makes system calls only: it neither allocates nor takes a lock, as is required between fork and exec.
    unsafe { command.pre_exec(prepare) };
    let pidfile = pidfile.map(std::path::Path::to_path_buf);
    // `spawn` returns when the program has been executed; what must happen before is done beside it.
    let beside = std::thread::spawn(move || -> Result<(Option<OwnCgroup>, Vec<String>), Failure> {
        let mut pid = [0; 4];
        if tells.read_exact(&mut pid).is_err() {
            // There was no fork, or it failed: `spawn` says why.
            return Ok((None, Vec::new()));
        }
        let pid = i32::try_from(u32::from_ne_bytes(pid)).unwrap_or_default();
        let (cgroup, failures) = move_away(pid);
        if let Some(pidfile) = &pidfile {
            write_pidfile(pidfile, pid)?;
        }
        // Fails only where the program is gone already, which shows elsewhere.
        let _ = lets.write_all(&[1]);
        Ok((cgroup, failures))
    });
    let spawned = command.spawn();
    drop(command);
    let prepared =
        beside.join().map_err(|_| Failure::new(Code::Internal, "a fault of crr's own: a thread panicked"))?;
    let (cgroup, failures) = prepared?;
    match spawned {
        Ok(child) => Ok(Started { child, cgroup, failures }),
        Err(source) => {
            if let Some(cgroup) = cgroup {
                cgroup.remove_if_empty();
            }
            let code = if source.kind() == io::ErrorKind::NotFound { Code::NotThere } else { Code::System };
            let mut failure = Failure::new(code, format!("cannot start `{}`", program.to_string_lossy()));
            failure.chain.push(source.to_string());
            Err(failure)
        }
    }
}

/// A pipe that no other program inherits.
fn pipe() -> Result<(File, File), Failure> {
    let ends = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let (read, write) = ends.map_err(|errno| crr::Error::system("make a pipe", errno))?;
    Ok((read.into(), write.into()))
}

/// Into a cgroup of its own: whatever ends crr's does not end the program.
fn move_away(pid: i32) -> (Option<OwnCgroup>, Vec<String>) {
    match Layout::read() {
        Ok(layout) => {
            let settled = settle(&layout, pid, None, &format!("run-{pid}"));
            match settled.place {
                Place::Own(own) => (Some(own), Vec::new()),
                Place::Unmoved => (None, settled.failures),
                _ => (None, Vec::new()),
            }
        }
        Err(error) => (None, vec![error.to_string()]),
    }
}

fn is_file(descriptor: impl AsFd) -> bool {
    kind_of(descriptor).is_some_and(|kind| kind.is_file())
}

fn is_pipe(descriptor: impl AsFd) -> bool {
    kind_of(descriptor).is_some_and(|kind| kind.is_fifo() || kind.is_socket())
}

fn kind_of(descriptor: impl AsFd) -> Option<std::fs::FileType> {
    let file = File::from(descriptor.as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|metadata| metadata.file_type())
}
