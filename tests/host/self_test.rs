//! The self-test of a CRIU: passes with one that works, fails with one that does not, and leaves nothing in either case.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ::crr::criu::{Verdict, self_test};
use libtest_mimic::{Failed, Trial};

use crate::need::Need::{self, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, crr, ensure, need, test};

const REAL: &[Need] = &[Root, Criu, Netns];
const FAKE: &[Need] = &[Root, Netns];
const CLI: &[Need] = &[Root, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("the_criu_of_this_machine_passes_its_self_test", REAL, passes),
        test("a_program_that_is_no_criu_fails_the_self_test", FAKE, fails),
        test("a_criu_that_hangs_meets_the_deadline_and_nothing_is_left", FAKE, hangs),
        test("killing_crr_in_the_self_test_leaves_nothing", CLI, killed),
        test("check_exits_with_69_without_a_criu_and_says_what_to_do", CLI, no_criu),
        test("check_prints_one_json_object_with_a_verdict_for_each_purpose", CLI, json),
    ]
}

fn run(criu: &Path, deadline: Duration) -> Result<Verdict, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(self_test(criu, Path::new(env!("CARGO_BIN_EXE_crr")), deadline))?)
}

fn passes() -> Outcome {
    let verdict = run(&need::criu().ok_or("no criu")?, SOON)?;
    ensure!(verdict.suits, "{}", verdict.why);
    let names: Vec<&str> = verdict.steps.iter().map(|step| step.name.as_str()).collect();
    ensure!(names.contains(&"dump") && names.contains(&"restore"), "it did {names:?}");
    Ok(())
}

fn fails() -> Outcome {
    let (_directory, criu) = script("exit 1")?;
    let verdict = run(&criu, SOON)?;
    ensure!(!verdict.suits && verdict.why.starts_with("dump: "), "{verdict:?}");
    Ok(())
}

fn hangs() -> Outcome {
    let (_directory, criu) = script("sleep 1000")?;
    let verdict = run(&criu, Duration::from_secs(2))?;
    ensure!(verdict.why.contains("not done within 2 s"), "{verdict:?}");
    ensure!(verdict.steps.last().is_some_and(|step| step.name == "start a process"), "{verdict:?}");
    ensure!(with_argument(&criu).is_empty(), "left: {:?}", with_argument(&criu));
    Ok(())
}

fn killed() -> Outcome {
    let (_directory, criu) = script("sleep 1000")?;
    let mut command = crr::command();
    command.args(["check", "--self-test", "--criu"]).arg(&criu);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // The script runs: the specimen is there, and its namespaces are.
    let namespace = until("the self-test to start CRIU", SOON, || {
        let swrk = with_argument(&criu).into_iter().find(|pid| arguments(*pid).iter().any(|word| word == "swrk"))?;
        pid_namespace(swrk)
    });
    child.kill()?;
    child.wait()?;
    let namespace = namespace?;
    until("the namespaces of the self-test to be empty", SOON, || {
        let mut inside = pids().into_iter().filter(|pid| pid_namespace(*pid).as_ref() == Some(&namespace));
        inside.next().is_none().then_some(())
    })?;
    until("the helper outside of them to end", SOON, || with_argument(&criu).is_empty().then_some(()))
}

fn no_criu() -> Outcome {
    let ran = crr::crr(["check", "--criu", "/nonexistent/criu"])?.must_exit(69, "crr check without a CRIU")?;
    ensure!(ran.stdout.contains("plain       no"), "{}", ran.stdout);
    ensure!(ran.stdout.contains("/nonexistent/criu") && ran.stdout.contains("cure: "), "{}", ran.stdout);
    Ok(())
}

fn json() -> Outcome {
    let ran = crr::crr(["check", "--json", "--criu", "/nonexistent/criu"])?.must_exit(69, "crr check --json")?;
    let object: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    let purposes = object["purposes"].as_array().ok_or("no purposes")?;
    let names: Vec<_> = purposes.iter().filter_map(|verdict| verdict["purpose"].as_str()).collect();
    ensure!(names == ["plain", "tcp", "pre-copy", "post-copy", "containers"], "{names:?}");
    ensure!(purposes.iter().all(|verdict| verdict["works"] == false), "{purposes:?}");
    Ok(())
}

/// A program of its own, by whose path its processes are known.
fn script(body: &str) -> Result<(tempfile::TempDir, PathBuf), Failed> {
    let directory = tempfile::Builder::new().prefix("crr-host.").tempdir()?;
    let path = directory.path().join("criu");
    fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok((directory, path))
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn with_argument(word: &Path) -> Vec<i32> {
    pids().into_iter().filter(|pid| arguments(*pid).iter().any(|argument| Path::new(argument) == word)).collect()
}

fn pid_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}
