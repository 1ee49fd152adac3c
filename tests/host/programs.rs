//! The C programs under tests/programs, each compiled once in a run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use libtest_mimic::Failed;
use tempfile::TempDir;

/// The directory of the built programs, and what came of each build.
struct Built {
    directory: TempDir,
    programs: HashMap<String, Result<PathBuf, String>>,
}

static BUILT: Mutex<Option<Built>> = Mutex::new(None);

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

/// The path of a script or other file under tests/programs.
pub(crate) fn file(name: &str) -> PathBuf {
    sources().join(name)
}

/// The executable made of tests/programs/NAME.c, or of all C files in tests/programs/NAME/.
///
/// # Errors
/// What the compiler said, when it refused.
pub(crate) fn program(name: &str) -> Result<PathBuf, Failed> {
    program_with(name, &["-pthread"])
}

/// As [`program`], with other flags for the compiler.
pub(crate) fn program_with(name: &str, flags: &[&str]) -> Result<PathBuf, Failed> {
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Built { directory, programs } = ready(&mut built)?;
    let outcome = programs.entry(name.to_owned()).or_insert_with(|| compile(name, flags, &directory.path().join(name)));
    outcome.clone().map_err(Failed::from)
}

/// The directory that the executables are in.
pub(crate) fn directory() -> Result<PathBuf, Failed> {
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(ready(&mut built)?.directory.path().to_owned())
}

fn ready(built: &mut Option<Built>) -> Result<&mut Built, Failed> {
    if built.is_none() {
        let directory = tempfile::Builder::new().prefix("crr-programs.").tempdir()?;
        *built = Some(Built { directory, programs: HashMap::new() });
    }
    Ok(built.as_mut().ok_or("no directory for programs")?)
}

fn compile(name: &str, flags: &[&str], to: &Path) -> Result<PathBuf, String> {
    let mut inputs = vec![sources().join(format!("{name}.c"))];
    if let Ok(entries) = sources().join(name).read_dir() {
        inputs = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        inputs.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
        inputs.sort();
    }
    let output = Command::new("cc")
        .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(to)
        .args(inputs)
        .args(flags)
        .output()
        .map_err(|error| format!("cannot run cc: {error}"))?;
    if !output.status.success() {
        return Err(format!("cc cannot build {name}:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(to.to_owned())
}

/// Removes what was built.
pub(crate) fn remove() {
    *BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
}
