//! Programs that a migration runs at its stages: `--hook STAGE=PATH`.
//!
//! A hook comes from the command line or the configuration of the host on which it runs, never from a peer or an image. It is
//! one program without arguments, run without a shell, in `/`, with no other input than its environment:
//!
//! | variable | what it is |
//! |---|---|
//! | `CRR_HOOK_STAGE` | the stage, as in `--hook` |
//! | `CRR_HOOK_ROLE` | `source` or `target` |
//! | `CRR_MIGRATION` | the migration's id |
//! | `CRR_PEER` | what the other host is called here; not set where it has no name |
//! | `CRR_PID` | the PID of the tree's root on this host; not set while there is none |
//! | `PATH` | `/usr/sbin:/usr/bin:/sbin:/bin` |
//!
//! It must be a file of root's or the caller's that nobody else may write, in directories of which the same is true. It has a
//! time limit, after which it is killed with what it has started. One that fails at `pre-checkpoint`, `pre-restore`,
//! `checkpoint` or `restore` ends the migration, and the tree runs on where it was; at `commit` and `abort` it is too late for
//! that, and it is only told.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{Pid, pipe2};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use crate::checkpoint::{Caller, Trust, kind, open_place};
use crate::error::{Distrust, DistrustReason, Error, Result};
use crate::peer::Problem;

/// How long a hook may take, where nobody says otherwise.
pub const LIMIT: Duration = Duration::from_secs(30);
/// So much of what it says is kept.
const SAID_LIMIT: usize = 64 << 10;
const SEARCHED: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Before anything is looked at on the source.
    PreCheckpoint,
    /// Before anything is made on the target.
    PreRestore,
    /// The tree stands still.
    Checkpoint,
    /// The copy is there and stands still.
    Restore,
    /// The copy runs, and the original is gone.
    Commit,
    /// The original runs, and the copy is gone.
    Abort,
}

impl Stage {
    /// All, in their order.
    pub const ALL: [Self; 6] =
        [Self::PreCheckpoint, Self::PreRestore, Self::Checkpoint, Self::Restore, Self::Commit, Self::Abort];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PreCheckpoint => "pre-checkpoint",
            Self::PreRestore => "pre-restore",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::Commit => "commit",
            Self::Abort => "abort",
        }
    }

    /// Whether a hook that fails can still end the migration.
    pub const fn can_stop(self) -> bool {
        !matches!(self, Self::Commit | Self::Abort)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which side this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The tree leaves it.
    Source,
    /// The tree comes to it.
    Target,
}

/// What a hook is told.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Which side this host is.
    pub role: Role,
    /// The migration's id.
    pub migration: &'a str,
    /// What the other host is called here.
    pub peer: Option<&'a str>,
    /// The root of the tree on this host.
    pub pid: Option<i32>,
}

/// A program for a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    stage: Stage,
    program: PathBuf,
}

impl FromStr for Hook {
    type Err = Error;

    /// `STAGE=PATH`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason| Error::Option { option: "--hook", value: text.into(), reason };
        let (word, path) = text.split_once('=').ok_or_else(|| wrong("must be STAGE=PATH"))?;
        let stage = Stage::ALL.into_iter().find(|stage| stage.word() == word);
        let stage = stage.ok_or_else(|| {
            wrong("must begin with pre-checkpoint, pre-restore, checkpoint, restore, commit or abort")
        })?;
        Self::new(stage, path).map_err(|_| wrong("must have an absolute path"))
    }
}

impl Hook {
    /// This program for this stage.
    ///
    /// # Errors
    /// [`Error::Option`] for a path that is not absolute.
    pub fn new(stage: Stage, program: impl Into<PathBuf>) -> Result<Self> {
        let program = program.into();
        match program.is_absolute() {
            true => Ok(Self { stage, program }),
            false => Err(Error::Option {
                option: "--hook",
                value: program.display().to_string(),
                reason: "must be an absolute path",
            }),
        }
    }

