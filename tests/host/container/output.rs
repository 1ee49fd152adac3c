//! What a container prints, on a pipe that is read all the time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::crr::{self, Ran};
use crate::ensure;
use crate::until::{SOON, until};

/// A pipe whose other end one container after another may have. All that comes is kept.
pub(crate) struct Output {
    /// Kept, so that the next container can have it when the one before is gone.
    writer: OwnedFd,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Output {
    pub(crate) fn new() -> Result<Self, Failed> {
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

    /// Standard input, output and error for a command: nothing, and twice the pipe.
    pub(crate) fn streams(&self) -> Result<[Stdio; 3], Failed> {
        Ok([Stdio::null(), self.writer.try_clone()?.into(), self.writer.try_clone()?.into()])
    }

    /// Runs a command to its end whose streams are these. What it says on stderr is among the rest.
    pub(crate) fn run(&self, command: &mut Command, limit: Duration) -> Result<Ran, Failed> {
        let before = self.text().len();
        let mut ran = crr::run_on_streams(command, self.streams()?, limit)?;
        ran.stderr = self.text().get(before..).unwrap_or_default().to_owned();
        Ok(ran)
    }

    /// All that has come.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Forgets what has come.
    pub(crate) fn clear(&self) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits for a line of which `wanted` makes something.
    pub(crate) fn await_line<T>(&self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> Result<T, Failed> {
        let found = until(what, SOON, || self.text().lines().find_map(&mut wanted));
        found.map_err(|failed| format!("{}; it said: {}", failed.message().unwrap_or_default(), self.text()).into())
    }

    /// The numbers that a counter has printed, in their order. A line that has not ended does not count.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// The last number that a counter has printed.
    pub(crate) fn last_number(&self) -> Option<u64> {
        self.numbers().last().copied()
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
