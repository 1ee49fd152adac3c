//! What a process inherits from its parent and CRIU does not restore: a restored task has what CRIU has, which is crr's.

use std::fmt;
use std::io;

use super::lines::{Lines, decimal, hexadecimal};

/// Attributes of a task that CRIU neither saves nor sets. What could not be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// As personality(2): PER_LINUX32, ADDR_NO_RANDOMIZE and the like.
    pub personality: Option<u32>,
    /// By how much the kernel may delay its timers (PR_SET_TIMERSLACK).
    pub timer_slack_ns: Option<u64>,
    /// Its I/O priority, where it is not the one that its nice value gives it.
    pub io_priority: Option<IoPriority>,
}

impl Inherited {
    /// Reads those of process `pid`, whose nice value is `nice`.
    pub(super) fn read(pid: i32, nice: i32, lines: &mut Lines) -> Self {
        let personality = lines.whole(format!("/proc/{pid}/personality")).ok().and_then(hexadecimal);
        let personality = personality.and_then(|bits| u32::try_from(bits).ok());
        let timer_slack_ns = lines.whole(format!("/proc/{pid}/timerslack_ns")).ok().and_then(decimal);
        Self { personality, timer_slack_ns, io_priority: IoPriority::read(pid, nice) }
    }
}

/// An I/O priority as ioprio_get(2) gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPriority(u16);

impl IoPriority {
    const REAL_TIME: u16 = 1;
    const BEST_EFFORT: u16 = 2;
    const IDLE: u16 = 3;

    /// That of thread `tid`, unless it is what a thread of this nice value has anyway.
    pub(super) fn read(tid: i32, nice: i32) -> Option<Self> {
        Self::of(super::foreign::io_priority(tid).ok()?, nice)
    }

    pub(crate) fn of(value: u16, nice: i32) -> Option<Self> {
        let priority = Self(value);
        let default = (nice + 20) / 5;
        match priority.class() {
            Self::REAL_TIME | Self::IDLE => Some(priority),
            Self::BEST_EFFORT => (i32::from(priority.level()) != default).then_some(priority),
            _ => None,
        }
    }

    fn class(self) -> u16 {
        self.0 >> 13
    }

    /// The bits between class and level are hints for the device.
    fn level(self) -> u16 {
        self.0 & 7
    }
}

impl fmt::Display for IoPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            Self::REAL_TIME => write!(f, "real-time {}", self.level()),
            Self::IDLE => f.write_str("idle"),
            _ => write!(f, "best-effort {}", self.level()),
        }
    }
}

/// The [`Inherited`] of crr itself.
pub fn own_inherited() -> io::Result<Inherited> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let mut lines = Lines::new();
    let stat = super::Stat::parse(lines.whole("/proc/self/stat")?);
    Ok(Inherited::read(pid, stat.map_or(0, |stat| stat.nice), &mut lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_priority_that_the_nice_value_gives_is_none_of_its_own() {
        for (value, nice) in [(0, 0), (0, 19), ((2 << 13) | 4, 0), ((2 << 13) | 7, 19), (2 << 13, -20)] {
            assert_eq!(IoPriority::of(value, nice), None, "{value} {nice}");
        }
        let shown = |value, nice| IoPriority::of(value, nice).map(|priority| priority.to_string());
        assert_eq!(shown((2 << 13) | 7, 0).as_deref(), Some("best-effort 7"));
        assert_eq!(shown((1 << 13) | 2, 0).as_deref(), Some("real-time 2"));
        assert_eq!(shown((3 << 13) | 7, 0).as_deref(), Some("idle"));
    }

    #[test]
    fn what_a_child_was_given_is_read_of_it() {
        let own = own_inherited().expect("readable");
        assert!(own.personality.is_some() && own.timer_slack_ns.is_some_and(|slack| slack > 0), "{own:?}");
        let mut child = std::process::Command::new("ionice")
            .args(["-c2", "-n7", "setarch", "linux32", "sh", "-c", "echo; exec sleep 60"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("ionice, of util-linux");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("a line");
        let read = Inherited::read(child.id() as i32, 0, &mut Lines::new());
        child.kill().expect("a kill");
        child.wait().expect("it ends");
        // PER_LINUX32, one of the few that containers let a program ask for.
        assert_eq!(read.personality, Some(8));
        assert_eq!(read.io_priority, Some(IoPriority((2 << 13) | 7)));
        assert_eq!(Inherited::read(i32::MAX, 0, &mut Lines::new()), Inherited::default());
    }
}