    /// When it is run.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// That it is there and can be run, and that only root and the caller could have put it there.
    ///
    /// # Errors
    /// [`Problem::Untrusted`], [`Error::Io`].
    pub fn check(&self) -> Result<()> {
        let failed = |errno: Errno| Error::io("run the hook", &self.program)(errno.into());
        let (Some(above), Some(name)) = (self.program.parent(), self.program.file_name()) else {
            return Err(failed(Errno::EISDIR));
        };
        let trust = Trust::owners();
        let (directory, mut found) = open_place(above, trust)?;
        let stat = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        let path = directory.path_of(name);
        let mut report = |why| found.push(Distrust { path: path.clone(), why });
        if kind(&stat) != SFlag::S_IFREG {
            report(DistrustReason::Kind);
        } else if !Caller::current().may_own(&stat) {
            report(DistrustReason::Owner(stat.st_uid));
        } else if stat.st_mode & 0o022 != 0 {
            report(DistrustReason::Writable(stat.st_mode & 0o7777));
        }
        if !found.is_empty() {
            return Err(Problem::Untrusted { path: self.program.clone(), found }.into());
        }
        if stat.st_mode & 0o111 == 0 { Err(failed(Errno::EACCES)) } else { Ok(()) }
    }

    /// Checks and runs it; gives what it has said on its standard output and standard error.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Error::System`] when it fails or takes longer than `limit`, with what it has said.
    ///
    /// # Cancellation
    /// Dropping the future kills the program, but not what it has started.
    pub async fn run(&self, circumstances: Circumstances<'_>, limit: Duration) -> Result<String> {
        self.check()?;
        let failed = |source: io::Error| {
            Error::system(format!("run the hook `{}` at {}", self.program.display(), self.stage), source)
        };
        let (mut child, mut output) = self.start(circumstances).map_err(failed)?;
        let mut said = Vec::new();
        let ended = tokio::time::timeout(limit, wait(&mut child, &mut output, &mut said)).await;
        let status = match ended {
            Ok(status) => status.map_err(failed)?,
            Err(_) => {
                // Its group, of which it is the leader and not reaped yet.
                if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                }
                let _ = child.wait().await;
                let what = format!("it took longer than {} s{}", limit.as_secs_f64(), words(&said));
                return Err(failed(io::Error::other(what)));
            }
        };
        match status.success() {
            true => Ok(String::from_utf8_lossy(&said).into_owned()),
            false => Err(failed(io::Error::other(format!("it ended with {status}{}", words(&said))))),
        }
    }

    fn start(&self, circumstances: Circumstances<'_>) -> io::Result<(Child, Receiver)> {
        let Circumstances { role, migration, peer, pid } = circumstances;
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // The program's end waits where there is no room.
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty())?;
        let second: OwnedFd = writer.try_clone()?;
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", SEARCHED)
            .env("CRR_HOOK_STAGE", self.stage.word())
            .env("CRR_HOOK_ROLE", if role == Role::Source { "source" } else { "target" })
            .env("CRR_MIGRATION", migration)
            .current_dir(Path::new("/"))
            .stdin(Stdio::null())
            .stdout(Stdio::from(writer))
            .stderr(Stdio::from(second))
            .process_group(0)
            .kill_on_drop(true);
        if let Some(peer) = peer {
            command.env("CRR_PEER", peer);
        }
        if let Some(pid) = pid {
            command.env("CRR_PID", pid.to_string());
        }
        let child = command.spawn()?;
        Ok((child, Receiver::from_owned_fd(reader)?))
    }
}

/// Until the program has ended. What it leaves behind may hold its output open: that is not waited for.
async fn wait(child: &mut Child, output: &mut Receiver, said: &mut Vec<u8>) -> io::Result<ExitStatus> {
    let mut open = true;
    loop {
        let mut buffer = [0; 4096];
        tokio::select! {
            // What it has said comes first.
            biased;
            read = output.read(&mut buffer), if open => match read? {
                0 => open = false,
                count => keep(said, &buffer[..count]),
            },
            status = child.wait() => {
                let status = status?;
                while let Ok(count @ 1..) = output.try_read(&mut buffer) {
                    keep(said, &buffer[..count]);
                }
                return Ok(status);
            }
        }
    }
}

fn keep(said: &mut Vec<u8>, more: &[u8]) {
    let room = SAID_LIMIT.saturating_sub(said.len()).min(more.len());
    said.extend_from_slice(&more[..room]);
}

fn words(said: &[u8]) -> String {
    match String::from_utf8_lossy(said).trim() {
        "" => String::new(),
        said => format!(": {}", crate::escape::escape(said)),
    }
}

/// Runs those of a stage one after the other; gives what each has said.
///
/// # Errors
/// The first that fails, see [`Hook::run`]; those after it are not run.
pub async fn run(
    hooks: &[Hook],
    stage: Stage,
    circumstances: Circumstances<'_>,
    limit: Duration,
) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for hook in hooks.iter().filter(|hook| hook.stage == stage) {
        said.push(hook.run(circumstances, limit).await?);
    }
    Ok(said)
}

#[cfg(test)]
mod tests;
