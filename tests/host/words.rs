//! The commands by their words, streams and exit codes, as far as they need root or CRIU.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::dumped::start;
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::{Outcome, crr, ensure, need, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("each_command_prints_one_json_object", NEEDS, json),
        test("progress_in_json_is_one_event_a_line", NEEDS, progress),
        test("the_criu_that_is_named_is_taken_or_refused", NEEDS, named_criu),
        test("a_criu_on_path_that_does_not_work_is_passed_over", NEEDS, broken_criu_on_path),
        test("whoever_is_not_root_is_told_so_in_one_line", NEEDS, not_root),
    ]
}

/// The one object that a command printed, which must have these keys.
pub(crate) fn object(ran: &crr::Ran, keys: &[&str]) -> Result<Value, Failed> {
    let object: Value = serde_json::from_str(&ran.stdout).map_err(|error| format!("{error}: {}", ran.stdout))?;
    let given = object.as_object().ok_or("not an object")?;
    for key in keys {
        ensure!(given.contains_key(*key), "no `{key}` in {object}");
    }
    Ok(object)
}

fn run<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Result<crr::Ran, Failed> {
    crr::crr(words)
}

const FAILURE: &[&str] = &["ok", "exit_code", "error", "causes", "findings", "explanation", "state", "cure"];

