//! `crr restore --container ID --container ID… --dir DIR`: each from DIR/ID, by a crr of its own.
//!
//! A restore adopts what its CRIU leaves, and kills it where it fails: two of them in one process would not know whose is whose.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Arg;
use crr::oci::Container;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;
use tokio::process::{Child, Command};

use super::super::super::exit::Code;
use super::super::super::failure::Failure;
use super::super::super::output::Output;
use super::super::super::passing::Signals;
use super::super::super::{block_on, findings};

/// Options that each container gets for itself, or that are for all of them together.
const OWN: [&str; 4] = ["container", "dir", "jobs", "json"];

/// One restore of several.
struct Restored {
    id: String,
    /// 128+N for a signal; `None` where it was not begun.
    code: Option<i32>,
    took: Duration,
    pid: Option<i32>,
}

/// Restores the containers, `jobs` at the same time. One that fails does not keep the others from being restored.
pub(super) fn run(
    ids: &[String],
    dir: &Path,
    runtime_root: &Path,
    jobs: Option<u16>,
    signals: Signals,
    output: &Output,
) -> Result<ExitCode, Failure> {
    if let Some(twice) = ids.iter().enumerate().find(|(at, id)| ids[..*at].contains(id)) {
        return Err(Failure::new(Code::Usage, format!("container {} is named twice", twice.1)));
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = jobs.map_or(processors, usize::from);
    let done = block_on(restore_all(ids, dir, runtime_root, jobs, &signals));
    Ok(told(&done?, output).into())
}

async fn restore_all(
    ids: &[String],
    dir: &Path,
    runtime_root: &Path,
    jobs: usize,
    signals: &Signals,
) -> Result<Vec<Restored>, Failure> {
    let words = shared_words(std::env::args_os().skip(1));
    let mut waiting = ids.iter();
    let mut running: Vec<(String, Instant, Child)> = Vec::new();
    let mut done = Vec::new();
    let mut given_up = false;
    loop {
        while running.len() < jobs && !given_up {
            let Some(id) = waiting.next() else { break };
            let mut command = Command::new("/proc/self/exe");
            command.args(&words).arg("--container").arg(id).arg("--dir").arg(dir.join(id));
            // A terminal's signals are passed on from here: once.
            let child = command.process_group(0).spawn();
            let child = child.map_err(|source| crr::Error::system("start crr for a container", source))?;
            running.push((id.clone(), Instant::now(), child));
        }
        if running.is_empty() {
            break;
        }
        let ended = tokio::select! {
            ended = first_to_end(&mut running) => ended,
            signal = signals.ending() => {
                given_up = true;
                pass_on(&running, signal);
                continue;
            }
        };
        let (at, code) = ended?;
        let (id, begun, _) = running.swap_remove(at);
        let pid = (code == 0).then(|| first_process(runtime_root, &id)).flatten();
        done.push(Restored { id, code: Some(code), took: begun.elapsed(), pid });
    }
    done.extend(waiting.map(|id| Restored { id: id.clone(), code: None, took: Duration::ZERO, pid: None }));
    done.sort_by_key(|one| ids.iter().position(|id| *id == one.id));
    Ok(done)
}

/// The PID of a container's first process, by what its restore has written for its runtime.
fn first_process(runtime_root: &Path, id: &str) -> Option<i32> {
    Some(Container::find(Some(runtime_root), &id.parse().ok()?).ok()?.init().pid)
}

/// The words of this command line that are for each container alike.
fn shared_words(mut words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut whole = super::super::super::command();
    // With the options of every command.
    whole.build();
    let command = whole.find_subcommand("restore").unwrap_or(&whole);
    let mut shared = Vec::new();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        // The next word is its value.
        let has_value = |option: &Arg| {
            let is_needed = option.get_num_args().is_none_or(|count| count.min_values() > 0);
            option.get_action().takes_values() && !option.is_require_equals_set() && is_needed
        };
        let is_own = |option: &Arg| OWN.contains(&option.get_id().as_str());
        if let Some(long) = bytes.strip_prefix(b"--").filter(|name| !name.is_empty()) {
            let name = long.split(|byte| *byte == b'=').next().unwrap_or_default();
            let option = std::str::from_utf8(name).ok().and_then(|name| by_name(command, name));
            let value =
                option.filter(|option| has_value(option) && name.len() == long.len()).and_then(|_| words.next());
            if !option.is_some_and(is_own) {
                shared.extend([word].into_iter().chain(value));
            }
        } else if let Some(letters) = bytes.strip_prefix(b"-").filter(|letters| !letters.is_empty()) {
            // Several in one word, of which the last may have the rest, or the next word, as its value.
            let mut kept = vec![b'-'];
            for (at, letter) in letters.iter().enumerate() {
                let option = command.get_arguments().find(|option| option.get_short() == Some(char::from(*letter)));
                let Some(option) = option.filter(|option| option.get_action().takes_values()) else {
                    kept.push(*letter);
                    continue;
                };
                let rest = &letters[at + 1..];
                let value = if rest.is_empty() && has_value(option) { words.next() } else { None };
                if !is_own(option) {
                    kept.push(*letter);
                    kept.extend(rest);
                    shared.push(OsString::from_vec(std::mem::replace(&mut kept, vec![b'-'])));
                    shared.extend(value);
                }
                break;
            }
            if kept.len() > 1 {
                shared.push(OsString::from_vec(kept));
            }
        } else {
            shared.push(word);
        }
    }
    shared
}

