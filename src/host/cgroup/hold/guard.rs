//! A process with no other duty than to kill a restored tree that nobody may let run any more.
//!
//! Between the answer to `post-restore` and the freeze at `pre-resume` the end of CRIU lets the tree run, and so would the end of
//! crr, as CRIU takes the end of its socket for an answer.
//!
//! ```text
//! crr, at post-restore ── gathers the tree, posts ──> guard: a session of its own, out of crr's cgroups
//!        <── ready ──
//!    answers post-restore; at pre-resume freezes the tree
//!        ── dismissed ──> ends                                   (before PREPARED is written down)
//!        ── end of file: crr is gone ──> kills the tree, and ends
//!        CRIU is gone ──> kills the tree, and goes on waiting
//! ```
//!
//! The guard has crr's end of the socket to CRIU open as well: while it lives CRIU waits on. So nothing runs when crr is killed;
//! when CRIU is, the copy runs until the guard has heard of it. What is killed is every process in the cgroup, those that the
//! copy has made meanwhile included.
//!
//! | killed | left |
//! |---|---|
//! | crr, its process group, its session, its cgroup | nothing that runs: the guard kills the tree |
//! | CRIU | the same |
//! | the guard | crr, which sees to it, and CRIU; nobody, if crr is killed as well |

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::{Hold, directories};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::host::cgroup::Layout;
use crate::host::cgroup::freezer::{Freezer, Setting};

/// Leaving crr's cgroups takes some 10 ms, on a busy machine ten times that.
const READY: Duration = Duration::from_secs(10);

/// A guard that was dismissed ends at once.
const END: Duration = Duration::from_secs(1);

/// What crr says at the end of a guard's duty.
const DISMISSED: u8 = 1;

/// How often a guard that kills looks whether all are gone, in milliseconds, and how often at most: CRIU, as their parent, or
/// whoever reaps orphans, may need a while.
const LOOK_MS: libc::c_int = 1;
const LOOKS_LIMIT: u32 = 30_000;

/// The hierarchies by which the processes of a service or session are found to be killed or frozen all at once.
const HIERARCHIES: [&str; 3] = ["", "name=systemd", "freezer"];

/// So much of a list of processes is read at a time: those of some 4,000.
const LIST: usize = 32 << 10;

/// Stands by a restored tree.
///
/// # Cancellation
/// Dropping it kills the tree, and not before the guard is ready where it was posted just now.
#[derive(Debug)]
pub struct KillGuard {
    line: OwnedFd,
}

impl KillGuard {
    /// Posts a guard at CRIU's `post-restore`, for a tree that was gathered ([`Hold::gather`]), and waits until it is ready. Blocks.
    ///
    /// # Errors
    /// [`Error::System`] if no process can be made, or it has not come to be ready.
    pub fn post(hold: &Hold, event: &Event<'_>) -> Result<Self> {
        let criu = rustix::process::Pid::from_raw(event.criu_pid());
        let criu = criu.ok_or(Error::Bug { what: "a CRIU without a PID" })?;
        let criu = pidfd_open(criu, PidfdFlags::empty()).map_err(|errno| Error::system("watch CRIU", errno))?;
        let to_criu = event.line().ok_or(Error::Closed { attempt: "restore" })?;
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
        let (line, theirs) = pair.map_err(|errno| Error::system("make a socket pair", errno))?;
        let text = |path: PathBuf| CString::new(path.as_os_str().as_bytes()).ok();
        let layout = Layout::read()?;
        let roots = HIERARCHIES.iter().filter_map(|name| layout.hierarchy(name));
        let freezer = Freezer::of(hold.directory())?;
        let no_path = Error::Bug { what: "a cgroup with a zero byte in its path" };
        let mut kept = [theirs.as_raw_fd(), criu.as_raw_fd(), to_criu.as_raw_fd()];
        kept.sort_unstable();
        let duty = Duty {
            line: theirs.as_raw_fd(),
            criu: criu.as_raw_fd(),
            kept,
            roots: roots.filter_map(|hierarchy| text(hierarchy.mount.join("cgroup.procs"))).collect(),
            lists: directories(hold.directory())
                .into_iter()
                .filter_map(|place| text(place.join("cgroup.procs")))
                .collect(),
            control: text(freezer.control()).ok_or(no_path)?,
            thawed: freezer.word(Setting::Thawed),
        };
        // SAFETY: the child makes system calls only, on memory that was prepared here: it neither allocates nor takes a lock,
        // which another thread may hold at this moment, and it never returns.
        match unsafe { fork() }.map_err(|errno| Error::system("make a process", errno))? {
            ForkResult::Child => duty.run(),
            // The guard is that child's child, so that whoever reaps orphans reaps it.
            ForkResult::Parent { child } => while waitpid(child, None) == Err(Errno::EINTR) {},
        }
        drop(theirs);
        let guard = Self { line };
        guard.await_ready().map_err(|source| Error::system("wait for the guard of a restored tree", source))?;
        Ok(guard)
    }