fn json() -> Outcome {
    let mut victim = start("posix_lock")?;
    let (pid, images, tree) = (victim.pid().to_string(), victim.images(), victim.tree());
    let dir = images.to_str().ok_or("no UTF-8")?;
    let host = run(["check", "--json"])?;
    let host = (object(&host, &["ok", "kernel", "criu", "features", "purposes", "notes", "unknown_locks"])?, host.code);
    ensure!(host.0["ok"] == (host.1 == 0), "exit status {} and {}", host.1, host.0["ok"]);
    let looked =
        object(&run(["check", "--json", "--pid", &pid])?.must_pass("crr check --pid")?, &["ok", "plan", "command"])?;
    ensure!(looked["ok"] == true && looked["plan"]["preflight"]["verdict"] == "works", "{looked}");
    let dry = ["dump", "--json", "--dry-run", "--pid", &pid, "--dir", dir];
    object(&run(dry)?.must_pass("crr dump --dry-run")?, &["ok", "plan", "command"])?;
    ensure!(!images.exists(), "a dry run made its directory");

    let refused = run(["dump", "--json", "--no-auto", "--pid", &pid, "--dir", dir])?.must_exit(79, "--no-auto")?;
    let refused = object(&refused, FAILURE)?;
    ensure!(refused["ok"] == false && refused["exit_code"] == 79, "{refused}");
    ensure!(refused["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "{refused}");
    let refused = run(["dump", "--json", "--no-preflight", "--pid", &pid, "--dir", dir])?.must_exit(80, "by CRIU")?;
    let refused = object(&refused, FAILURE)?;
    ensure!(refused["explanation"].is_object() && !refused["cure"].is_null(), "{refused}");
    victim.self_check()?;
    let explained = object(&run(["explain", "--json", dir])?.must_pass("crr explain")?, &["ok", "logs"])?;
    ensure!(explained["logs"].as_array().is_some_and(|logs| logs.len() == 1), "{explained}");

    let dumped = run(["dump", "--json", "--pid", &pid, "--dir", dir])?.must_pass("crr dump")?;
    let keys = ["ok", "pid", "dir", "tasks", "frozen_us", "memory_bytes", "size_bytes", "options", "findings"];
    let dumped = object(&dumped, &keys)?;
    ensure!(dumped["pid"] == victim.pid() && dumped["dir"] == dir, "{dumped}");
    victim.await_gone(&tree)?;
    let restored = run(["restore", "--json", "-d", "--dir", dir])?.must_pass("crr restore")?;
    let restored = object(&restored, &["ok", "pid", "pids", "cgroup", "notes", "warnings"])?;
    ensure!(restored["pid"] == victim.pid(), "{restored}");
    victim.self_check()?;
    // In the foreground standard output is the tree's.
    let mixed = run(["restore", "--json", "--dir", dir])?.must_exit(64, "no --json-fd")?;
    ensure!(mixed.stderr.contains("--json-fd"), "{}", mixed.stderr);
    let taken = run(["restore", "--json", "-d", "--dir", dir])?.must_exit(83, "a PID that is taken")?;
    ensure!(object(&taken, FAILURE)?["causes"].to_string().contains(&pid), "{}", taken.stdout);

    object(&run(["unlock", "--json", dir])?.must_pass("crr unlock")?, &["ok", "removed", "unread"])?;
    let removed = object(&run(["rm", "--json", dir])?.must_pass("crr rm")?, &["ok", "removed"])?;
    ensure!(removed["removed"][0] == dir, "{removed}");
    let gone = run(["restore", "--json", "-d", "--dir", dir])?.must_exit(66, "a DIR that is gone")?;
    object(&gone, FAILURE).map(drop)
}

fn progress() -> Outcome {
    let victim = start("plain")?;
    let ran = crr::dump(victim.pid(), &victim.images(), &["--progress", "json", "--json"])?.must_pass("crr dump")?;
    object(&ran, &["ok"])?;
    let mut stages: Vec<String> = Vec::new();
    for line in ran.stderr.lines() {
        let event: Value = serde_json::from_str(line).map_err(|error| format!("`{line}`: {error}"))?;
        ensure!(event["written_bytes"].is_u64() && event["estimated_bytes"].is_u64(), "{event}");
        stages.push(event["stage"].as_str().ok_or("no stage")?.to_owned());
    }
    stages.dedup();
    ensure!(stages == ["preflight", "write", "publish", "sum"], "the stages were {stages:?}");
    Ok(())
}

fn named_criu() -> Outcome {
    let victim = start("plain")?;
    let place = tempfile::tempdir()?;
    let script = |name: &str, text: &str| -> Result<String, Failed> {
        let path = place.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path.to_str().ok_or("no UTF-8")?.to_owned())
    };
    let plain = place.path().join("plain");
    fs::write(&plain, "")?;
    let silent = script("silent", "#!/bin/sh\nexit 0\n")?;
    let images = victim.images();
    let words = ["dump", "--leave-running", "--pid", &victim.pid().to_string(), "--dir"].map(str::to_owned);
    let dump = |criu: Option<&str>, environment: Option<&str>| {
        let mut command = crr::command();
        command.args(&words).arg(&images).env_remove("CRR_CRIU");
        command.args(criu.map(|criu| format!("--criu={criu}")));
        command.envs(environment.map(|criu| ("CRR_CRIU", criu)));
        crr::Running::start(&mut command)?.end(LIMIT)
    };
    for bad in ["/nonexistent/criu", plain.to_str().ok_or("no UTF-8")?, &silent] {
        for (criu, environment) in [(Some(bad), None), (None, Some(bad))] {
            let ran = dump(criu, environment)?.must_exit(69, bad)?;
            ensure!(ran.stderr.contains(bad) && ran.stderr.contains("What to do"), "{}", ran.stderr);
            ensure!(!images.exists(), "a directory was made");
        }
    }
    let good = need::criu().ok_or("no criu")?;
    let good = good.to_str().ok_or("no UTF-8")?;
    dump(Some(good), Some("/nonexistent/criu"))?.must_pass("--criu wins over $CRR_CRIU")?;
    fs::remove_dir_all(&images)?;
    dump(None, Some(good))?.must_pass("$CRR_CRIU is taken")?;
    victim.self_check()
}

fn broken_criu_on_path() -> Outcome {
    let prefix = Path::new(::crr::criu::PREFIX_BINARY);
    ensure!(prefix.exists(), "there is no {}", prefix.display());
    let victim = start("plain")?;
    let place = tempfile::tempdir()?;
    let broken = place.path().join("criu");
    fs::write(&broken, "#!/bin/sh\nexit 3\n")?;
    fs::set_permissions(&broken, Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", place.path().display());
    let with_path = |words: &[&str]| {
        crr::Running::start(crr::command().args(words).env_remove("CRR_CRIU").env("PATH", &path))?.end(LIMIT)
    };
    let images = victim.images();
    let words =
        ["dump", "--leave-running", "--pid", &victim.pid().to_string(), "--dir", images.to_str().ok_or("no UTF-8")?];
    with_path(&words)?.must_pass("a dump with another CRIU")?;
    let host = object(&with_path(&["check", "--json"])?, &["criu"])?;
    let listed = host["criu"].as_array().into_iter().flatten();
    let listed: Vec<_> = listed.filter(|criu| criu["binary"] == broken.to_str().unwrap_or_default()).collect();
    ensure!(listed.len() == 1 && listed[0]["suitability"]["is"] == "unsuitable", "{}", host["criu"]);
    victim.self_check()
}

fn not_root() -> Outcome {
    let victim = start("plain")?;
    let place = tempfile::tempdir()?;
    fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
    let binary = place.path().join("crr");
    fs::copy(env!("CARGO_BIN_EXE_crr"), &binary)?;
    fs::set_permissions(&binary, Permissions::from_mode(0o755))?;
    let pid = victim.pid().to_string();
    let commands: &[&[&str]] = &[
        &["dump", "--pid", &pid, "--dir", "/tmp/crr-not-root"],
        &["restore", "--dir", "/tmp/crr-not-root"],
        &["check", "--pid", &pid],
        &["rm", "/tmp/crr-not-root"],
        &["unlock", "/tmp/crr-not-root"],
    ];
    for words in commands {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(*words);
        let ran = crr::Running::start(&mut command)?.end(LIMIT)?.must_exit(77, &format!("{words:?}"))?;
        ensure!(ran.stderr.lines().count() == 1 && ran.stderr.contains("sudo"), "{words:?}: {}", ran.stderr);
        ensure!(ran.stdout.is_empty(), "{words:?}: {}", ran.stdout);
    }
    ensure!(!Path::new("/tmp/crr-not-root").exists(), "something was made");
    victim.self_check()
}
