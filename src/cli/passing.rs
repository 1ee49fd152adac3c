//! Signals to crr while a program that it restored or started runs in the foreground.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

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

/// Listens from here on. Must be called before the first thread is made: each thread must have the signals blocked, or one of
/// them would be ended by them.
pub(crate) fn listen() -> Result<UnboundedReceiver<Arrived>, Failure> {
    let attempt = |errno: nix::errno::Errno| crr::Error::system("catch signals", errno);
    let set: SigSet = LISTENED.into_iter().collect();
    set.thread_block().map_err(attempt)?;
    let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).map_err(attempt)?;
    let (sender, receiver) = unbounded_channel();
    let read = move || {
        while let Ok(Some(info)) = descriptor.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            let Ok(signal) = Signal::try_from(number) else { continue };
            if sender.send(Arrived { signal, from_kernel: info.ssi_code == SI_KERNEL }).is_err() {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("crr-signals".into()).stack_size(64 << 10).spawn(read);
    thread.map_err(|source| crr::Error::system("start a thread", source))?;
    Ok(receiver)
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

    #[test]
    fn a_resized_window_ends_nothing() {
        let ends = |signal| Arrived { signal, from_kernel: false }.ends();
        assert!(ends(Signal::SIGINT) && ends(Signal::SIGTERM) && ends(Signal::SIGHUP));
        assert!(!ends(Signal::SIGWINCH) && !ends(Signal::SIGUSR1) && !ends(Signal::SIGCHLD) && !ends(Signal::SIGCONT));
    }
}
