//! The first process of a copy's PID namespace.
//!
//! It is a fork of the process that restores, not a program of its own, and does nothing but system calls. It holds three things
//! together:
//!
//! - **Descriptors.** CRIU opens those that a request names as files of the process at the other end of its socket, and from
//!   within the namespace sees no process but those in there.
//! - **The end of a restore that nobody finishes.** A pipe leads to whoever restores. Until the word came that the tree runs, its
//!   end is init's end too, and the kernel kills all that is in the namespace with it: whoever is killed leaves nothing.
//! - **Orphans.** It reaps who has lost its parent, and ends when nobody is left. With its last process every namespace of the
//!   copy goes, and with them mounts, overlays, connections and message queues.

use std::ffi::CString;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, pipe2, read, setsid, write};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::error::{Error, Result};

/// The words on the pipe.
const TAKEN: u8 = b't';
const MOUNTED: u8 = b'm';
const RUNS: u8 = b'r';

/// The word that comes back.
const OPENED: u8 = b'o';

/// What init says first: how far it came, an errno, and the descriptors of the socket pair.
const REPORT: usize = 4 * 4;

/// How often init looks for the end of processes that are not its children: only a tree whose restorer was killed has such.
const LOOK_MS: u16 = 50;

/// What init does before anything else.
#[derive(Debug)]
pub(super) struct Task {
    /// Where it mounts proc.
    pub(super) proc: CString,
    /// The file there that says which number was given last, and what is written to it.
    pub(super) last_pid: (CString, String),
    /// What it keeps open, each under its number.
    pub(super) held: Vec<RawFd>,
    /// The directory that it opens when the mounts are there, and which of those numbers that gets.
    pub(super) work: (CString, RawFd),
}

/// What init was doing when it failed.
const STEPS: [&str; 5] =
    ["begin", "mount the proc of a new PID namespace", "set where its numbers begin", "make a socket pair", "go on"];

/// An init, as the process that made it holds it. Until [`Init::release`] dropping it ends it, and all in its namespaces.
#[derive(Debug)]
pub(super) struct Init {
    pid: Pid,
    process: OwnedFd,
    pipe: OwnedFd,
    /// What it says.
    told: std::fs::File,
    is_released: bool,
}

impl Init {
    /// Forks it. The calling thread has unshared its PID namespace, and is in the other namespaces that init is to be in.
    /// Gives the socket pair too.
    pub(super) fn start(task: &Task) -> Result<(Self, (OwnedFd, OwnedFd))> {
        let failed = |attempt: &'static str| move |errno: Errno| Error::system(attempt, errno);
        let (theirs, pipe) = pipe2(OFlag::O_CLOEXEC).map_err(failed("make a pipe"))?;
        let (told, tell) = pipe2(OFlag::O_CLOEXEC).map_err(failed("make a pipe"))?;
        let mut keep = task.held.clone();
        keep.extend([theirs.as_raw_fd(), tell.as_raw_fd()]);
        keep.sort_unstable();
        // SAFETY: the child makes system calls only, with memory that was allocated before: it takes no lock that another
        // thread may have held at the fork, and never returns from `live`.
        let pid = match unsafe { fork() }.map_err(failed("start the first process of a PID namespace"))? {
            ForkResult::Child => live(task, &keep, theirs, tell),
            ForkResult::Parent { child } => child,
        };
        drop((theirs, tell));
        let process = rustix::process::Pid::from_raw(pid.as_raw())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|errno| Error::system("watch the first process of a PID namespace", errno))?;
        let init = Self { pid, process, pipe, told: told.into(), is_released: false };
        let mut report = [0; REPORT];
        (&init.told)
            .read_exact(&mut report)
            .map_err(|source| Error::system("hear of the first process of a PID namespace", source))?;
        let word = |at: usize| i32::from_ne_bytes([report[at], report[at + 1], report[at + 2], report[at + 3]]);
        if let (1.., step) = (word(4), word(0)) {
            let attempt = usize::try_from(step).ok().and_then(|step| STEPS.get(step)).unwrap_or(&STEPS[0]);
            return Err(Error::system(*attempt, Errno::from_raw(word(4))));
        }
        let take = |number| {
            pidfd_getfd(&init.process, number, PidfdGetfdFlags::empty())
                .map_err(|errno| Error::system("take a descriptor of the first process of a PID namespace", errno))
        };
        let pair = (take(word(8))?, take(word(12))?);
        init.say(TAKEN)?;
        Ok((init, pair))
    }

    /// Its PID, as this process sees it.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// It, by a pidfd.
    pub(super) fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// The mounts are there: it opens CRIU's working directory. Waits until it has: CRIU must not find what keeps its number.
    pub(super) fn mounted(&self) -> Result<()> {
        self.say(MOUNTED)?;
        let mut word = [0];
        (&self.told)
            .read_exact(&mut word)
            .map_err(|source| Error::system("have CRIU's working directory opened in a copy's namespaces", source))
    }

    /// The tree runs: from here on init ends with it.
    pub(super) fn release(&mut self) -> Result<()> {
        self.say(RUNS)?;
        self.is_released = true;
        Ok(())
    }

    /// Ends it, and all in its namespaces, whether or not the tree runs.
    pub(super) fn kill(&self) {
        // Fails only for one that has ended.
        let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
    }

    fn say(&self, word: u8) -> Result<()> {
        write(&self.pipe, &[word])
            .map(drop)
            .map_err(|errno| Error::system("talk to the first process of a PID namespace", errno))
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.is_released {
            // Another child of ours may get its number once it is reaped, so a thread waits for it, as long as it takes.
            let pid = self.pid;
            let wait = move || while waitpid(pid, None) == Err(Errno::EINTR) {};
            let _ = std::thread::Builder::new().name("crr-reaper".into()).stack_size(64 << 10).spawn(wait);
        } else {
            self.kill();
            while waitpid(self.pid, None) == Err(Errno::EINTR) {}
        }
    }
}

