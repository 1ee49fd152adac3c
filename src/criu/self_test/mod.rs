//! Whether a CRIU really dumps and restores on this machine: tried, since `criu check` says "Looks good" of some that do not.
//!
//! Three processes, each this program again with a hidden argument, so that whatever happens nothing is left:
//!
//! ```text
//! self_test() ── namespaces: makes new PID, mount, network, IPC and UTS namespaces
//!                └─ trial: PID 1 there; runs CRIU; its end kills all that is in the namespaces
//!                   └─ specimen: memory, a TCP connection, a UDP and a unix socket
//! ```
//!
//! The trial ends when its standard input does, which [`self_test`] holds open.

mod namespaces;
mod specimen;
mod trial;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::suitability::{Verdict, VerdictStep};
use crate::error::{Error, Result};
use crate::escape::escape;
use crate::swrk::PATH;

/// The first argument of a helper process. [`helper`] must be called before a program looks at its arguments.
pub const HELPER_ARGUMENT: &str = "__self-test";

/// Ending the namespaces takes a few milliseconds.
const END: Duration = Duration::from_secs(5);

/// So much of what the helpers write to standard error is kept.
const STDERR_LIMIT: u64 = 4 << 10;

/// Dumps and restores a process of its own with the CRIU `binary`, and says whether it came back as it was.
///
/// Needs root. `program` is one that calls [`helper`] first of all: the crr command.
///
/// # Errors
/// [`Error::Spawn`] if `program` cannot be run. A CRIU that fails, hangs or does not start is a [`Verdict`], no error.
///
/// # Cancellation
/// Dropping the future ends and removes all that the test made.
pub async fn self_test(binary: &Path, program: &Path, deadline: Duration) -> Result<Verdict> {
    let binary = std::path::absolute(binary).map_err(Error::io("find", binary))?;
    let mut child = Command::new(program)
        .arg(HELPER_ARGUMENT)
        .arg("namespaces")
        .arg(&binary)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Spawn { binary: program.to_path_buf(), source })?;
    let lifeline = child.stdin.take();
    let mut steps = Vec::new();
    let ended = timeout(deadline, watch(&mut child, &mut steps)).await;
    drop(lifeline);
    let failure = match ended {
        Ok(failure) => failure,
        Err(_) => {
            if timeout(END, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
            Some(format!("it was not done within {} s", deadline.as_secs()))
        }
    };
    Ok(verdict(steps, failure))
}

/// Collects steps until the helpers end; `None` if they did so in peace.
async fn watch(child: &mut Child, steps: &mut Vec<VerdictStep>) -> Option<String> {
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            steps.extend(serde_json::from_str::<VerdictStep>(&line).ok());
        }
    }
    let mut stderr = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        let _ = pipe.take(STDERR_LIMIT).read_to_end(&mut stderr).await;
    }
    match child.wait().await {
        Ok(status) if status.success() => None,
        Ok(status) => {
            let text = String::from_utf8_lossy(&stderr);
            Some(format!("the test ended with {status} {}", escape(text.lines().last().unwrap_or_default())))
        }
        Err(error) => Some(error.to_string()),
    }
}

fn verdict(steps: Vec<VerdictStep>, failure: Option<String>) -> Verdict {
    let failed = steps.iter().find_map(|step| Some(format!("{}: {}", step.name, step.failure.as_ref()?)));
    let last = steps.last().map_or("nothing", |step| step.name.as_str());
    let unfinished = failure.map(|failure| format!("{} (done so far: {last})", failure.trim()));
    // A helper that was killed before it said anything ends in silence.
    let missing = (last != trial::LAST_STEP).then(|| format!("the test ended early (done so far: {last})"));
    let why = failed.or(unfinished).or(missing);
    Verdict { suits: why.is_none(), why: why.unwrap_or_default(), steps }
}

/// Does a helper's work if `arguments`, the program's own, ask for it; `None` otherwise.
///
/// To be called before anything else, above all before threads are started.
pub fn helper(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != HELPER_ARGUMENT {
        return None;
    }
    let (role, value) = (arguments.next(), arguments.next());
    Some(match (role.as_ref().and_then(|role| role.to_str()), value) {
        (Some("namespaces"), Some(binary)) => namespaces::run(&PathBuf::from(binary)),
        (Some("trial"), Some(binary)) => trial::run(&PathBuf::from(binary)),
        (Some("specimen"), Some(address)) => specimen::run(&address.to_string_lossy()),
        _ => ExitCode::from(64),
    })
}

/// Says what became of a step. The reader is gone only if nobody wants to know.
fn say(step: &VerdictStep) {
    use std::io::Write as _;
    let line = serde_json::to_string(step).unwrap_or_default();
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, failure: Option<&str>) -> VerdictStep {
        VerdictStep { name: name.into(), took_ms: 1, failure: failure.map(str::to_owned) }
    }

    #[test]
    fn only_a_test_that_came_to_its_end_passes() {
        let whole = || vec![step("dump", None), step(trial::LAST_STEP, None)];
        assert!(verdict(whole(), None).suits);
        assert_eq!(verdict(vec![step("dump", None)], None).why, "the test ended early (done so far: dump)");
        assert_eq!(verdict(Vec::new(), None).why, "the test ended early (done so far: nothing)");
        assert_eq!(verdict(vec![step("dump", Some("vdso"))], Some("x".into())).why, "dump: vdso");
        assert!(!verdict(whole(), Some("killed".into())).suits);
    }

    #[test]
    fn only_the_hidden_argument_makes_a_helper() {
        let ask = |words: &[&str]| helper(words.iter().map(OsString::from));
        assert!(ask(&["crr", "dump"]).is_none());
        assert!(ask(&["crr"]).is_none());
        assert!(ask(&["crr", HELPER_ARGUMENT]).is_some());
    }

    #[tokio::test]
    async fn a_program_that_is_no_helper_yields_a_verdict_and_one_that_hangs_meets_the_deadline() {
        let silent = self_test(Path::new("criu"), Path::new("/bin/true"), Duration::from_secs(30)).await;
        assert!(!silent.expect("a verdict").suits);
        let scratch = tempfile::tempdir().expect("directory");
        let sleeper = scratch.path().join("sleeper");
        std::fs::write(&sleeper, "#!/bin/sh\nexec cat\n").expect("file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&sleeper, mode).expect("mode");
        let hung = self_test(Path::new("criu"), &sleeper, Duration::from_millis(50)).await.expect("a verdict");
        assert!(hung.why.contains("not done within"), "{}", hung.why);
    }
}
