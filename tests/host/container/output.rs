//! What a container prints, on a pipe that is read all the time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::crr::{self, Ran};
use crate::ensure;
use crate::until::{SOON, until};

/// Two pipes, for standard output and error, whose other ends one container after another may have. All that comes is kept.
pub(crate) struct Output {
    out: Pipe,
    /// By itself: the one who starts a container speaks there, too.
    errors: Pipe,
}

struct Pipe {
    /// Kept, so that the next container can have it when the one before is gone.
    writer: OwnedFd,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    fn new() -> Result<Self, Failed> {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        // Ends when the last writer has gone.
        thread::spawn(move || -> io::Result<()> {
            let mut reader = File::from(reader);
            let mut buffer = [0; 4096];
            loop {
                match reader.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..read]),
                }
            }
        });
        Ok(Self { writer, bytes })
    }

    fn stream(&self) -> Result<Stdio, Failed> {
        Ok(self.writer.try_clone()?.into())
    }

    /// Waits until what was written has been read.
    fn await_read(&self) -> Result<(), Failed> {
        until("a pipe to be read", SOON, || matches!(rustix::io::ioctl_fionread(&self.writer), Ok(0)).then_some(()))
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Output {
    pub(crate) fn new() -> Result<Self, Failed> {
        Ok(Self { out: Pipe::new()?, errors: Pipe::new()? })
    }

    /// Standard input, output and error for a command.
    pub(crate) fn streams(&self) -> Result<[Stdio; 3], Failed> {
        Ok([Stdio::null(), self.out.stream()?, self.errors.stream()?])
    }

    /// Runs a command to its end whose streams are these. What the container says is among its words.
    pub(crate) fn run(&self, command: &mut Command, limit: Duration) -> Result<Ran, Failed> {
        let before = (self.text().len(), self.errors().len());
        let mut ran = crr::run_on_streams(command, self.streams()?, limit)?;
        self.errors.await_read()?;
        ran.stdout = self.text().get(before.0..).unwrap_or_default().to_owned();
        ran.stderr = self.errors().get(before.1..).unwrap_or_default().to_owned();
        Ok(ran)
    }

    /// All that has come on standard error.
    pub(crate) fn errors(&self) -> String {
        self.errors.text()
    }

    /// All that has come on standard output.
    pub(crate) fn text(&self) -> String {
        self.out.text()
    }

    /// The numbers that a counter has printed, in their order. A line that has not ended does not count.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// Waits until the counter has printed `more` numbers after those that are there.
    pub(crate) fn await_numbers(&self, more: usize) -> Result<(), Failed> {
        let wanted = self.numbers().len() + more;
        until(format_args!("{more} more numbers"), SOON, || (self.numbers().len() >= wanted).then_some(()))
            .map_err(|failed| format!("{}; it said: {}", failed.message().unwrap_or_default(), self.text()).into())
    }

    /// Each number is one more than the one before it.
    pub(crate) fn counted_without_gap(&self) -> Result<(), Failed> {
        let numbers = self.numbers();
        ensure!(!numbers.is_empty(), "nothing was counted: {}", self.text());
        for pair in numbers.windows(2) {
            ensure!(pair[1] == pair[0] + 1, "{} came after {}: {numbers:?}", pair[1], pair[0]);
        }
        Ok(())
    }
}

/// Streams that lead nowhere.
pub(crate) fn null_streams() -> [Stdio; 3] {
    [Stdio::null(), Stdio::null(), Stdio::null()]
}
