//! Programs that check themselves while they are moved: memory that counts, connections that compare every byte.

use libtest_mimic::Failed;
use serde::Deserialize;

use crate::ensure;
use crate::programs;
use crate::until::{SOON, until};

use super::host::{Host, Process};

/// Starts `selfcheck` in a host, and waits until it has looked at its memory once.
pub(crate) fn selfcheck(host: &Host, output: &str, mebibytes: u32) -> Result<Process, Failed> {
    let program = programs::program("selfcheck")?;
    let program = program.to_str().ok_or("a path that is not UTF-8")?;
    let process = host.spawn(output, [program, &mebibytes.to_string()])?;
    await_steps(host, &process, 1)?;
    Ok(process)
}

/// Waits until `selfcheck` has looked at its memory `times` more, and fails if it found anything wrong, or if a count was left
/// out or came twice.
pub(crate) fn await_steps(host: &Host, process: &Process, times: usize) -> Result<(), Failed> {
    let looks = |output: &str| output.lines().filter(|line| line.ends_with(" whole")).count();
    let before = looks(&host.read(&process.output));
    let output = until(format_args!("PID {} on {} to run on", process.pid, host.name()), SOON, || {
        let output = host.read(&process.output);
        (looks(&output) >= before + times || output.contains("CORRUPT")).then_some(output)
    })?;
    // The last line may not be whole yet.
    let lines: Vec<&str> = output.lines().take(output.matches('\n').count()).collect();
    for (count, line) in lines.iter().enumerate() {
        let is_right = line.trim_end_matches(" whole") == format!("{count} {}", process.pid);
        ensure!(is_right, "line {count} of PID {} is `{line}`", process.pid);
    }
    Ok(())
}

/// Starts the echo server in a host, and waits until it listens.
pub(crate) fn echo_server(host: &Host, address: &str, port: u16) -> Result<Process, Failed> {
    let program = programs::file("echo_server.py");
    let program = program.to_str().ok_or("a path that is not UTF-8")?;
    let process = host.spawn(&format!("/tmp/echo.{port}"), ["python3", program, address, &port.to_string()])?;
    until("the echo server to listen", SOON, || host.read(&process.output).contains("ready").then_some(()))?;
    Ok(process)
}

/// What clients have seen so far: see tests/programs/echo_client.py.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) connected: u32,
    pub(crate) messages: u64,
    pub(crate) least: u64,
    pub(crate) lost: u32,
    pub(crate) errors: Vec<String>,
    pub(crate) gap_ms: f64,
    pub(crate) done: bool,
}

/// Connections to an echo server that are never made again.
pub(crate) struct Clients<'a> {
    host: &'a Host,
    process: Process,
}

impl<'a> Clients<'a> {
    /// Connects as the words say, such as `busy=20`, and waits until each connection has had answers.
    pub(crate) fn start(host: &'a Host, address: &str, port: u16, words: &[&str]) -> Result<Self, Failed> {
        let program = programs::file("echo_client.py");
        let program = program.to_str().ok_or("a path that is not UTF-8")?;
        let port = port.to_string();
        let output = format!("/tmp/clients.{port}.{}", words.join("."));
        let process = host.spawn(&output, [&["python3", program, address, &port], words].concat())?;
        let clients = Self { host, process };
        clients.await_answers(1)?;
        Ok(clients)
    }

    /// The last report.
    pub(crate) fn report(&self) -> Result<Report, Failed> {
        self.report_after(0)
    }

    /// The last report, if it is not among the first `told`.
    fn report_after(&self, told: usize) -> Result<Report, Failed> {
        until("a report of the clients", SOON, || {
            let output = self.host.read(&self.process.output);
            let whole: Vec<&str> = output.lines().take(output.matches('\n').count()).collect();
            whole.get(told..)?.last().and_then(|line| serde_json::from_str(line).ok())
        })
        .map_err(|failed| {
            let said = self.host.read(&self.process.output);
            format!("{}: {said}", failed.message().unwrap_or_default()).into()
        })
    }

    /// Waits until every connection but the idle ones has had `count` more answers. A lost connection is a failure.
    pub(crate) fn await_answers(&self, count: u64) -> Result<Report, Failed> {
        // What was told last was counted up to 50 ms ago.
        let told = self.host.read(&self.process.output).matches('\n').count();
        let before = self.report_after(told)?.least;
        let report = until(format_args!("{count} answers on every connection"), SOON, || {
            let report = self.report().ok()?;
            (report.lost > 0 || report.least >= before + count).then_some(report)
        })
        .map_err(|failed| format!("{}: {:?}", failed.message().unwrap_or_default(), self.report()))?;
        ensure!(report.lost == 0, "connections were lost: {:?}, {report:?}", report.errors);
        Ok(report)
    }

    /// Whether no connection is answered for as long as five reports take.
    pub(crate) fn stand_still(&self) -> Result<bool, Failed> {
        let told = || self.host.read(&self.process.output).matches('\n').count();
        let (before, from) = (self.report_after(told())?, told());
        let after = self.report_after(from + 5)?;
        Ok(before.messages == after.messages)
    }

    /// The longest gap is counted from now on.
    pub(crate) fn forget_gap(&self) -> Result<(), Failed> {
        self.host.kill(self.process.pid, "USR1")
    }

    /// Has the idle connections say something, ends the clients, and fails if a connection was lost.
    pub(crate) fn end(self) -> Result<Report, Failed> {
        self.host.kill(self.process.pid, "TERM")?;
        let report = until("the end of the clients", SOON * 4, || self.report().ok().filter(|report| report.done))?;
        ensure!(report.lost == 0, "connections were lost: {report:?}");
        Ok(report)
    }
}
