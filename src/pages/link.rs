//! The link to the other end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::sockopt::set_tcp_nodelay;

use crate::error::{Error, Result};

/// A stream of bytes in both directions, none of whose operations waits: [`io::ErrorKind::WouldBlock`] says that the
/// descriptors are to be waited for.
pub trait Link: Send {
    /// What is readable when there may be something to read.
    fn input(&self) -> BorrowedFd<'_>;

    /// What is writable when [`Link::write`] may be tried again.
    fn output(&self) -> BorrowedFd<'_>;

    /// Reads; 0 is the end of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as is taken at once.
    ///
    /// # Errors
    /// Those of the stream.
    fn write(&mut self, from: &[u8]) -> io::Result<usize>;

    /// Passes on what was taken and is still here.
    ///
    /// # Errors
    /// Those of the stream.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether the descriptors carry the bytes as they are, so that pages can go from one to another without being copied
    /// ([`splice(2)`]).
    ///
    /// [`splice(2)`]: https://man7.org/linux/man-pages/man2/splice.2.html
    fn is_plain(&self) -> bool;
}

/// A link of one socket or two pipes, whose bytes nobody changes.
#[derive(Debug)]
pub struct Plain {
    input: OwnedFd,
    /// `None`: the same socket.
    output: Option<OwnedFd>,
    /// The flags that the descriptors had.
    flags: [Option<OFlags>; 2],
}

impl Plain {
    /// A connected stream socket: unix or TCP.
    ///
    /// # Errors
    /// [`Error::System`] when it cannot be made not to block.
    pub fn socket(socket: impl Into<OwnedFd>) -> Result<Self> {
        let input = socket.into();
        hasten(&input);
        let flags = [Some(unblock(&input)?), None];
        Ok(Self { input, output: None, flags })
    }

    /// Two pipes (or sockets), such as those of a child process or of standard input and output.
    ///
    /// # Errors
    /// As of [`Plain::socket`].
    pub fn pipes(input: impl Into<OwnedFd>, output: impl Into<OwnedFd>) -> Result<Self> {
        let (input, output) = (input.into(), output.into());
        let flags = [Some(unblock(&input)?), Some(unblock(&output)?)];
        Ok(Self { input, output: Some(output), flags })
    }

    /// The socket, or input and output, blocking if they were.
    pub fn into_descriptors(self) -> (OwnedFd, Option<OwnedFd>) {
        let Self { input, output, flags } = self;
        for (descriptor, flags) in [Some(&input), output.as_ref()].into_iter().zip(flags) {
            if let (Some(descriptor), Some(flags)) = (descriptor, flags) {
                // They were set before.
                let _ = fcntl_setfl(descriptor, flags);
            }
        }
        (input, output)
    }
}

/// The last bytes of a dump must not wait for an acknowledgement of those before.
pub(super) fn hasten(socket: &OwnedFd) {
    // Other sockets than TCP's do not know the option, and need it not.
    let _ = set_tcp_nodelay(socket, true);
}

pub(super) fn unblock(descriptor: &OwnedFd) -> Result<OFlags> {
    let flags = fcntl_getfl(descriptor);
    flags
        .and_then(|flags| fcntl_setfl(descriptor, flags | OFlags::NONBLOCK).map(|()| flags))
        .map_err(|errno| Error::system("make the link not block", errno))
}

impl Link for Plain {
    fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    fn output(&self) -> BorrowedFd<'_> {
        self.output.as_ref().unwrap_or(&self.input).as_fd()
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        rustix::io::read(&self.input, into).map_err(Into::into)
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        rustix::io::write(self.output(), from).map_err(Into::into)
    }

    fn is_plain(&self) -> bool {
        true
    }
}

impl Link for Box<dyn Link> {
    fn input(&self) -> BorrowedFd<'_> {
        (**self).input()
    }

    fn output(&self) -> BorrowedFd<'_> {
        (**self).output()
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (**self).read(into)
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        (**self).write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }

    fn is_plain(&self) -> bool {
        (**self).is_plain()
    }
}
