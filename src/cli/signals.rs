//! What a signal to crr means.

use crr::operation::Interrupter;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;

/// From here on the first SIGINT, SIGTERM or SIGHUP cancels what is being done and leaves everything clean; the next one gives
/// up at once. Ends with the returned value.
///
/// Must be called within the runtime.
pub(crate) fn insist_on_termination(interrupter: Interrupter) -> Result<Insisting, Failure> {
    let attempt = |source| crr::Error::system("catch signals", source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(attempt)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(attempt)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(attempt)?;
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            interrupter.insist();
        }
    });
    Ok(Insisting(task))
}

/// Signals are being listened to.
#[derive(Debug)]
pub(crate) struct Insisting(tokio::task::JoinHandle<()>);

impl Drop for Insisting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
