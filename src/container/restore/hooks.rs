//! The hooks of a bundle that belong to a restore: `prestart` and `createRuntime`, when the namespaces are there.
//!
//! Only those of the bundle's config.json: nothing in images or annotations makes crr run a program.

use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::oci::Hook;

/// How often a hook with a time limit is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// So much of what a hook that failed has said is told.
const SAID_LIMIT: u64 = 4096;

/// Runs them one after the other, each with the container's `state` on its standard input.
///
/// # Errors
/// The first that cannot be run, fails or takes too long.
pub(super) fn run(hooks: &[Hook], state: &serde_json::Value, bundle: &Path) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(hook, state, bundle))
}

fn run_one(hook: &Hook, state: &serde_json::Value, bundle: &Path) -> Result<()> {
    let Hook { path, args, env, timeout } = hook;
    let failed =
        |what: String| Error::system(format!("run the hook `{}`", path.display()), std::io::Error::other(what));
    let memfd = |name: &str| {
        let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC);
        file.map(std::fs::File::from).map_err(|errno| failed(std::io::Error::from(errno).to_string()))
    };
    // Files rather than pipes: a hook need not read, and may leave children behind that hold its output open.
    let (mut input, mut output) = (memfd("crr-hook-state")?, memfd("crr-hook-output")?);
    let copy = |file: &std::fs::File| file.try_clone().map_err(|error| failed(error.to_string()));
    input
        .write_all(state.to_string().as_bytes())
        .and_then(|()| input.rewind())
        .map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(path);
    if let Some(name) = args.first() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    command.args(args.iter().skip(1)).env_clear().current_dir(bundle);
    for variable in env {
        let (name, value) = variable.split_once('=').unwrap_or((variable.as_str(), ""));
        command.env(name, value);
    }
    command.stdin(Stdio::from(copy(&input)?)).stdout(Stdio::from(copy(&output)?)).stderr(Stdio::from(copy(&output)?));
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let status = match timeout {
        None => child.wait().map_err(|error| failed(error.to_string()))?,
        Some(limit) => {
            let deadline = Instant::now() + *limit;
            loop {
                if let Some(status) = child.try_wait().map_err(|error| failed(error.to_string()))? {
                    break status;
                }
                if Instant::now() >= deadline {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("it took longer than {limit:?}")));
                }
                std::thread::sleep(LOOK);
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let _ = output.rewind().and_then(|()| output.take(SAID_LIMIT).read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    Err(failed(format!("{status}: {}", crate::escape::escape(said.trim()))))
}
