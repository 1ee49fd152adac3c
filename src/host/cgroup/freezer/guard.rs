//! A process with no other duty than to put a cgroup back as it was when crr is gone.
//!
//! ```text
//! crr    ── post ──> guard: a session of its own, out of crr's cgroups, one socket and CRIU's pidfd open
//!        <── ready ──
//!    freezes the cgroup, has CRIU work, puts it back
//!        CRIU is gone: puts the cgroup back
//!        ── dismissed ──> ends
//!        ── end of file: crr is gone ──> puts the cgroup back, again and again until CRIU is gone as well, and ends
//! ```
//!
//! CRIU has to be waited for: one that finds a cgroup frozen already freezes it again when it lets the tree go. A [`Guard`]
//! that is dropped closes the socket, so that the guard does what is to be done.
//!
//! | killed | left |
//! |---|---|
//! | crr before the guard is ready | nothing is frozen yet; the guard finds the end of the socket, and ends |
//! | crr, its process group, its session, its cgroup | the guard, which puts the cgroup back and ends |
//! | CRIU | the guard, which puts the cgroup back, and crr, which does so as well |
//! | CRIU and crr | as crr |
//! | the guard | crr; nobody, if crr is killed as well |

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::{Freezer, Setting};
use crate::error::{Error, Result};
use crate::host::cgroup::Layout;

/// Leaving crr's cgroups takes some 10 ms, on a busy machine ten times that.
const READY: Duration = Duration::from_secs(10);

/// A guard that was dismissed ends at once.
const END: Duration = Duration::from_secs(1);

/// How often the guard of a crr that is gone looks whether CRIU is gone, in milliseconds.
const LOOK_MS: libc::c_int = 10;

/// What crr says at the end of a guard's duty.
const DISMISSED: u8 = 1;

/// The hierarchies by which the processes of a service or session are found to be killed or frozen all at once.
const HIERARCHIES: [&str; 3] = ["", "name=systemd", "freezer"];

/// Stands by a cgroup that crr freezes.
///
/// # Cancellation
/// Dropping it puts the cgroup back as it was when the guard was posted, within milliseconds, and not before CRIU has ended
/// where it was frozen then.
#[derive(Debug)]
pub struct Guard {
    freezer: Freezer,
    before: Setting,
    line: OwnedFd,
}

impl Guard {
    /// Posts a guard, and returns before it is ready; nothing is frozen yet. `criu` is a CRIU that works on the tree in the
    /// cgroup, if one does: it may freeze the cgroup, too.
    ///
    /// # Errors
    /// [`Error::Io`] if the cgroup is gone, [`Error::System`] if no process can be made.
    pub fn post(freezer: Freezer, criu: Option<i32>) -> Result<Self> {
        let before = freezer.setting()?;
        let criu = criu.and_then(rustix::process::Pid::from_raw).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let criu = criu.transpose().map_err(|errno| Error::system("watch CRIU", errno))?;
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
        let (line, theirs) = pair.map_err(|errno| Error::system("make a socket pair", errno))?;
        let path = |path: std::path::PathBuf| CString::new(path.as_os_str().as_bytes()).ok();
        let layout = Layout::read()?;
        let roots = HIERARCHIES.iter().filter_map(|name| layout.hierarchy(name));
        let duty = Duty {
            line: theirs.as_raw_fd(),
            criu: criu.as_ref().map(AsRawFd::as_raw_fd),
            roots: roots.filter_map(|hierarchy| path(hierarchy.mount.join("cgroup.procs"))).collect(),
            control: path(freezer.control()).ok_or(Error::Bug { what: "a cgroup with a zero byte in its path" })?,
            word: freezer.word(before),
            before,
        };
        // SAFETY: the child makes system calls only, on memory that was prepared here: it neither allocates nor takes a lock,
        // which another thread may hold at this moment, and it never returns.
        match unsafe { fork() }.map_err(|errno| Error::system("make a process", errno))? {
            ForkResult::Child => duty.run(),
            // The guard is that child's child, so that whoever reaps orphans reaps it.
            ForkResult::Parent { child } => while waitpid(child, None) == Err(Errno::EINTR) {},
        }
        Ok(Self { freezer, before, line })
    }

    /// The cgroup.
    pub fn freezer(&self) -> &Freezer {
        &self.freezer
    }

    /// What the cgroup had been told to be when the guard was posted.
    pub fn before(&self) -> Setting {
        self.before
    }

    /// Freezes the cgroup and waits until all its tasks stand still: for 0.4 to 1.3 ms, where they can. Blocks.
    ///
    /// # Errors
    /// [`Error::System`] if the guard has not come to be ready, [`Error::NotFrozen`] after `limit`, [`Error::Io`] if the cgroup
    /// is gone. It is as it was before then.
    pub fn freeze(&self, limit: Duration) -> Result<()> {
        self.await_ready().map_err(|source| Error::system("wait for the guard of a cgroup", source))?;
        self.freezer.freeze(limit).inspect_err(|_| drop(self.put_back()))
    }