/// The option that has this name, or this other name.
fn by_name<'a>(command: &'a clap::Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|option| {
        option.get_long() == Some(name) || option.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

/// Waits for one to end; its place and exit status.
async fn first_to_end(running: &mut [(String, Instant, Child)]) -> Result<(usize, i32), Failure> {
    let mut waits: Vec<_> = running.iter_mut().map(|(_, _, child)| Box::pin(child.wait())).collect();
    let ended = std::future::poll_fn(|context| {
        for (at, wait) in waits.iter_mut().enumerate() {
            if let std::task::Poll::Ready(status) = wait.as_mut().poll(context) {
                return std::task::Poll::Ready(status.map(|status| (at, status)));
            }
        }
        std::task::Poll::Pending
    });
    let (at, status) = ended.await.map_err(|source| crr::Error::system("wait for crr", source))?;
    Ok((at, status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(Code::Internal as i32)))
}

fn pass_on(running: &[(String, Instant, Child)], signal: Signal) {
    for (_, _, child) in running {
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Tells what became of each; the exit code of the first that failed.
fn told(done: &[Restored], output: &Output) -> u8 {
    let mut table = Builder::default();
    table.push_record(["container", "PID", "took", ""]);
    let mut objects = Vec::new();
    for Restored { id, code, took, pid } in done {
        let state = match code {
            Some(0) => String::new(),
            Some(code) => format!("failed with exit status {code}"),
            None => "not begun".into(),
        };
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        table.push_record([
            id.clone(),
            pid.map_or(String::new(), |pid| pid.to_string()),
            findings::time(took_us),
            state,
        ]);
        objects.push(
            json!({ "container": id, "ok": *code == Some(0), "exit_code": code, "pid": pid, "took_us": took_us }),
        );
    }
    let failed = done.iter().find(|one| one.code != Some(0));
    let text = format!("{}\n", table.build().with(Style::blank()));
    output.result(&json!({ "ok": failed.is_none(), "containers": objects }), &text);
    failed.map_or(0, |one| {
        one.code.map_or(Code::Cancelled as u8, |code| u8::try_from(code).unwrap_or(Code::Internal as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_container_gets_the_words_that_are_not_its_own() {
        let given = "--root /r restore -d --container a --dir=D --container=b --jobs 2 -D x -Dy --no-verify --json --stdio null";
        let of = |words: &str| -> Vec<String> {
            let shared = shared_words(words.split(' ').map(OsString::from));
            shared.iter().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(of(given), ["--root", "/r", "restore", "-d", "--no-verify", "--stdio", "null"]);
        // In one word with others, and as a value.
        assert_eq!(
            of("restore -dD x -dDy -sdDz -W -Dw -o log"),
            ["restore", "-d", "-d", "-sd", "-W", "-Dw", "-o", "log"]
        );
        assert_eq!(of("restore --image-path x --images-dir=y -xdW work -v4"), ["restore", "-xdW", "work", "-v4"]);
        assert_eq!(of("restore -dWwork --manage-cgroups --container a"), ["restore", "-dWwork", "--manage-cgroups"]);
    }
}
