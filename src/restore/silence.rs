//! Ending restored TCP sockets without a word to their peers.
//!
//! A restore that is given up after CRIU has unlocked the network must not close its connections: the peers would take that
//! for the program's end, and the checkpoint could never be restored with them. A socket in repair mode sends nothing when it
//! is closed.

use std::fs;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Puts every TCP socket of `pid` but those that listen into repair mode. What cannot be had is passed over: the task is
/// about to be killed in any case.
pub(super) fn silence(pid: i32) {
    let Some(process) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
    };
    for entry in entries.filter(is_socket) {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            // Fails for what is no TCP socket, and for one that listens.
            let _ = setsockopt(&socket, sockopt::TcpRepair, &1);
        }
    }
}
