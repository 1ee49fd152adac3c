//! A pipe through which pages go from one descriptor to another without being copied.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::error::{Error, Result};

/// What an unprivileged pipe may hold, and what CRIU takes its own to hold at most at a time.
const LARGE: usize = 1 << 20;

/// An empty pipe, or one whose content is of no use any more and which is dropped.
#[derive(Debug)]
pub(super) struct Pipe {
    input: OwnedFd,
    output: OwnedFd,
    held: usize,
    size: usize,
}

impl Pipe {
    pub(super) fn new() -> Result<Self> {
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| Error::system("make a pipe for pages", errno))?;
        // Where the limit is lower, it is only slower.
        let size = fcntl_setpipe_size(&input, LARGE).unwrap_or(1 << 16);
        Ok(Self { input, output, held: 0, size })
    }

    /// How many bytes are in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `limit` bytes from a descriptor; 0 is its end.
    fn take(&mut self, from: impl AsFd, limit: u64) -> io::Result<usize> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(self.size - self.held);
        let count = splice(from, None, &self.input, None, limit, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.held += count;
        Ok(count)
    }

    /// Takes what there is until it is half full, by the same limit.
    pub(super) fn take_more(&mut self, from: impl AsFd, limit: u64) -> io::Result<usize> {
        let mut taken = self.take(from.as_fd(), limit)?;
        while self.held < self.size / 2 && (taken as u64) < limit {
            match self.take(from.as_fd(), limit - taken as u64) {
                // The end, or an error, is found again next time.
                Ok(0) | Err(_) => break,
                Ok(count) => taken += count,
            }
        }
        Ok(taken)
    }

    /// Gives what it holds to a stream, as far as that takes it. Says whether more will follow at once.
    pub(super) fn give(&mut self, to: impl AsFd, is_more: bool) -> io::Result<usize> {
        let more = if is_more { SpliceFlags::MORE } else { SpliceFlags::empty() };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE | more;
        let count = splice(&self.output, None, to, None, self.held, flags)?;
        self.held -= count;
        Ok(count)
    }

    /// Writes all it holds into a file at `offset`.
    pub(super) fn write_at(&mut self, file: impl AsFd, offset: u64) -> io::Result<()> {
        let mut offset = offset;
        while self.held > 0 {
            match splice(&self.output, None, file.as_fd(), Some(&mut offset), self.held, SpliceFlags::MOVE) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.held -= count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
