//! `crr explain`: its words, streams and exit codes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("crr_explain_reads_a_log_of_crius", reads_a_log),
        Trial::test("crr_explain_reads_standard_input", reads_standard_input),
        Trial::test("crr_explain_reads_every_log_of_a_directory", reads_a_directory),
        Trial::test("crr_explain_finds_the_log_of_a_failed_dump", finds_a_failed_dump),
        Trial::test("crr_explain_names_what_is_not_there", names_what_is_not_there),
    ]
}

fn stored(name: &str) -> PathBuf {
    Path::new(super::STORED).join(name)
}

fn explain(arguments: &[&Path]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_crr")).arg("explain").args(arguments).stdin(Stdio::null()).output()
}

fn expect(met: bool, output: &Output) -> Result<(), Failed> {
    if met { Ok(()) } else { Err(format!("unexpected: {output:?}").into()) }
}

fn json(output: &Output) -> Result<serde_json::Value, Failed> {
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn reads_a_log() -> Result<(), Failed> {
    let output = explain(&[&stored("ghost-limit.log")])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told =
        text.contains("2097152 bytes") && text.contains("--ghost-limit 2097152") && text.contains("> Error (criu/");
    expect(output.status.success() && told && output.stderr.is_empty(), &output)?;
    let output = explain(&[&stored("ghost-limit.log"), Path::new("--json")])?;
    let object = json(&output)?;
    expect(object["logs"][0]["known"]["id"] == "ghost-limit" && object["logs"][0]["outcome"] == "failed", &output)
}

fn reads_standard_input() -> Result<(), Failed> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crr"))
        .args(["explain", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no standard input")?.write_all(&fs::read(stored("shell-job.log"))?)?;
    let output = child.wait_with_output()?;
    expect(output.status.success() && json(&output)?["logs"][0]["known"]["id"] == "shell-job", &output)
}

fn reads_a_directory() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    fs::copy(stored("fine-dump.log"), dir.path().join("dump.log"))?;
    fs::copy(stored("pid-taken.log"), dir.path().join("restore.log"))?;
    let output = explain(&[dir.path(), Path::new("--json")])?;
    let object = json(&output)?;
    let logs = object["logs"].as_array().ok_or("no logs")?;
    let of = |name: &str| logs.iter().find(|log| log["log"].as_str().is_some_and(|log| log.ends_with(name)));
    let fine = of("dump.log").is_some_and(|log| log["decisive"].is_null() && log["outcome"] == "finished");
    let taken = of("restore.log").is_some_and(|log| log["known"]["id"] == "pid-taken");
    expect(logs.len() == 2 && fine && taken, &output)
}

fn finds_a_failed_dump() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    fs::copy(stored("file-locks.log"), dir.path().join("img.failed.log"))?;
    for name in ["img", "img/"] {
        let output = explain(&[&dir.path().join(name), Path::new("--json")])?;
        expect(output.status.success() && json(&output)?["logs"][0]["known"]["id"] == "file-locks", &output)?;
    }
    Ok(())
}

fn names_what_is_not_there() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    for path in [dir.path().to_path_buf(), dir.path().join("absent"), dir.path().join("absent.log")] {
        let output = explain(&[&path])?;
        let named = String::from_utf8_lossy(&output.stderr).contains(&*path.to_string_lossy());
        expect(output.status.code() == Some(66) && named && output.stdout.is_empty(), &output)?;
    }
    Ok(())
}
