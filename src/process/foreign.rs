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
    fn a_process_that_is_not_there_is_an_error() {
        assert_eq!(open_process(i32::MAX).expect_err("no such process").raw_os_error(), Some(libc::ESRCH));
    }
}
