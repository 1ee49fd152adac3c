//! The mount and network namespace that the tests run in.

use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Outcome;

static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();

/// Moves this program into a mount and a network namespace of its own, with the loopback device up. Must run before the first
/// thread is made.
pub(crate) fn enter() {
    let outcome = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("no namespaces of its own: {errno}"))
        .and_then(|()| {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .map_err(|errno| format!("mounts cannot be made private: {errno}"))
        })
        .and_then(|()| match Command::new("ip").args(["link", "set", "lo", "up"]).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("`ip link set lo up`: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("no `ip`: {error}")),
        });
    // Set once, by main().
    let _ = WHY_NOT.set(outcome.err());
}

/// Why the tests do not run in namespaces of their own, if they do not.
pub(crate) fn why_not() -> Option<String> {
    WHY_NOT.get().cloned().unwrap_or_else(|| Some("the namespaces were not entered".into()))
}

/// Runs a test in a mount namespace of its own, in a thread: what other tests mount is not seen there. /proc/self is still the
/// whole program's; /proc/thread-self is of the namespace.
pub(crate) fn alone(test: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        test()
    });
    thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
}