    fn await_ready(&self) -> io::Result<()> {
        let limit = Timespec::try_from(READY).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&self.line, PollFlags::IN)], Some(&limit))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match recv(self.line.as_raw_fd(), &mut [0], MsgFlags::empty())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Ends the guard, who does nothing any more: the tree is frozen. Whether the guard was there until now; one that was not has
    /// been killed, or has killed the tree.
    pub fn dismiss(self) -> bool {
        if send(self.line.as_raw_fd(), &[DISMISSED], MsgFlags::MSG_NOSIGNAL).is_err() {
            return false;
        }
        let Ok(limit) = Timespec::try_from(END) else { return false };
        // Its end closes the line; what it has said before is that it knows.
        let heard = poll(&mut [PollFd::new(&self.line, PollFlags::IN)], Some(&limit));
        heard == Ok(1) && matches!(recv(self.line.as_raw_fd(), &mut [0], MsgFlags::empty()), Ok(1))
    }
}

/// All that the guard's process knows.
struct Duty {
    line: RawFd,
    criu: RawFd,
    /// These two and the socket to CRIU, in order.
    kept: [RawFd; 3],
    roots: Vec<CString>,
    /// Where the tree's processes are listed.
    lists: Vec<CString>,
    control: CString,
    thawed: &'static str,
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
            libc::chdir(c"/".as_ptr());
            if !close_all_but(self.kept) {
                libc::_exit(1);
            }
            // The root of a hierarchy is nobody's service. Where it may not be entered the guard stays.
            for root in &self.roots {
                write_once(root, b"0");
            }
            self.say();
        }
        if self.await_word() == Some(DISMISSED) {
            self.say();
        } else {
            self.kill();
        }
        // SAFETY: a plain system call.
        unsafe { libc::_exit(0) }
    }

    fn say(&self) {
        let word = 1_u8;
        // SAFETY: a system call on one byte of this function's.
        unsafe { libc::send(self.line, (&raw const word).cast(), 1, libc::MSG_NOSIGNAL) };
    }

    /// Waits until crr says something or is gone. If CRIU is gone before that, the tree is killed at once; a crr that dismisses
    /// its guard then hears nothing from it.
    fn await_word(&self) -> Option<u8> {
        let watched = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut both = [watched(self.line), watched(self.criu)];
        loop {
            // SAFETY: a system call on an array with its length.
            unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
            if both[1].revents != 0 {
                self.kill();
                return None;
            }
            if both[0].revents != 0 {
                let mut word = 0_u8;
                // SAFETY: a system call on one byte of this function's.
                return (unsafe { libc::read(self.line, (&raw mut word).cast(), 1) } == 1).then_some(word);
            }
        }
    }

    /// Kills all processes in the cgroup, until there is none.
    fn kill(&self) {
        let mut list = [0_u8; LIST];
        for _ in 0..LOOKS_LIMIT {
            let mut found = 0;
            for path in &self.lists {
                found += kill_all(path, &mut list);
            }
            if found == 0 {
                return;
            }
            // Version 1 lets no frozen task die.
            write_once(&self.control, self.thawed.as_bytes());
            // SAFETY: a system call without memory.
            unsafe { libc::poll(std::ptr::null_mut(), 0, LOOK_MS) };
        }
    }
}

/// Kills the processes in a list, or as many as are read of it, and gives their number.
fn kill_all(path: &CStr, list: &mut [u8]) -> usize {
    // SAFETY: system calls on a string that ends in a zero byte, and on a slice with its length.
    let length = unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return 0;
        }
        let length = libc::read(file, list.as_mut_ptr().cast(), list.len());
        libc::close(file);
        usize::try_from(length).unwrap_or(0)
    };
    let (mut found, mut pid) = (0, 0_i32);
    // A number that is cut off at the end of the buffer has no end of line.
    for byte in list.iter().take(length) {
        match byte {
            b'0'..=b'9' => pid = pid.saturating_mul(10).saturating_add(i32::from(byte - b'0')),
            _ => {
                // 0 would be the guard's own group, 1 is nobody's to kill.
                if pid > 1 {
                    // SAFETY: a plain system call.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                    found += 1;
                }
                pid = 0;
            }
        }
    }
    found
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

/// Closes all descriptors but these, which are in order.
fn close_all_but([low, middle, high]: [RawFd; 3]) -> bool {
    let gaps = [(0, low - 1), (low + 1, middle - 1), (middle + 1, high - 1), (high + 1, RawFd::MAX)];
    gaps.into_iter().filter(|(first, last)| first <= last).all(|(first, last)| {
        // SAFETY: a plain system call on integers; nothing in this process uses what is closed.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_of_a_list_are_killed() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cgroup.procs");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut list = [0; 64];
        for (text, count) in [(format!("0\n1\n{}", child.id()), 0), (format!("0\n{}\n", child.id()), 1)] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(kill_all(&name, &mut list), count, "{text}");
        }
        child.wait().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(kill_all(&name, &mut list), 0);
    }
}
