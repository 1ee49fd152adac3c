//! Waiting for a condition, with a deadline: the one place where a test sleeps.

use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

/// Long enough for anything here on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits until the condition gives a value.
///
/// # Errors
/// When it has not within `limit`; the message names what was awaited.
pub(crate) fn until<T>(
    what: impl std::fmt::Display,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, Failed> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            return Err(format!("waited {limit:?} in vain for {what}").into());
        }
        thread::sleep(Duration::from_millis(2));
    }
}
