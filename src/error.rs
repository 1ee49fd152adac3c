//! The error of every fallible function of this crate.
//!
//! `Display` says what was attempted and with which values; the cause is in [`std::error::Error::source`] only, so that a
//! caller prints the chain once. What a person can do about it is in [`Error::hint`], apart from the message.

mod checkpoint;
mod image;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::preflight::Finding;
use crate::request::Version;
use crate::swrk::Hang;

use self::checkpoint::listed;
pub use self::checkpoint::{
    Absence, DirectoryProblem, Distrust, DistrustReason, ImageProblem, RecordProblem, WrongImage,
};
pub use self::image::ImageFault;

/// A [`Result`](std::result::Result) with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file or directory failed.
    #[error("cannot {attempt} `{}`", path.display())]
    Io {
        /// The verb, such as "read".
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The CRIU binary did not start; nothing has touched the process tree.
    #[error("cannot start CRIU at `{}`", binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A request could not be encoded. Nothing was sent.
    #[error("cannot encode a request to CRIU")]
    Encode {
        /// The cause.
        source: protobuf::Error,
    },
    /// There is no CRIU that would do.
    #[error("no suitable CRIU{}", candidates(found))]
    NoCriu {
        /// Those that were found, each with the reason why it is not suitable.
        found: Vec<crate::criu::Candidate>,
    },
    /// The socket to CRIU failed.
    #[error("cannot talk to CRIU about the {attempt}")]
    Talk {
        /// The operation.
        attempt: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The conversation with CRIU was over already.
    #[error("the conversation with CRIU about the {attempt} is over")]
    Closed {
        /// The operation.
        attempt: &'static str,
    },
    /// CRIU went away without an answer. What it was doing is in an unknown state: a dumped tree must be looked at.
    #[error("CRIU ended without answering the {attempt} ({status}){}", stderr_tail(stderr))]
    Hangup {
        /// The operation.
        attempt: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// CRIU does not answer. It still runs: [`Operation::cancel`](crate::operation::Operation::cancel).
    #[error("CRIU hangs in the {attempt}: {hang}")]
    Hang {
        /// The operation.
        attempt: &'static str,
        /// Why it is held to hang.
        hang: Hang,
    },
    /// CRIU said something that no CRIU says.
    #[error("CRIU answered the {attempt} with nonsense: {what}")]
    Nonsense {
        /// The operation.
        attempt: &'static str,
        /// What it said.
        what: String,
    },
    /// CRIU reported failure.
    #[error("CRIU reports that the {attempt} failed{}", errno_text(*errno))]
    Refused {
        /// The operation.
        attempt: &'static str,
        /// CRIU's errno, where it gave one: 3 no such process, 17 PID taken, 56 bad options.
        errno: Option<i32>,
        /// The log it wrote, where there is one.
        log: Option<Vec<u8>>,
    },
    /// An option has a value that CRIU would refuse or misunderstand. Nothing was started.
    #[error("`{value}` is no value for {option}: it {reason}")]
    Option {
        /// The criu program's word for the option.
        option: &'static str,
        /// The value.
        value: String,
        /// What a value must be.
        reason: &'static str,
    },
    /// The running CRIU would ignore an option without a word. Nothing was requested.
    #[error("the option {option} needs CRIU {since}, and this is CRIU {running}")]
    NeedsNewerCriu {
        /// The option, by its name in rpc.proto.
        option: String,
        /// The first release that acts on it.
        since: Version,
        /// The version of the CRIU that would have got it.
        running: Version,
    },
    /// An image file of CRIU cannot be read as what its name says.
    #[error("cannot read the image `{}`", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageFault,
    },
    /// A directory cannot be dumped to, restored from or removed.
    #[error("cannot use `{}`: {problem}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        problem: DirectoryProblem,
    },
    /// Someone else could have written a checkpoint, or exchange it.
    #[error("`{}` is not trusted: {}", dir.display(), listed(found))]
    Untrusted {
        /// The checkpoint directory.
        dir: PathBuf,
        /// Every reason.
        found: Vec<Distrust>,
    },
    /// The crr.json of a checkpoint cannot be understood.
    #[error("cannot read the record `{}`: {problem}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: RecordProblem,
    },
    /// Images are not as they were written.
    #[error("the images in `{}` are damaged: {}", dir.display(), listed(wrong))]
    Sums {
        /// The checkpoint directory.
        dir: PathBuf,
        /// Every image that differs.
        wrong: Vec<WrongImage>,
    },
    /// A name that CRIU needs for a restore is taken by another file.
    #[error("cannot put back `{}`: another file has that name", path.display())]
    RemapTaken {
        /// The name, `…/link_remap.N`.
        path: PathBuf,
    },
    /// No overlay can lie over a file system that a copy of a tree would write to.
    #[error("cannot lay an overlay over the {filesystem} file system at `{}`", path.display())]
    Overlay {
        /// Where it is mounted.
        path: PathBuf,
        /// What it is.
        filesystem: String,
        /// The cause.
        source: io::Error,
    },
    /// There is no such process, or it has ended meanwhile.
    #[error("there is no process {pid}")]
    NoSuchProcess {
        /// The PID that was asked for.
        pid: i32,
    },
    /// Processes are in a container but not in its tree, and would be lost. The container runs on.
    #[error("container {id} holds processes that are not in its tree: {}", tasks.join(", "))]
    Outsiders {
        /// The container.
        id: String,
        /// PID and name of each.
        tasks: Vec<String>,
    },
    /// A connection was made to or by a container while it was dumped without a network lock. The container runs on.
    #[error("a TCP connection of container {id} was made while it was being dumped without a network lock")]
    Connected {
        /// The container.
        id: String,
    },
    /// A file was written where none was expected any more. The container runs on.
    #[error("the tmpfs at {} was written to while its container was being dumped without it", place.display())]
    Filled {
        /// Where it is in the container.
        place: PathBuf,
    },
    /// The processes of a cgroup do not stand still. The cgroup is as it was.
    #[error("cannot freeze the cgroup `{}` within {} s", cgroup.display(), limit.as_secs())]
    NotFrozen {
        /// The cgroup.
        cgroup: PathBuf,
        /// How long they had.
        limit: std::time::Duration,
    },
    /// Processes that were killed are still there.
    #[error("processes of the cgroup `{}` have not ended within {} s: {pids:?}", cgroup.display(), limit.as_secs())]
    NotEnded {
        /// The cgroup.
        cgroup: PathBuf,
        /// Their PIDs.
        pids: Vec<i32>,
        /// How long they had.
        limit: std::time::Duration,
    },
    /// A container cannot be dumped as it is: it has not been started, or it has ended.
    #[error("container {id} is {phase}")]
    NotRunning {
        /// The container.
        id: String,
        /// The runtime's word for it.
        phase: &'static str,
    },
    /// The preflight says that CRIU would refuse. Nothing was touched.
    #[error("a dump of {pid} will not work for {} reason(s)", findings.len())]
    WillNotWork {
        /// The root of the tree.
        pid: i32,
        /// Why not.
        findings: Vec<Finding>,
    },
    /// The caller has to choose between options that each lose something. Nothing was touched.
    #[error("a dump of {pid} needs a choice between options: {} question(s)", findings.len())]
    ChoiceNeeded {
        /// The root of the tree.
        pid: i32,
        /// What has to be chosen.
        findings: Vec<Finding>,
    },
    /// There is not enough free space for the images. Nothing was touched.
    #[error("`{}` needs about {needed_bytes} bytes and has {free_bytes}", dir.display())]
    NoRoom {
        /// The checkpoint directory.
        dir: PathBuf,
        /// How much is needed, roughly.
        needed_bytes: u64,
        /// How much there is.
        free_bytes: u64,
    },
    /// The caller has interrupted an operation.
    #[error("the {attempt} was cancelled")]
    Cancelled {
        /// The operation.
        attempt: &'static str,
    },
    /// A checkpoint that was waited for has not come. Nothing has been made.
    #[error("there is no checkpoint at `{}`: {why}", dir.display())]
    Absent {
        /// Where it should have come to.
        dir: PathBuf,
        /// Why it is not waited for any longer.
        why: Absence,
    },
    /// Something that cannot be.
    #[error("a fault of crr's own: {what}")]
    Bug {
        /// What.
        what: &'static str,
    },
    /// A checkpoint cannot be restored here. Nothing of the tree has been made.
    #[error("cannot restore `{}`: {}", dir.display(), listed(problems))]
    Unrestorable {
        /// The checkpoint directory.
        dir: PathBuf,
        /// Everything that stands against it.
        problems: Vec<crate::restore::Problem>,
    },
    /// A container, its bundle or a file of it cannot be used. Nothing was changed.
    #[error("cannot use `{}`: {problem}", path.display())]
    Container {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: crate::oci::Problem,
    },
    /// This host's key, an enrolled peer or the policy cannot be used, or a peer was not let in.
    #[error(transparent)]
    Peer(Box<crate::peer::Problem>),
    /// Memory did not get from CRIU to the other end.
    #[error("cannot transfer the memory of the tree")]
    Pages {
        /// Why not.
        source: crate::pages::Problem,
    },
    /// The record of a migration cannot be understood. It is not taken for an absent one, which would mean abort.
    #[error("cannot read the migration's record `{}`: {problem}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: RecordProblem,
    },
    /// What the other host says cannot be understood. The connection is over.
    #[error("cannot understand the other host")]
    Wire {
        /// What is wrong with it.
        source: crate::wire::Fault,
    },
    /// A system call that concerns no file failed.
    #[error("cannot {attempt}")]
    System {
        /// What was attempted, such as "make a socket pair".
        attempt: String,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// What a person can do about it, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Spawn { .. } | Self::NoCriu { .. } => {
                Some("install CRIU 4.2 or newer, or run tools/setup-criu of crr's repository".into())
            }
            Self::NeedsNewerCriu { since, .. } => {
                Some(format!("use CRIU {since} or newer (--criu), or leave the option out"))
            }
            Self::Journal { problem: RecordProblem::Version { .. }, .. } => Some("use the crr that wrote it".into()),
            Self::Journal { .. } => Some(
                "see what the other host knows of this migration (`crr migrations` there); remove the file only when it is \
                 certain where the tree runs"
                    .into(),
            ),
            Self::Wire { source } => source.hint().map(Into::into),
            Self::Directory { problem, .. } => Some(problem.hint().into()),
            Self::Untrusted { .. } => Some(
                "make root or yourself the only one who may write them, or give --trust-images if you trust them"
                    .into(),
            ),
            Self::Record { problem, .. } => Some(problem.hint().into()),
            Self::Container { problem, .. } => Some(problem.hint().into()),
            Self::Sums { .. } => Some("copy the directory again from where it is whole".into()),
            Self::Unrestorable { problems, .. } => problems.first().and_then(crate::restore::Problem::hint),
            Self::Outsiders { .. } => Some(
                "they were started by the runtime's exec: end them, or give --drop-exec to leave them out; they end with \
                 the container"
                    .into(),
            ),
            Self::NotFrozen { .. } => Some(
                "see which of its processes does not stop (ps -eo pid,stat,wchan:30,cgroup,comm), or allow more time with \
                 --timeout SECONDS"
                    .into(),
            ),
            Self::Connected { .. } => Some("repeat it with --network-lock nftables".into()),
            Self::Filled { .. } => Some("repeat it without --images crr".into()),
            Self::NotRunning { phase: "created", .. } => {
                Some("start it first; before that nothing of it is there that a checkpoint could hold".into())
            }
            Self::NotRunning { .. } => Some("only a container that runs or is paused can be dumped".into()),
            Self::Absent { why, .. } => Some(why.hint()),
            Self::Overlay { .. } => Some("unmount it, or let the copy share the files (--share-files)".into()),
            Self::RemapTaken { .. } => Some("move that file away; CRIU needs the name during the restore".into()),
            Self::Peer(problem) => problem.hint(),
            Self::Io { source, .. } | Self::System { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("run it as root".into())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room there, or name a directory on another file system".into())
            }
            _ => None,
        }
    }

    /// An [`Error::Io`] about `path`: `map_err(Error::io("read", path))`.
    pub fn io(attempt: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { attempt, path, source }
    }

    /// An [`Error::System`].
    pub fn system(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { attempt: attempt.into(), source: source.into() }
    }
}

impl From<crate::peer::Problem> for Error {
    fn from(problem: crate::peer::Problem) -> Self {
        Self::Peer(Box::new(problem))
    }
}

/// CRIU's own explanation, where it gave one before its log was open.
fn stderr_tail(stderr: &str) -> String {
    // Printed on every start without CAP_SYS_RESOURCE; harmless.
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains("RLIMIT_NOFILE")).collect();
    match lines.last() {
        Some(line) if !line.trim().is_empty() => format!(": {}", line.trim()),
        _ => String::new(),
    }
}

fn candidates(found: &[crate::criu::Candidate]) -> String {
    let mut text = String::from(if found.is_empty() { ": none was found" } else { "" });
    for (separator, candidate) in std::iter::once(": ").chain(std::iter::repeat("; ")).zip(found) {
        text += &format!("{separator}`{}` {}", candidate.binary.display(), candidate.suitability);
    }
    text
}

fn errno_text(errno: Option<i32>) -> String {
    match errno {
        None | Some(0) => String::new(),
        Some(56) => " (error 56: an option was refused)".into(),
        Some(errno) => format!(" (error {errno}: {})", io::Error::from_raw_os_error(errno)),
    }
}
