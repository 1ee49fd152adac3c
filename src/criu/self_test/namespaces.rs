//! The process that makes the namespaces, and waits for PID 1 in them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};

use super::{HELPER_ARGUMENT, VerdictStep, say};

/// What a parent that died of a signal leaves its own parent to see.
const KILLED: u8 = 1;

pub(super) fn run(binary: &Path) -> ExitCode {
    match start(binary) {
        Ok(code) => code,
        Err(error) => {
            let failure = Some(format!("cannot make namespaces: {error}"));
            say(&VerdictStep { name: "namespaces".into(), took_ms: 0, failure });
            ExitCode::FAILURE
        }
    }
}

fn start(binary: &Path) -> io::Result<ExitCode> {
    close_others_at_exec();
    let new = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(new)?;
    // The new PID namespace is for children only: this process is not in it.
    let status = Command::new(own_path()?).arg(HELPER_ARGUMENT).arg("trial").arg(binary).status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(KILLED)))
}

/// This program, by its path. Through `/proc/self/exe` it would be run from a mount of the mount namespace that was left, which
/// CRIU cannot dump.
pub(super) fn own_path() -> io::Result<PathBuf> {
    std::fs::read_link("/proc/self/exe")
}

/// A descriptor that came from crr's caller would come into the specimen, and CRIU would fail to dump it.
fn close_others_at_exec() {
    // SAFETY: a plain system call on integers; it closes nothing now. Where it fails (Linux < 5.11) descriptors stay open, and
    // the dump may fail for it.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}
