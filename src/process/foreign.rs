//! A descriptor of another process, duplicated into this one, and what `getsockopt` says of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A handle on process `pid`.
pub(super) fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd)
}

/// A duplicate of descriptor `fd` of `process`, with CLOEXEC set by the kernel.
pub(super) fn duplicate(process: impl AsFd, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes three integers and touches no memory; the borrow keeps the first one open.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_fd().as_raw_fd(), fd, 0) };
    owned(fd)
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The value of a socket option, and how many bytes of it the kernel wrote.
pub(super) fn socket_option<const SIZE: usize>(
    socket: impl AsFd,
    level: i32,
    name: i32,
) -> io::Result<([u8; SIZE], usize)> {
    let mut value = [0u8; SIZE];
    let mut length = SIZE as libc::socklen_t;
    // SAFETY: `value` is writable for the `length` bytes that the kernel is told of, and both live across the call.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok((value, (length as usize).min(SIZE))) } else { Err(io::Error::last_os_error()) }
}

/// The value of an option that is an `int`.
pub(super) fn integer_option(socket: impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    socket_option::<4>(socket, level, name).map(|(value, _)| i32::from_ne_bytes(value))
}

/// What two processes can have in common (kcmp(2)).
#[derive(Clone, Copy, Debug)]
pub(super) enum Common {
    /// The address space.
    Memory = 1,
    /// The descriptor table.
    Descriptors = 2,
    /// The working directory, root and umask.
    Directories = 3,
}

/// Whether processes `one` and `other` have the same `common` object of the kernel; `false` when one of them is gone.
pub(super) fn share(one: i32, other: i32, common: Common) -> bool {
    compare(one, other, common) == 0
}

/// Whether the two have different ones; `false` as well when one of them is gone.
pub(super) fn differ(one: i32, other: i32, common: Common) -> bool {
    compare(one, other, common) > 0
}

/// 0 for the same object, more for another, -1 for an error.
fn compare(one: i32, other: i32, common: Common) -> libc::c_long {
    // SAFETY: kcmp takes five integers and touches no memory.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, common as libc::c_int, 0, 0) }
}

/// The I/O priority of thread `tid`: class and level.
pub(super) fn io_priority(tid: i32) -> io::Result<u16> {
    const OF_THREAD: libc::c_int = 1;
    // SAFETY: ioprio_get takes two integers and touches no memory.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, OF_THREAD, tid) };
    u16::try_from(value).map_err(|_| io::Error::last_os_error())
}

/// `statx` of `path`, following links, those of /proc as well; of `path` itself when it is a link and `itself` is set.
pub(super) fn status(path: &std::ffi::CStr, itself: bool) -> io::Result<libc::statx> {
    let flags = if itself { libc::AT_SYMLINK_NOFOLLOW } else { 0 } | libc::AT_STATX_DONT_SYNC;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` is a string with its NUL, and `found` is writable for the structure that the kernel fills in.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
    if result == 0 {
        // SAFETY: statx is plain old data of which every bit pattern, zeroes included, is a value.
        Ok(unsafe { found.assume_init() })
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_this_process_can_be_duplicated_and_asked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let process = open_process(std::process::id() as i32).expect("a handle on this process");
        let twin = duplicate(&process, listener.as_raw_fd()).expect("a duplicate");
        assert_ne!(twin.as_raw_fd(), listener.as_raw_fd());
        assert_eq!(integer_option(&twin, libc::SOL_SOCKET, libc::SO_DOMAIN).expect("its family"), libc::AF_INET);
        assert_eq!(integer_option(&twin, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).expect("its state"), 1);
    }

    #[test]
    fn a_process_shares_its_memory_with_itself_and_not_with_its_parent() {
        let own = std::process::id() as i32;
        let parent = nix::unistd::getppid().as_raw();
        assert!(share(own, own, Common::Memory) && share(own, own, Common::Directories));
        assert!(!share(own, parent, Common::Memory));
        assert!(!share(own, i32::MAX, Common::Memory));
        assert!(differ(own, parent, Common::Descriptors) && !differ(own, own, Common::Descriptors));
        assert!(!differ(own, i32::MAX, Common::Descriptors));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert_eq!(open_process(i32::MAX).expect_err("no such process").raw_os_error(), Some(libc::ESRCH));
    }
}
