use std::error::Error as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;

const HERE: Circumstances<'_> =
    Circumstances { role: Role::Target, migration: "0123456789abcdef0123456789abcdef", peer: Some("b"), pid: None };

/// A script in a directory of its own, and its path.
fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("hook");
    // Another thread's child must not hold it open for writing when it is run: whoever writes it is a child itself.
    let made = std::process::Command::new("sh")
        .args(["-c", "printf '%s' \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", text])
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    (home, path)
}

fn hook(path: &Path) -> Hook {
    Hook::new(Stage::Restore, path).unwrap()
}

fn told(error: &Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {source}"))
}

#[test]
fn a_hook_is_a_stage_and_an_absolute_path() {
    for stage in Stage::ALL {
        let hook: Hook = format!("{stage}=/usr/bin/true").parse().unwrap();
        assert_eq!((hook.stage(), hook.program.as_path()), (stage, Path::new("/usr/bin/true")));
    }
    for wrong in [
        "",
        "restore",
        "restore=",
        "restore=true",
        "restore=./true",
        "Restore=/bin/true",
        "later=/bin/true",
        "=/bin/true",
    ] {
        assert!(matches!(wrong.parse::<Hook>(), Err(Error::Option { .. })), "{wrong}");
    }
    // Everything after the first `=` is the path: there are no arguments.
    let odd: Hook = "abort=/srv/a b=c".parse().unwrap();
    assert_eq!(odd.program, Path::new("/srv/a b=c"));
}

#[tokio::test]
async fn it_gets_what_is_documented_and_nothing_else() {
    let (_home, path) = script("#!/bin/sh\n/usr/bin/env | /usr/bin/sort; pwd; echo \"$# $*\"; cat; echo end >&2");
    let said = hook(&path).run(HERE, LIMIT).await.unwrap();
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=") && !line.starts_with("SHLVL="))
        .collect();
    assert_eq!(
        lines,
        [
            "CRR_HOOK_ROLE=target",
            "CRR_HOOK_STAGE=restore",
            "CRR_MIGRATION=0123456789abcdef0123456789abcdef",
            "CRR_PEER=b",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "/",
            "0 ",
            "end",
        ]
    );
    let (_home, path) = script("#!/bin/sh\necho ${CRR_PEER-none} $CRR_PID $CRR_HOOK_ROLE");
    let circumstances = Circumstances { role: Role::Source, peer: None, pid: Some(17), ..HERE };
    assert_eq!(hook(&path).run(circumstances, LIMIT).await.unwrap(), "none 17 source\n");
}

#[tokio::test]
async fn only_those_of_the_stage_run_and_a_failure_ends_it() {
    let (_one, first) = script("#!/bin/sh\necho first");
    let (_two, fails) = script("#!/bin/sh\necho why >&2; exit 3");
    let (home, last) = script("#!/bin/sh\n>\"${0%/*}/ran\"");
    let hooks = [hook(&first), Hook::new(Stage::Abort, &last).unwrap(), hook(&fails), hook(&last)];
    let error = run(&hooks, Stage::Restore, HERE, LIMIT).await.unwrap_err();
    assert!(told(&error).ends_with("exit status: 3: why"), "{}", told(&error));
    assert!(!home.path().join("ran").exists());
    assert_eq!(run(&hooks[..2], Stage::Restore, HERE, LIMIT).await.unwrap(), ["first\n"]);
    assert_eq!(run(&hooks, Stage::Commit, HERE, LIMIT).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn one_that_takes_too_long_is_killed_with_what_it_started() {
    let (home, path) = script("#!/bin/sh\nsleep 1000 & echo $! >\"${0%/*}/pid\"; echo waiting; wait");
    let begun = Instant::now();
    let error = hook(&path).run(HERE, Duration::from_millis(500)).await.unwrap_err();
    assert!(told(&error).contains("longer than 0.5 s: waiting"), "{}", told(&error));
    assert!(begun.elapsed() < Duration::from_secs(60));
    let pid = fs::read_to_string(home.path().join("pid")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Its new parent may take a moment to reap it.
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.contains(") S") || stat.contains(") R")
    };
    while runs() {
        assert!(Instant::now() < deadline, "sleep runs on");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_it_leaves_behind_is_not_waited_for_and_much_output_is_cut() {
    let (_home, path) = script("#!/bin/sh\nsleep 3 &\nhead -c 1000000 /dev/zero | tr '\\0' x");
    let begun = Instant::now();
    let said = hook(&path).run(HERE, LIMIT).await.unwrap();
    assert_eq!(said.len(), SAID_LIMIT);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_program_that_others_may_write_or_exchange_is_not_run() {
    let (home, path) = script("#!/bin/sh\n>\"${0%/*}/ran\"");
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let refused = || async {
        let error = hook(&path).run(HERE, LIMIT).await.unwrap_err();
        assert!(matches!(&error, Error::Peer(problem) if matches!(**problem, Problem::Untrusted { .. })), "{error}");
    };
    mode(&path, 0o775);
    refused().await;
    mode(&path, 0o757);
    refused().await;
    mode(&path, 0o755);
    mode(home.path(), 0o777);
    refused().await;
    mode(home.path(), 0o700);
    let link = home.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(hook(&link).check(), Err(Error::Peer(_))), "a link is no program");
    mode(&path, 0o644);
    assert!(matches!(hook(&path).check(), Err(Error::Io { .. })));
    assert!(matches!(hook(&home.path().join("none")).check(), Err(Error::Io { .. })));
    assert!(!home.path().join("ran").exists());
    mode(&path, 0o755);
    hook(&path).run(HERE, LIMIT).await.unwrap();
    assert!(home.path().join("ran").exists());
}
