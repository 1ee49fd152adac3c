//! Signals to crr while a program that it restored or started runs in the foreground.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::failure::Failure;

/// What a foreground crr listens to.
const LISTENED: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGCHLD,
];

/// The `si_code` of a signal that the kernel itself sent, such as the terminal's driver.
const SI_KERNEL: i32 = 0x80;

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) signal: Signal,
    /// Whether the kernel sent it: for these signals that is the terminal, which sends to a whole process group.
    from_kernel: bool,
}

/// What an arrived signal means to a crr whose program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A child's state changed.
    Child,
    /// It is sent on to the program.
    PassOn,
    /// The program has had it already.
    Leave,
}

impl Arrived {
    /// Decides. `together`: the program's root is in crr's process group, so that both have what the terminal sends.
    pub(crate) fn meaning(self, together: bool) -> Meaning {
        match self.signal {
            Signal::SIGCHLD => Meaning::Child,
            _ if self.from_kernel && together => Meaning::Leave,
            _ => Meaning::PassOn,
        }
    }

    /// Whether it asks a crr that still works to give up.
    pub(crate) fn ends(self) -> bool {
        matches!(self.signal, Signal::SIGTERM | Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT)
    }
}

/// Signals that are listened to: blocked, and read from a descriptor when somebody looks.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: SignalFd,
    /// Those that were read while somebody looked for others.
    waiting: RefCell<VecDeque<Arrived>>,
}

/// Listens from here on. Must be called before the first thread is made: each thread must have the signals blocked, or one of
/// them would be ended by them.
pub(crate) fn listen() -> Result<Signals, Failure> {
    let attempt = |errno: nix::errno::Errno| crr::Error::system("catch signals", errno);
    let set: SigSet = LISTENED.into_iter().collect();
    set.thread_block().map_err(attempt)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let descriptor = SignalFd::with_flags(&set, flags).map_err(attempt)?;
    Ok(Signals { descriptor, waiting: RefCell::default() })
}

impl Signals {
    /// Waits for the next one.
    pub(crate) async fn next(&self) -> std::io::Result<Arrived> {
        self.wait_for(|| self.waiting.borrow_mut().pop_front().or_else(|| self.read())).await
    }

    /// Waits for one that asks to give up; others are kept for later, also if the future is dropped.
    pub(crate) async fn ending(&self) -> Signal {
        match self.wait_for(|| self.ending_now()).await {
            Ok(signal) => signal,
            Err(_) => std::future::pending().await,
        }
    }

    async fn wait_for<T>(&self, look: impl Fn() -> Option<T>) -> std::io::Result<T> {
        if let Some(found) = look() {
            return Ok(found);
        }
        // SAFETY: the descriptor outlives this registration, which ends with the function.
        let readable = unsafe { AsyncFd::register_with_interest(self.descriptor.as_fd(), Interest::READABLE) }?;
        loop {
            let mut ready = readable.readable().await?;
            match look() {
                Some(found) => return Ok(found),
                None => ready.clear_ready(),
            }
        }
    }

    /// One that asks to give up, if it has come already; others are kept for later.
    pub(crate) fn ending_now(&self) -> Option<Signal> {
        while let Some(arrived) = self.read() {
            self.waiting.borrow_mut().push_back(arrived);
        }
        let mut waiting = self.waiting.borrow_mut();
        let at = waiting.iter().position(|arrived| arrived.ends())?;
        waiting.remove(at).map(|arrived| arrived.signal)
    }

    fn read(&self) -> Option<Arrived> {
        let info = self.descriptor.read_signal().ok()??;
        let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
        Some(Arrived { signal, from_kernel: info.ssi_code == SI_KERNEL })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_terminal_sent_to_both_is_not_sent_twice() {
        let table = [
            // signal, from the kernel, together, meaning
            (Signal::SIGINT, true, true, Meaning::Leave),
            (Signal::SIGQUIT, true, true, Meaning::Leave),
            (Signal::SIGHUP, true, true, Meaning::Leave),
            (Signal::SIGWINCH, true, true, Meaning::Leave),
            // The program is in a group, or session, of its own: the terminal reaches crr alone.
            (Signal::SIGINT, true, false, Meaning::PassOn),
            (Signal::SIGWINCH, true, false, Meaning::PassOn),
            // Somebody sent it to crr.
            (Signal::SIGTERM, false, true, Meaning::PassOn),
            (Signal::SIGTERM, false, false, Meaning::PassOn),
            (Signal::SIGINT, false, true, Meaning::PassOn),
            (Signal::SIGUSR1, false, false, Meaning::PassOn),
            (Signal::SIGUSR2, false, true, Meaning::PassOn),
            (Signal::SIGCONT, false, true, Meaning::PassOn),
            (Signal::SIGCHLD, true, true, Meaning::Child),
            (Signal::SIGCHLD, false, false, Meaning::Child),
        ];
        for (signal, from_kernel, together, meaning) in table {
            let arrived = Arrived { signal, from_kernel };
            assert_eq!(arrived.meaning(together), meaning, "{arrived:?} together {together}");
        }
    }

    #[tokio::test]
    async fn what_has_come_is_seen_at_once_and_the_rest_is_kept() {
        let signals = listen().expect("signals");
        assert_eq!(signals.ending_now(), None);
        // To this thread: another thread of the test has them unblocked.
        let send = |signal: Signal| {
            // SAFETY: a plain system call on the calling thread, which has the signal blocked.
            unsafe { libc::pthread_kill(libc::pthread_self(), signal as libc::c_int) }
        };
        assert_eq!(send(Signal::SIGUSR1), 0);
        assert_eq!(send(Signal::SIGTERM), 0);
        assert_eq!(signals.ending_now(), Some(Signal::SIGTERM));
        assert_eq!(signals.next().await.expect("a signal").signal, Signal::SIGUSR1);
        assert_eq!(send(Signal::SIGINT), 0);
        assert_eq!(signals.ending().await, Signal::SIGINT);
    }

    #[test]
    fn a_resized_window_ends_nothing() {
        let ends = |signal| Arrived { signal, from_kernel: false }.ends();
        assert!(ends(Signal::SIGINT) && ends(Signal::SIGTERM) && ends(Signal::SIGHUP));
        assert!(!ends(Signal::SIGWINCH) && !ends(Signal::SIGUSR1) && !ends(Signal::SIGCHLD) && !ends(Signal::SIGCONT));
    }
}
