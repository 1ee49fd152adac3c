//! How soon somebody who waits goes on: what crr asks of the kernel so that a tree stands still for less long.
//!
//! A dump of a small tree holds it for 1.5 ms. Little of that is work: most is a processor going back and forth between CRIU,
//! crr and the tree, and in a virtual machine each way out of idle takes 50 us or more, as the host has to be asked. And before
//! and after the freeze crr and CRIU keep two processors busy beside the tree. Whoever of it wakes up meanwhile has to wait
//! until one of them has had its turn, 3 ms and more: longer than the freeze.
//!
//! So crr and CRIU [stand back](stand_back) while the tree runs, [hurry](Hurry) while it stands still, and keep the processors
//! [awake](Awake) for as long as either takes, 200 ms at the most. All three are requests to the kernel that end with the
//! process. One that has them not goes on as it would, so that failures say nothing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::mem::size_of;
use std::pin::pin;
use std::time::{Duration, Instant};

/// A turn of somebody whom any other goes before: several times the kernel's usual one, which is 0.7 to 2.8 ms.
const LONG_TURN: Duration = Duration::from_millis(10);

/// A turn of somebody who goes before others: the shortest that the kernel knows.
const SHORT_TURN: Duration = Duration::from_micros(100);

/// For how long processors do not sleep, which takes current, and time of the processors that they share a core with. What
/// takes longer does not gain from it.
const AWAKE: Duration = Duration::from_millis(200);

/// Where the latency is asked for that processors may have, for as long as the file is open (the kernel's
/// Documentation/power/pm_qos_interface.rst).
const LATENCY: &str = "/dev/cpu_dma_latency";

/// Lets every other task of the machine go before this thread, and before all that it starts from now on: each that wakes up
/// gets the processor at once. They have as much of it as before, in longer turns, which is what the kernel goes by.
///
/// For a thread that is about to dump a tree or to look at one. What a restore starts would be the tree itself, which has the
/// turns of whoever started it, so that it must not be called before one. Without effect for a thread with another scheduling
/// policy than the usual ones, and before Linux 6.12.
pub fn stand_back() {
    take_turns(0, LONG_TURN);
}

/// Others are let go first no more, for as long as it lives: the tree stands still.
#[derive(Debug)]
pub(crate) struct Hurry {
    /// The thread that stood back.
    thread: Option<i32>,
}

impl Hurry {
    /// Has a CRIU that is at work hurry for the rest of its life, and this thread if it stands back.
    pub(crate) fn begin(criu: i32) -> Self {
        take_turns(criu, SHORT_TURN);
        let thread = nix::unistd::gettid().as_raw();
        let stands_back = attributes(thread).is_some_and(|own| own.sched_runtime == nanoseconds(LONG_TURN));
        if stands_back {
            take_turns(thread, SHORT_TURN);
        }
        Self { thread: stands_back.then_some(thread) }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        if let Some(thread) = self.thread {
            take_turns(thread, LONG_TURN);
        }
    }
}

/// Keeps the processors from sleeping for as long as it lives, [`AWAKE`] at the most.
#[derive(Debug)]
pub(crate) struct Awake {
    file: Option<File>,
    until: Instant,
}

impl Awake {
    pub(crate) fn keep() -> Self {
        let file = OpenOptions::new().write(true).open(LATENCY).and_then(|mut file| {
            // In microseconds, as a C int: what takes longer to wake up from is not slept.
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok(file)
        });
        Self { file: file.ok(), until: Instant::now() + AWAKE }
    }

    /// Waits for something, and lets the processors sleep if it takes too long.
    ///
    /// # Cancellation
    /// As that of `something`.
    pub(crate) async fn during<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        if self.file.is_some() {
            tokio::select! {
                biased;
                done = &mut something => return done,
                () = tokio::time::sleep_until(self.until.into()) => self.file = None,
            }
        }
        something.await
    }
}

fn nanoseconds(turn: Duration) -> u64 {
    turn.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Sets the length of the turns that a thread takes; 0 is this one.
fn take_turns(thread: i32, turn: Duration) {
    let Some(mut attributes) = attributes(thread) else { return };
    attributes.sched_flags &= u64::from(libc::SCHED_FLAG_RESET_ON_FORK.unsigned_abs());
    attributes.sched_runtime = nanoseconds(turn);
    // SAFETY: the kernel only reads the structure, whose size is in it.
    unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) };
}

/// How a thread is scheduled; `None` where the length of its turns has no meaning, or cannot be had.
fn attributes(thread: i32) -> Option<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).ok()?;
    // SAFETY: the structure consists of integers only, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes to the structure, which is that large.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, 0) };
    attributes.size = size;
    let policy = i32::try_from(attributes.sched_policy).ok()?;
    (got == 0 && [libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&policy)).then_some(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn_ns(thread: i32) -> u64 {
        attributes(thread).map_or(0, |attributes| attributes.sched_runtime)
    }

    #[test]
    fn who_stands_back_hurries_in_between() {
        let mut criu = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(criu.id()).unwrap();
        let usual = turn_ns(pid);
        // In a thread of its own, which ends with its turns.
        let turns = std::thread::scope(|scope| {
            let turns = scope.spawn(|| {
                drop(Hurry::begin(pid));
                let untouched = turn_ns(0);
                stand_back();
                let back = turn_ns(0);
                let hurry = Hurry::begin(pid);
                let hurried = turn_ns(0);
                drop(hurry);
                [untouched, back, hurried, turn_ns(0), turn_ns(pid)]
            });
            turns.join().unwrap()
        });
        criu.kill().unwrap();
        criu.wait().unwrap();
        // Before Linux 6.12 it can be neither set nor read.
        if usual > 0 {
            assert_eq!(turns, [usual, 10_000_000, 100_000, 10_000_000, 100_000]);
        }
    }

    #[tokio::test]
    async fn processors_may_sleep_when_it_takes_long() {
        let limit = Duration::from_millis(50);
        let mut awake = Awake { file: Some(tempfile::tempfile().unwrap()), until: Instant::now() + limit };
        awake.during(std::future::ready(())).await;
        assert!(awake.file.is_some());
        awake.during(tokio::time::sleep(limit * 2)).await;
        assert!(awake.file.is_none());
    }
}
