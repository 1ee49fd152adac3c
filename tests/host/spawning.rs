//! What a child does between fork and exec: the one file of these tests with unsafe code.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The command gets a session of its own, default signal dispositions, and no descriptor above 2.
pub(crate) fn own_session(command: &mut Command) {
    prepare(command, false);
}

/// As [`own_session`], and its standard input, a terminal, becomes the session's controlling terminal.
pub(crate) fn own_terminal(command: &mut Command) {
    prepare(command, true);
}

fn prepare(command: &mut Command, has_terminal: bool) {
    let prepare = move || {
        nix::unistd::setsid()?;
        // SAFETY: all are system calls on numbers; the terminal is the child's own standard input.
        unsafe {
            // Whoever started the tests in the background of a shell has them ignore SIGINT, and all their children.
            for signal in 1..libc::SIGSYS {
                libc::signal(signal, libc::SIG_DFL);
            }
            if has_terminal && libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Not closed but marked: the standard library's own pipe for a failed exec is among them.
            if libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, which allocate nothing and take no lock.
    unsafe { command.pre_exec(prepare) };
}

/// The command enters the cgroups that these `cgroup.procs` belong to before it is executed; those that are gone it does not.
pub(crate) fn in_cgroups(command: &mut Command, entries: Vec<CString>) {
    let enter = move || {
        for entry in &entries {
            // SAFETY: system calls on a string that ends in a zero byte, and on one byte; `0` stands for the caller.
            unsafe {
                let file = libc::open(entry.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if file >= 0 {
                    libc::write(file, c"0".as_ptr().cast(), 1);
                    libc::close(file);
                }
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; the strings were made before.
    unsafe { command.pre_exec(enter) };
}

/// The command is killed when the thread that starts it ends.
pub(crate) fn ends_with_its_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // It may have ended before.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only system calls are made, which allocate nothing and take no lock.
    unsafe { command.pre_exec(prepare) };
}
