//! The command line by its words, streams and exit codes. Nothing here needs root or CRIU; what does is in tests/host.

use std::path::Path;
use std::process::{Command, Output};

fn crr(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crr")).args(words).env_remove("CRR_CRIU").output().expect("crr runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    for words in [&["--help"][..], &["-h"], &["--version"], &["help", "dump"], &["dump", "--help"], &["restore", "-h"]]
    {
        let output = crr(words);
        assert_eq!(code(&output), 0, "{words:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}");
    }
    assert_eq!(text(&crr(&["--version"]).stdout), format!("crr {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_exits_with_64_and_says_so_on_standard_error() {
    let wrong: &[&[&str]] = &[
        &[],
        &["dmp"],
        &["dump"],
        &["dump", "--pid", "x", "--dir", "d"],
        &["dump", "--pid", "0", "--dir", "d"],
        &["dump", "--pid", "-1", "--dir", "d"],
        &["dump", "--pid", "1", "--dir", "d", "--tcp-established", "--tcp-close"],
        &["dump", "--pid", "1", "--dir", "d", "--ghost-limit", "5T"],
        &["dump", "--pid", "1", "--dir", "d", "--deadline", "0"],
        &["dump", "--pid", "1", "--dir", "d", "-R", "-s"],
        &["restore"],
        &["restore", "--dir", "d", "--cgroup"],
        &["check", "--for", "flying"],
        &["check", "--dir", "d"],
        &["completions", "tcsh-like"],
    ];
    for words in wrong {
        let output = crr(words);
        assert_eq!(code(&output), 64, "{words:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn spellings_of_criu_and_runc_are_understood() {
    // Each is refused for its PID or DIR, not for its words.
    let absent = "/nonexistent/images";
    let spellings: &[&[&str]] = &[
        &["dump", "-t", "2147483647", "-D", absent, "-j", "-R", "-v4", "-o", "x.log"],
        &["dump", "--tree", "2147483647", "--images-dir", absent, "-vvvv", "--shell-job", "--leave-running"],
        &["dump", "--pid", "2147483647", "--image-path", absent, "--manage-cgroups=soft", "--tcp-skip-in-flight"],
        &["restore", "-D", absent, "-d", "-j", "-v4", "-o", "x.log", "--pidfile", "/nonexistent/pid"],
        &["restore", "--images-dir", absent, "--restore-detached", "--pid-file", "/nonexistent/pid"],
        &["restore", "--image-path", absent, "--detach"],
    ];
    for words in spellings {
        let output = crr(words);
        assert!([66, 73, 77].contains(&code(&output)), "{words:?}: {}: {}", code(&output), text(&output.stderr));
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = crr(&["completions", shell]);
        assert_eq!(code(&output), 0, "{shell}");
        assert!(text(&output.stdout).contains("crr"), "{shell}");
    }
}

#[test]
fn a_man_page_is_printed_and_one_is_written_for_each_command() {
    let page = text(&crr(&["man"]).stdout);
    assert!(page.starts_with(".ie") || page.contains(".TH crr"), "{}", &page[..page.len().min(200)]);
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().to_str().expect("UTF-8");
    assert_eq!(code(&crr(&["man", "--out", path])), 0);
    for page in ["crr.1", "crr-dump.1", "crr-restore.1", "crr-check.1", "crr-explain.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
}

#[test]
fn a_failure_is_one_json_object_with_its_exit_code() {
    let output = crr(&["explain", "/nonexistent/log", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(object["ok"], false);
    assert_eq!(object["exit_code"], code(&output));
    assert!(object["error"].as_str().is_some_and(|error| error.contains("/nonexistent/log")), "{object}");
    assert!(text(&output.stderr).contains("/nonexistent/log"), "a person sees it too");
}

#[test]
fn a_name_from_outside_cannot_drive_the_terminal() {
    let output = crr(&["explain", "/nonexistent/\x1b[31mred"]);
    assert_ne!(code(&output), 0);
    assert!(!output.stderr.contains(&0x1b), "{}", text(&output.stderr));
}

#[test]
fn the_architecture_has_every_command_and_option() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let table = std::fs::read_to_string(file).expect("ARCHITECTURE.md");
    let mut missing = Vec::new();
    let peer = ["peer key", "peer add", "peer remove", "peer list"];
    for command in
        ["check", "run", "dump", "restore", "unlock", "rm", "explain", "completions", "man"].iter().chain(&peer)
    {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = crr(&words);
        assert_eq!(code(&help), 0, "{command}");
        for word in text(&help.stdout).split(|c: char| c.is_whitespace() || ",[]=<>".contains(c)) {
            let is_option =
                word.strip_prefix("--").is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            if is_option && word.len() > 3 && !table.contains(&format!("`{word}`")) {
                missing.push(format!("{command} {word}"));
            }
        }
    }
    missing.sort();
    missing.dedup();
    assert!(missing.is_empty(), "not in ARCHITECTURE.md's table: {}", missing.join(", "));
}

#[test]
fn peers_are_enrolled_listed_and_removed() {
    let home = tempfile::tempdir().expect("directory");
    let dir = home.path().join("crr");
    let peer = |words: &[&str]| {
        let output = crr(&[&["peer", "--config-dir", dir.to_str().expect("UTF-8")], words].concat());
        (code(&output), text(&output.stdout), text(&output.stderr))
    };
    let (status, own, note) = peer(&["key"]);
    assert_eq!(status, 0, "{note}");
    assert!(own.starts_with("SHA256:") && own.trim_end().len() == 50, "{own}");
    assert!(note.contains(&format!("crr peer add NAME {}", own.trim_end())), "{note}");
    assert_eq!(peer(&["key"]).1, own);
    assert_eq!(peer(&["list"]), (0, String::new(), String::new()));

    let other = format!("SHA256:{}", "A".repeat(43));
    assert_eq!(peer(&["add", "b", &other, "--address", "b.example:7420"]).0, 0);
    assert_eq!(peer(&["list"]).1, format!("b  {other}  b.example:7420\n"));
    let listed: serde_json::Value = serde_json::from_str(&peer(&["list", "--json"]).1).expect("JSON");
    assert_eq!(listed["peers"][0]["fingerprint"], other);

    for (words, status) in [
        (&["add", "c", own.trim_end()][..], 64),
        (&["add", "b", &format!("SHA256:{}E", "A".repeat(42))], 83),
        (&["add", "c", &other], 83),
        (&["add", "../c", &other], 64),
        (&["add", "c", "SHA256:AAAA"], 64),
        (&["add", "c", &format!("SHA256:{}E", "A".repeat(42)), "--address", "nowhere"], 64),
        (&["remove", "c"], 66),
    ] {
        let (found, out, error) = peer(words);
        assert_eq!((found, out.as_str()), (status, ""), "{words:?}: {error}");
    }
    assert_eq!(peer(&["remove", "b"]).0, 0);
    assert_eq!(peer(&["list"]).1, "");
}
