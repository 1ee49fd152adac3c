//! One line of CRIU's log: `(sss.uuuuuu)[ pid:] Level (file.c:line): text`, without the time below log level 3.

use std::fmt;

use serde::Serialize;

use crate::escape::escape;

/// How serious CRIU holds a line to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// `Error`. Most of them are fatal, some are not: see [`Explanation::decisive`](super::Explanation::decisive).
    Error,
    /// `Warn`.
    Warn,
    /// A line of CRIU's with a time and no level: CRIU marks information and debugging that way.
    Info,
    /// A line in another form: CRIU's plain messages, or the output of a program that CRIU ran.
    Plain,
}

/// A line of the log, parsed.
///
/// All text in it is [escaped](crate::escape), and therefore safe to print.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number in the log, counted from 1. `None` behind a part of a huge log that was not read.
    pub number: Option<u64>,
    /// When CRIU wrote it, in microseconds since CRIU started. It does so from log level 3 (information) on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_us: Option<u64>,
    /// The PID of the writer in its own PID namespace, where CRIU gives one: a task being restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether the code that CRIU places in the restored or dumped process wrote it (`pie:`).
    pub pie: bool,
    /// Its level.
    pub level: Level,
    /// Where in CRIU's source it comes from, as `criu/tty.c:2083`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The rest: CRIU's message.
    pub text: String,
}

impl Line {
    /// Parses one line, without its line break. Anything is a line: what does not look like CRIU's is
    /// [`Level::Plain`].
    pub fn parse(bytes: &[u8], number: Option<u64>) -> Self {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let text = escape(bytes);
        let (time_us, rest) = match time(&text) {
            Some((time_us, rest)) => (Some(time_us), rest),
            None => (None, text.as_str()),
        };
        // Below log level 3 CRIU writes no time, and a number and a colon alone may be anybody's.
        let (pie, rest) = match rest.strip_prefix("pie: ") {
            Some(rest) if pid(rest).is_some() => (true, rest),
            _ => (false, rest),
        };
        let ours = |rest: &str| time_us.is_some() || pie || level(rest).0.is_some();
        let (pid, rest) = match pid(rest) {
            Some((pid, rest)) if ours(rest) => (Some(pid), rest),
            _ => (None, rest),
        };
        let (level, origin, rest) = level(rest);
        let level = level.unwrap_or(if time_us.is_some() || pie { Level::Info } else { Level::Plain });
        Self { number, time_us, pid, pie, level, origin, text: rest.to_owned() }
    }
}

/// `(00.012345)`, and the rest behind the blanks that follow.
fn time(text: &str) -> Option<(u64, &str)> {
    let (time, rest) = text.strip_prefix('(')?.split_once(')')?;
    let (seconds, micros) = time.split_once('.')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(micros) || micros.len() != 6 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok()?;
    let time_us = seconds.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)?;
    Some((time_us, rest.trim_start_matches(' ')))
}

/// `  1234: `, the PID that CRIU puts before what a restored task writes.
fn pid(rest: &str) -> Option<(u32, &str)> {
    let (pid, rest) = rest.trim_start_matches(' ').split_once(": ")?;
    if pid.is_empty() || !pid.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((pid.parse().ok()?, rest))
}

/// `Error (criu/tty.c:2083): `, the level and its place in the source.
fn level(rest: &str) -> (Option<Level>, Option<String>, &str) {
    let (level, behind) = if let Some(behind) = rest.strip_prefix("Error (") {
        (Level::Error, behind)
    } else if let Some(behind) = rest.strip_prefix("Warn").map(|behind| behind.trim_start_matches(' ')) {
        match behind.strip_prefix('(') {
            Some(behind) => (Level::Warn, behind),
            None => return (None, None, rest),
        }
    } else {
        return (None, None, rest);
    };
    let Some((origin, text)) = behind.split_once("): ") else { return (None, None, rest) };
    match origin.rsplit_once(':') {
        Some((file, line)) if !file.is_empty() && !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) => {
            (Some(level), Some(origin.to_owned()), text)
        }
        _ => (None, None, rest),
    }
}

