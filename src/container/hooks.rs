//! The hooks of a bundle that belong to a restore, `prestart` and `createRuntime`, when the namespaces are there; and `poststop`,
//! when a checkpoint has ended the container, or the restore that waited for its end.
//!
//! Only those of the bundle's config.json, or of what the runtime has made of it: nothing in images or annotations makes crr run
//! a program.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::oci::{Container, Hook, Record, State};

/// How often a hook with a time limit is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// So much of what a hook that failed has said is told.
const SAID_LIMIT: u64 = 4096;

/// What is run when a container is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Poststop {
    hooks: Vec<Hook>,
    /// What each gets.
    state: Value,
    bundle: PathBuf,
}

impl Poststop {
    /// That of a container; `None` if its bundle has none.
    pub(super) fn of(container: &Container) -> Option<Self> {
        let (hooks, version) = match container.record() {
            Record::Runc(state) => return Self::of_runc(state),
            Record::Crun(_, spec) => {
                let config: Value = serde_json::from_slice(spec.bytes()).unwrap_or_default();
                (spec.hooks().poststop, config["ociVersion"].as_str().unwrap_or_default().to_owned())
            }
        };
        let annotations = container.configuration().annotations;
        Self::new(hooks, &version, container.id().as_str(), container.bundle(), annotations.into_iter().collect())
    }

    /// That of a container of runc's.
    pub(super) fn of_runc(state: &State) -> Option<Self> {
        let annotations = state.labels().filter(|(name, _)| *name != "bundle");
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::new(state.poststop(), state.oci_version(), state.id(), state.bundle(), annotations)
    }

    fn new(
        hooks: Vec<Hook>,
        version: &str,
        id: &str,
        bundle: Option<&Path>,
        annotations: BTreeMap<String, String>,
    ) -> Option<Self> {
        let bundle = bundle.unwrap_or(Path::new("/")).to_path_buf();
        let mut state = json!({ "ociVersion": version, "id": id, "status": "stopped", "bundle": bundle });
        if !annotations.is_empty() {
            state["annotations"] = json!(annotations);
        }
        (!hooks.is_empty()).then_some(Self { hooks, state, bundle })
    }

    /// Runs all of them, and says which have failed.
    pub(super) fn run(&self) -> Vec<String> {
        let Self { hooks, state, bundle } = self;
        let place = if bundle.is_dir() { bundle } else { Path::new("/") };
        let failed = hooks.iter().filter_map(|hook| run_one(hook, state, place).err());
        let told = |error: Error| match std::error::Error::source(&error) {
            Some(source) => format!("cannot {error}: {source}"),
            None => error.to_string(),
        };
        failed.map(told).collect()
    }
}

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