    fn await_ready(&self) -> io::Result<()> {
        let limit = Timespec::try_from(READY).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&self.line, PollFlags::IN)], Some(&limit))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // It is not taken, so that a second freeze finds it as well.
        match recv(self.line.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Puts the cgroup back as it was when the guard was posted.
    ///
    /// # Errors
    /// [`Error::Io`] if it is gone.
    pub fn put_back(&self) -> Result<()> {
        self.freezer.set(self.before)
    }

    /// Ends the guard, who then does nothing any more: the cgroup stays as it is.
    pub fn dismiss(self) {
        // A guard that was killed cannot be told, nor waited for.
        let _ = send(self.line.as_raw_fd(), &[DISMISSED], MsgFlags::MSG_NOSIGNAL);
        if let Ok(limit) = Timespec::try_from(END) {
            let _ = poll(&mut [PollFd::new(&self.line, PollFlags::RDHUP)], Some(&limit));
        }
    }
}

/// All that the guard's process knows.
struct Duty {
    line: RawFd,
    criu: Option<RawFd>,
    roots: Vec<CString>,
    control: CString,
    word: &'static str,
    before: Setting,
}

impl Duty {
    /// The guard's whole life. Runs between fork and exit in a process that had many threads: system calls only.
    fn run(&self) -> ! {
        // SAFETY: plain system calls on integers and on memory that was made before the fork.
        unsafe {
            let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
            libc::setsid();
            // The first child ends, and the guard is nobody's child.
            match libc::fork() {
                0 => {}
                _ => libc::_exit(0),
            }
            libc::prctl(libc::PR_SET_NAME, c"crr-guard".as_ptr());
            // Where the cgroup may be unmounted is no place to be.
            libc::chdir(c"/".as_ptr());
            // Somebody may wait for the end of what crr has open: of another guard's line, of CRIU's socket.
            if !close_all_but(self.line, self.criu) {
                libc::_exit(1);
            }
            // The root of a hierarchy is nobody's service. Where it may not be entered the guard stays.
            for root in &self.roots {
                write_once(root, b"0");
            }
            let ready = 1_u8;
            libc::write(self.line, (&raw const ready).cast(), 1);
        }
        match self.await_word() {
            // SAFETY: a plain system call.
            Some(DISMISSED) => unsafe { libc::_exit(0) },
            _ => self.take_over(),
        }
    }

    /// Waits until crr says something or is gone. If CRIU is gone before that, the cgroup is put back at once.
    fn await_word(&self) -> Option<u8> {
        let watched = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // The kernel leaves a descriptor of -1 out.
        let mut both = [watched(self.line), watched(self.criu.unwrap_or(-1))];
        loop {
            // SAFETY: a system call on an array with its length.
            unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
            if both[0].revents != 0 {
                let mut word = 0_u8;
                // SAFETY: a system call on one byte of this function's.
                return (unsafe { libc::read(self.line, (&raw mut word).cast(), 1) } == 1).then_some(word);
            }
            if both[1].revents != 0 {
                write_once(&self.control, self.word.as_bytes());
                both[1].fd = -1;
                both[1].revents = 0;
            }
        }
    }

    /// crr is gone.
    fn take_over(&self) -> ! {
        loop {
            let is_over = self.criu.is_none_or(has_ended);
            // What was frozen before is frozen again when CRIU needs it no more; what was not runs at once.
            if is_over || self.before == Setting::Thawed {
                write_once(&self.control, self.word.as_bytes());
            }
            if is_over {
                // SAFETY: a plain system call.
                unsafe { libc::_exit(0) };
            }
        }
    }
}

/// Waits a moment for the end of a process.
fn has_ended(pidfd: RawFd) -> bool {
    let mut watched = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
    // SAFETY: a system call on one `pollfd` of this function's.
    unsafe { libc::poll(&raw mut watched, 1, LOOK_MS) == 1 }
}

/// Writes to a file of a cgroup. What is gone needs nothing.
fn write_once(path: &CStr, word: &[u8]) {
    // SAFETY: system calls on a string that ends in a zero byte and on a slice with its length.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, word.as_ptr().cast(), word.len());
            libc::close(file);
        }
    }
}

/// Closes all descriptors but these.
fn close_all_but(one: RawFd, other: Option<RawFd>) -> bool {
    let other = other.unwrap_or(one);
    let (low, high) = (one.min(other), one.max(other));
    let gaps = [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)];
    gaps.into_iter().filter(|(first, last)| first <= last).all(|(first, last)| {
        // SAFETY: a plain system call on integers; nothing in this process uses what is closed.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
    })
}
