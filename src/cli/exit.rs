//! The one table of exit codes. crr's own failures use 64 to 113 only, so that they can be told from those of a restored
//! program that `crr restore` waits for.

use std::process::ExitCode;

use crr::error::{Absence, DirectoryProblem};
use crr::oci::Problem;
use crr::{Error, peer};

/// Printed by `crr --help`, in the man page and in the README; a test compares them.
pub(crate) const TABLE: &str = "Exit codes:
  0   done
  64  the command line is wrong
  65  the images are damaged, incomplete, or of a version that is not known
  66  no such process, directory or peer
  67  the images, the key or the policy are not trusted: somebody else owns or may write them
  68  this host lacks what the images or the purpose need
  69  no suitable CRIU
  70  a fault of crr's own
  71  a system call failed
  73  the directory cannot be used
  74  reading or writing failed, or there is no space
  75  CRIU hangs, or the deadline has passed
  76  CRIU died or spoke nonsense
  77  not permitted: root is needed
  78  the preflight says that it will not work
  79  a choice is needed, such as --tcp-established or --tcp-close
  80  CRIU refused the dump; the tree runs on
  81  CRIU refused the restore; nothing is left of it
  82  cancelled; the tree is as it was
  83  a PID, or the name of a container or peer, is taken
  84  the other host is not known here, or does not know this one, or is not who it should be
  85  the policy refuses it
  90  failed, and the tree is not as it was
Once a tree that `crr restore` waits for runs, crr exits as its root task does: its status, or 128+N for signal N.";

/// An exit code of crr's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Usage = 64,
    BadImages = 65,
    NotThere = 66,
    Untrusted = 67,
    HostLacks = 68,
    NoCriu = 69,
    Internal = 70,
    System = 71,
    Directory = 73,
    Io = 74,
    Hang = 75,
    CriuDied = 76,
    NotPermitted = 77,
    WillNotWork = 78,
    ChoiceNeeded = 79,
    DumpRefused = 80,
    RestoreRefused = 81,
    Cancelled = 82,
    PidTaken = 83,
    Unknown = 84,
    Policy = 85,
    TreeChanged = 90,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

impl Code {
    /// The code for a failure of the library.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Io { source, .. } | Error::System { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Self::NotThere,
                std::io::ErrorKind::PermissionDenied => Self::NotPermitted,
                _ if matches!(error, Error::System { .. }) => Self::System,
                _ => Self::Io,
            },
            Error::Spawn { .. } | Error::NoCriu { .. } | Error::NeedsNewerCriu { .. } => Self::NoCriu,
            Error::Talk { .. } | Error::Closed { .. } | Error::Hangup { .. } | Error::Nonsense { .. } => Self::CriuDied,
            Error::Hang { .. } | Error::NotFrozen { .. } => Self::Hang,
            Error::Absent { why: Absence::DumpFailed(_), .. } => Self::DumpRefused,
            Error::Absent { .. } => Self::Hang,
            Error::Option { .. } => Self::Usage,
            Error::NoSuchProcess { .. } => Self::NotThere,
            Error::WillNotWork { .. } => Self::WillNotWork,
            Error::NotRunning { .. } => Self::WillNotWork,
            Error::Connected { .. } | Error::Filled { .. } => Self::DumpRefused,
            Error::ChoiceNeeded { .. } | Error::Outsiders { .. } => Self::ChoiceNeeded,
            Error::Cancelled { .. } => Self::Cancelled,
            Error::NoRoom { .. } => Self::Io,
            Error::Directory { problem, .. } => match problem {
                DirectoryProblem::NotFound => Self::NotThere,
                DirectoryProblem::Empty | DirectoryProblem::NotACheckpoint => Self::BadImages,
                _ => Self::Directory,
            },
            Error::Container { problem, .. } => match problem {
                Problem::NoContainer | Problem::NoBundle | Problem::NoRootfs(_) => Self::NotThere,
                _ => Self::BadImages,
            },
            Error::Untrusted { .. } => Self::Untrusted,
            Error::Peer(problem) => Self::of_peer(problem),
            Error::Image { .. } | Error::Record { .. } | Error::Sums { .. } => Self::BadImages,
            Error::RemapTaken { .. } | Error::Overlay { .. } | Error::Unrestorable { .. } => Self::HostLacks,
            Error::Refused { attempt: "dump", .. } => Self::DumpRefused,
            Error::Refused { attempt: "restore", errno: Some(17), .. } => Self::PidTaken,
            Error::Refused { attempt: "restore", .. } => Self::RestoreRefused,
            Error::Refused { .. } => Self::HostLacks,
            _ => Self::Internal,
        }
    }

    fn of_peer(problem: &peer::Problem) -> Self {
        use peer::Problem;
        match problem {
            Problem::Untrusted { .. } | Problem::Readable { .. } | Problem::Links { .. } => Self::Untrusted,
            Problem::Damaged { .. } | Problem::NoAddress { .. } => Self::Usage,
            Problem::Name { .. } | Problem::Fingerprint { .. } | Problem::Address { .. } => Self::Usage,
            Problem::Own { .. } => Self::Usage,
            Problem::NameTaken { .. } | Problem::FingerprintTaken { .. } => Self::PidTaken,
            Problem::NoSuchPeer { .. } => Self::NotThere,
            Problem::Unknown { .. } | Problem::Wrong { .. } | Problem::NotLetIn { .. } => Self::Unknown,
            Problem::Handshake { .. } | Problem::Late { .. } => Self::Unknown,
            Problem::Nothing { .. } | Problem::Refused { .. } => Self::Policy,
            _ => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_table() {
        let readme = include_str!("../../README.md");
        for line in TABLE.lines().filter(|line| line.starts_with("  ")) {
            let (code, meaning) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
            let row = format!("| {} | {} |", code.trim(), meaning.trim().trim_start());
            assert!(readme.contains(&row), "README.md lacks `{row}`");
        }
    }
}