/// Writes the line the way CRIU does.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(time_us) = self.time_us {
            write!(f, "({:02}.{:06}) ", time_us / 1_000_000, time_us % 1_000_000)?;
        }
        if self.pie {
            f.write_str("pie: ")?;
        }
        if let Some(pid) = self.pid {
            write!(f, "{pid}: ")?;
        }
        if let Some(origin) = &self.origin {
            let level = if self.level == Level::Warn { "Warn " } else { "Error" };
            write!(f, "{level} ({origin}): ")?;
        }
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Line {
        Line::parse(text.as_bytes(), Some(1))
    }

    #[test]
    fn an_error_of_the_dump_has_time_origin_and_text() {
        let line =
            parse("(12.003412) Error (criu/tty.c:2083): tty: Found slave peer index 3 without correspond master peer");
        assert_eq!((line.time_us, line.pid, line.pie, line.level), (Some(12_003_412), None, false, Level::Error));
        assert_eq!(line.origin.as_deref(), Some("criu/tty.c:2083"));
        assert_eq!(line.text, "tty: Found slave peer index 3 without correspond master peer");
    }

    #[test]
    fn a_restored_task_is_named_by_its_pid() {
        let line = parse("(00.009876)   4242: Error (criu/files-reg.c:2216): File /x has bad size 1 (expect 2)");
        assert_eq!((line.pid, line.pie), (Some(4242), false));
        let line = parse("(00.009876) pie: 42: Error (criu/pie/restorer.c:1): Can't read pages data (-9)");
        assert_eq!((line.pid, line.pie), (Some(42), true));
    }

    #[test]
    fn below_level_three_there_is_no_time() {
        let line = parse(" 32146: Error (criu/files.c:1221): Unable to open fd=3 id=0x1e");
        assert_eq!((line.time_us, line.pid, line.level), (None, Some(32146), Level::Error));
        let line = parse("pie: 32404: Error (criu/pie/parasite.c:588): send_fds failed (-22)");
        assert_eq!((line.time_us, line.pid, line.pie, line.level), (None, Some(32404), true, Level::Error));
        assert_eq!(parse("pie: 32404: Daemon waits for command").level, Level::Info);
        assert_eq!(parse("1042: eggs").pid, None);
    }

    #[test]
    fn levels_are_told_apart() {
        assert_eq!(parse("(00.000001) Warn  (criu/kerndat.c:1): x").level, Level::Warn);
        assert_eq!(parse("(00.000001) Dumping task (pid: 1)").level, Level::Info);
        assert_eq!(parse("Running as non-root requires '--unprivileged'").level, Level::Plain);
        assert_eq!(parse("Error (criu/util.c:1): early").level, Level::Error);
    }

    #[test]
    fn lines_that_only_look_alike_are_plain_text() {
        for text in
            ["(x.000001) Error", "(00.1) a", "()", "(", "", "(99999999999999999999.000000) x", "Error (nowhere) x"]
        {
            let line = parse(text);
            assert_eq!((line.level, line.time_us), (Level::Plain, None), "{text}");
            assert_eq!(line.text, text);
        }
        assert_eq!(parse("(00.000001) Error (no line): x").level, Level::Info);
    }

    #[test]
    fn a_parsed_line_is_printed_as_criu_wrote_it() {
        for text in [
            "(00.000001) Error (criu/tty.c:2083): tty: x",
            "(101.000001) Warn  (criu/tty.c:2083): tty: x",
            "(00.009876) pie: 42: Error (criu/pie/restorer.c:1): y",
            "(00.009876) 42: Info",
            "plain",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn a_terminal_escape_in_a_file_name_is_spelled_out() {
        let line = Line::parse(b"(00.000001) Error (a.c:1): File /\x1b[2J has bad mode", None);
        assert_eq!(line.text, r"File /\x1b[2J has bad mode");
    }
}
