//! Running the `crr` and the `criu` program: words in, streams and exit status out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;

use crate::need;
use crate::spawning;
use crate::until::until;

/// The longest a command of these tests may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What a program that ended has said.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit status; 128+N for a signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The terminal and the shell that it ran in: what was restored there lives for as long as they do.
    _terminal: Option<(OwnedFd, Running)>,
}

impl Ran {
    /// Whether the exit status is 0.
    pub(crate) fn passed(&self) -> bool {
        self.code == 0
    }

    /// Fails unless the exit status is 0.
    pub(crate) fn must_pass(self, what: &str) -> Result<Self, Failed> {
        self.must_exit(0, what)
    }

    /// Fails unless the exit status is `code`.
    pub(crate) fn must_exit(self, code: i32, what: &str) -> Result<Self, Failed> {
        if self.code == code {
            return Ok(self);
        }
        let Self { code: got, stdout, stderr, .. } = self;
        Err(format!("{what}: exit status {got} instead of {code}\n--- stdout\n{stdout}--- stderr\n{stderr}").into())
    }
}

/// A program that runs, its streams going to files: a pipe would be waited on for as long as any descendant holds it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts a command in a process group of its own, without input.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failed> {
        Self::start_with_input(command.stdin(Stdio::null()).process_group(0))
    }

    /// Starts a command without input, whose session is set.
    pub(crate) fn start_prepared(command: &mut Command) -> Result<Self, Failed> {
        Self::start_with_input(command.stdin(Stdio::null()))
    }

    /// Starts a command whose input and session are set.
    fn start_with_input(command: &mut Command) -> Result<Self, Failed> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = command
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        Ok(Self { child, stdout, stderr })
    }

    /// Its PID.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// What it has written to stderr so far.
    pub(crate) fn stderr(&mut self) -> String {
        text(&mut self.stderr)
    }

    /// Waits for the end, for `limit` at most; a program that does not end is killed and a failure.
    pub(crate) fn end(mut self, limit: Duration) -> Result<Ran, Failed> {
        let ended = until("the end of the command", limit, || self.child.try_wait().ok().flatten());
        let status = match ended {
            Ok(status) => status,
            Err(failed) => {
                let said = text(&mut self.stderr);
                return Err(format!("{}\n--- stderr\n{said}", failed.message().unwrap_or_default()).into());
            }
        };
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Ok(Ran { code, stdout: text(&mut self.stdout), stderr: text(&mut self.stderr), _terminal: None })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is reported as nothing said; the exit status is judged anyway.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a command to its end whose streams are given. What descends from it may keep them.
pub(crate) fn run_on_streams(command: &mut Command, streams: [Stdio; 3], limit: Duration) -> Result<Ran, Failed> {
    let [stdin, stdout, stderr] = streams;
    spawning::own_session(command);
    let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
    let child = child.map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
    // The streams of the caller, which the command holds for its next start, must not stay open.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running { child, stdout: tempfile::tempfile()?, stderr: tempfile::tempfile()? }.end(limit)
}

/// The `crr` command under test, its arguments not yet given.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crr"));
    command.env("NO_COLOR", "1");
    command
}

/// Runs `crr` to its end.
pub(crate) fn crr<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Ran, Failed> {
    Running::start(command().args(arguments))?.end(LIMIT)
}

/// `crr dump --pid PID --dir DIR` and more words.
pub(crate) fn dump(pid: i32, directory: &Path, more: &[&str]) -> Result<Ran, Failed> {
    Running::start(command().args(["dump", "--pid", &pid.to_string(), "--dir"]).arg(directory).args(more))?.end(LIMIT)
}

/// `crr restore -d --dir DIR` and more words.
pub(crate) fn restore(directory: &Path, more: &[&str]) -> Result<Ran, Failed> {
    Running::start(command().args(["restore", "-d", "--dir"]).arg(directory).args(more))?.end(LIMIT)
}

/// As [`restore`], with the PID in a file, and where asked on a terminal of its own.
pub(crate) fn restore_to(directory: &Path, pidfile: &Path, on_terminal: bool) -> Result<Ran, Failed> {
    let mut command = command();
    command.args(["restore", "-d", "--dir"]).arg(directory).arg("--pidfile").arg(pidfile);
    run_on(&mut command, LIMIT, on_terminal)
}

/// Runs a command to its end, where asked on a terminal of its own.
fn run_on(command: &mut Command, limit: Duration, on_terminal: bool) -> Result<Ran, Failed> {
    if on_terminal { run_in_shell(command, limit) } else { Running::start(command)?.end(limit) }
}

/// Runs a command as a job of a shell, which stays: a terminal whose session leader ends hangs up on all that use it.
fn run_in_shell(command: &Command, limit: Duration) -> Result<Ran, Failed> {
    const WORD: &str = "exit status ";
    let pty = nix::pty::openpty(None, None)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\"; echo \"exit status $?\" >&2; exec cat", "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).stdin(pty.slave);
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    spawning::own_terminal(&mut shell);
    let mut running = Running::start_with_input(&mut shell)?;
    let code = until("the end of the command in the shell", limit, || {
        running.stderr().lines().find_map(|line| line.strip_prefix(WORD)?.parse().ok())
    })?;
    let (stdout, stderr) = (text(&mut running.stdout), running.stderr());
    Ok(Ran { code, stdout, stderr, _terminal: Some((pty.master, running)) })
}

/// Runs the criu program itself; its decisive lines are the stderr given back.
pub(crate) fn criu<S: AsRef<OsStr>>(
    verb: &str,
    images: &Path,
    arguments: impl IntoIterator<Item = S>,
    limit: Duration,
) -> Result<Ran, Failed> {
    criu_on(verb, images, arguments, limit, false)
}

/// As [`criu`], where asked on a terminal of its own.
pub(crate) fn criu_on<S: AsRef<OsStr>>(
    verb: &str,
    images: &Path,
    arguments: impl IntoIterator<Item = S>,
    limit: Duration,
    on_terminal: bool,
) -> Result<Ran, Failed> {
    let program = need::criu().ok_or("no criu")?;
    let log = PathBuf::from(format!("{verb}.log"));
    let mut command = Command::new(program);
    command.arg(verb).arg("-D").arg(images).args(["-v4", "-o"]).arg(&log).args(arguments);
    let mut ran = run_on(&mut command, limit, on_terminal)?;
    if !ran.passed() {
        ran.stderr = decisive(&std::fs::read_to_string(images.join(log)).unwrap_or_default());
    }
    Ok(ran)
}

/// The first errors of a CRIU log that say something.
pub(crate) fn decisive(log: &str) -> String {
    const EMPTY: [&str; 5] =
        ["RLIMIT_NOFILE for self", "Dumping FAILED", "Restoring FAILED", "failed with -1", "Can't setup RLIMIT"];
    log.lines()
        .filter(|line| line.contains("Error (") && !EMPTY.iter().any(|empty| line.contains(empty)))
        .filter_map(|line| line.split_once(") ").map(|(_, rest)| rest.trim()))
        .take(2)
        .collect::<Vec<_>>()
        .join(" | ")
}
