//! /proc/PID/stat: who a task is in the tree, its state and its terminal.

use super::lines::decimal;

/// What /proc/PID/stat (or /proc/PID/task/TID/stat) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The task's PID as crr sees it.
    pub pid: i32,
    /// The name of the program, at most 15 bytes; anything may be in it.
    pub comm: String,
    /// The letter of its state: R, S, D, T (stopped), t (traced), Z (zombie), I, X.
    pub state: char,
    /// Its parent.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// The device number of its controlling terminal in the kernel's old encoding; 0 without one.
    pub tty: u32,
    /// PF_ flags of the kernel.
    pub flags: u32,
    /// Its nice value.
    pub nice: i32,
    /// The threads it has.
    pub threads: u32,
    /// When it began, in clock ticks since boot: with the PID it names the process for good.
    pub start_time_ticks: u64,
    /// Resident pages.
    pub resident_pages: u64,
    /// The signal that its parent gets when it ends; -1 of a thread.
    pub exit_signal: i32,
    /// The scheduling policy; 6 is SCHED_DEADLINE.
    pub policy: u32,
}

impl Stat {
    /// Parses the content of the file; `None` when it is cut short or not of that form.
    pub fn parse(text: &[u8]) -> Option<Self> {
        // The name may hold spaces and brackets of its own: it ends at the last one.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let name = text.get(open + 1..close)?;
        let mut stat =
            Self { pid: decimal(&text[..open])?, comm: String::from_utf8_lossy(name).into_owned(), ..Self::default() };
        let mut last = 2;
        for (index, field) in text[close + 1..].split(|byte| *byte == b' ').skip(1).enumerate() {
            // proc(5) counts the fields from 1; the state is the third.
            last = index + 3;
            match last {
                3 => stat.state = char::from(*field.first()?),
                4 => stat.ppid = decimal(field)?,
                5 => stat.pgid = decimal(field)?,
                6 => stat.sid = decimal(field)?,
                7 => stat.tty = decimal::<i32>(field)? as u32,
                9 => stat.flags = decimal(field)?,
                19 => stat.nice = decimal(field)?,
                20 => stat.threads = decimal::<i64>(field)?.try_into().ok()?,
                22 => stat.start_time_ticks = decimal(field)?,
                24 => stat.resident_pages = decimal::<i64>(field)?.try_into().ok()?,
                38 => stat.exit_signal = decimal(field)?,
                41 => stat.policy = decimal(field)?,
                _ => {}
            }
        }
        (last >= 41).then_some(stat)
    }

    /// Whether this is a thread of the kernel, which has no program that could be saved.
    pub fn is_kernel_thread(&self) -> bool {
        const PF_KTHREAD: u32 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHELL: &str = "812 (a) (b c) S 800 812 812 34816 812 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 8192 99 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 6 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = Stat::parse(SHELL.as_bytes()).expect("a good line");
        assert_eq!(stat.comm, "a) (b c");
        assert_eq!((stat.pid, stat.ppid, stat.pgid, stat.sid, stat.tty), (812, 800, 812, 812, 34816));
        assert_eq!((stat.state, stat.threads, stat.start_time_ticks, stat.policy), ('S', 1, 4711, 6));
        assert_eq!((stat.resident_pages, stat.nice, stat.exit_signal), (99, 0, 17));
        assert!(!stat.is_kernel_thread());
    }

    #[test]
    fn a_line_cut_before_the_policy_is_refused() {
        let end = SHELL.find(" 17 1 0 6").expect("the policy");
        for length in 0..end {
            assert_eq!(Stat::parse(&SHELL.as_bytes()[..length]), None, "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stat::parse(&text);
        }
    }
}