/// Init's life, in the child. `keep` is sorted.
fn live(task: &Task, keep: &[RawFd], pipe: OwnedFd, tell: OwnedFd) -> ! {
    close_all_but(keep);
    let pair = match prepare(task) {
        Ok(pair) => {
            report(&tell, 0, 0, [pair.0.as_raw_fd(), pair.1.as_raw_fd()]);
            pair
        }
        Err((step, errno)) => {
            report(&tell, step, errno as i32, [-1; 2]);
            end(1)
        }
    };
    if next_word(&pipe) != Some(TAKEN) {
        end(1);
    }
    // CRIU must see the end of the socket when whoever restores is gone.
    drop(pair);
    if next_word(&pipe) != Some(MOUNTED) || open_work(task).is_err() || write(&tell, &[OPENED]) != Ok(1) {
        end(1);
    }
    drop(tell);
    if next_word(&pipe) != Some(RUNS) {
        end(1);
    }
    reap(pipe)
}

/// What comes first. On failure the number of the step, and why.
fn prepare(task: &Task) -> std::result::Result<(OwnedFd, OwnedFd), (i32, Errno)> {
    let at = |step| move |errno| (step, errno);
    SigSet::all().thread_block().map_err(at(0))?;
    // No terminal's end is its end, and none of its directories is in use.
    setsid().and_then(|_| chdir(c"/")).map_err(at(0))?;
    let _ = nix::sys::prctl::set_name(c"crr-init");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(c"proc"), task.proc.as_c_str(), Some(c"proc"), flags, None::<&std::ffi::CStr>).map_err(at(1))?;
    let (file, number) = &task.last_pid;
    open(file.as_c_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .and_then(|file| write(file, number.as_bytes()))
        .map_err(at(2))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).map_err(at(3))
}

/// Opens CRIU's working directory in the place of what kept its number.
fn open_work(task: &Task) -> nix::Result<()> {
    let (path, number) = &task.work;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = open(path.as_c_str(), flags, Mode::empty())?;
    // SAFETY: a system call on numbers, of which the second belongs to nothing in this child but the placeholder that it keeps.
    Errno::result(unsafe { libc::dup3(opened.as_raw_fd(), *number, libc::O_CLOEXEC) }).map(drop)
}

fn report(tell: &OwnedFd, step: i32, errno: i32, pair: [i32; 2]) {
    let mut bytes = [0; REPORT];
    for (place, number) in bytes.chunks_exact_mut(4).zip([step, errno, pair[0], pair[1]]) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    // Nobody listens any more: the end of the pipe is seen next.
    let _ = write(tell, &bytes);
}

/// The next word of whoever restores; `None` when it is gone.
fn next_word(pipe: &OwnedFd) -> Option<u8> {
    let mut word = [0];
    loop {
        match read(pipe, &mut word) {
            Ok(1) => return Some(word[0]),
            Err(Errno::EINTR) => {}
            _ => return None,
        }
    }
}

/// Reaps children until no process is left in the namespace.
fn reap(pipe: OwnedFd) -> ! {
    // What was held for CRIU is of no more use.
    close_all_but(&[pipe.as_raw_fd()]);
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    let Ok(children) = SignalFd::with_flags(&child, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC) else { end(1) };
    let mut restorer = Some(pipe);
    loop {
        while matches!(children.read_signal(), Ok(Some(_))) {}
        let is_parent = reap_children();
        // While whoever restores is there, the root may be its child, and CRIU may not have ended.
        if restorer.is_none() && !is_parent && kill(Pid::from_raw(-1), None) == Err(Errno::ESRCH) {
            end(0);
        }
        let limit = if is_parent || restorer.is_some() { PollTimeout::NONE } else { PollTimeout::from(LOOK_MS) };
        let of_children = PollFd::new(children.as_fd(), PollFlags::POLLIN);
        let gone = match &restorer {
            Some(pipe) => {
                let mut both = [of_children, PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut both, limit);
                // It says nothing more: only its end can be read.
                both[1].any().unwrap_or(false)
            }
            None => {
                let _ = poll(&mut [of_children], limit);
                false
            }
        };
        if gone {
            restorer = None;
        }
    }
}

/// Reaps those that have ended; whether there are children left.
fn reap_children() -> bool {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => return true,
            // The last of them is how an end by a real-time signal is told.
            Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => {}
            Err(_) => return false,
        }
    }
}

fn close_all_but(keep: &[RawFd]) {
    let mut from = 0;
    for fd in keep {
        if *fd > from {
            close_range(from, fd - 1);
        }
        from = fd + 1;
    }
    close_range(from, RawFd::MAX);
}

fn close_range(from: RawFd, to: RawFd) {
    // SAFETY: a system call on numbers. It closes descriptors of this child that nothing in it uses any more: their owners
    // are on the stack of `start`, which is never returned to.
    unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
}

/// Ends init, and with it whatever is in its namespace.
fn end(code: i32) -> ! {
    // SAFETY: ends the process at once; nothing of the parent's that would be run at an exit is.
    unsafe { libc::_exit(code) }
}
