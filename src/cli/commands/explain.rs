//! `crr explain LOG|DIR`

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crr::escape::escape;
use crr::log::{Explanation, explain_file, explain_reader, logs_in};
use serde::Serialize;

use super::super::exit::Code;
use super::super::failure::Failure;
use super::super::output::Output;

/// Say what a log of CRIU's means: the line that matters, the cause, and what to do
///
/// Any CRIU's log will do, also one of runc's, Podman's or the criu program's. Of a directory, each file in it that ends
/// in .log is explained, newest first, and what a failed crr dump left as DIR.failed.log.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The log, a directory of logs, or - for standard input
    #[arg(value_name = "LOG|DIR")]
    path: PathBuf,
}

/// A log by its name.
#[derive(Serialize)]
struct Explained {
    log: String,
    #[serde(flatten)]
    explanation: Explanation,
}

impl Explain {
    pub(crate) fn run(self, output: &Output) -> Result<ExitCode, Failure> {
        let logs = if self.path == Path::new("-") {
            let explanation = explain_reader(std::io::stdin().lock())
                .map_err(|source| crr::Error::system("read the log from standard input", source))?;
            vec![Explained { log: "-".to_owned(), explanation }]
        } else {
            explain(&self.path)?
        };
        let text: Vec<String> = logs
            .iter()
            .map(|Explained { log, explanation }| match logs.len() {
                1 => explanation.to_string(),
                _ => format!("{log}:\n{explanation}"),
            })
            .collect();
        output.result(&serde_json::json!({ "ok": true, "logs": logs }), &text.join("\n"));
        Ok(ExitCode::SUCCESS)
    }
}

fn explain(path: &Path) -> Result<Vec<Explained>, Failure> {
    let failed = failed_log(path);
    let mut logs = match path.is_dir() {
        true => logs_in(path)?,
        // A failed dump takes the directory that it made away again.
        false if !path.exists() && failed.exists() => Vec::new(),
        false => return Ok(vec![one(path)?]),
    };
    if failed.exists() {
        logs.insert(0, failed);
    }
    if logs.is_empty() {
        let what = format!("there is no log in `{}`", path.display());
        return Err(
            Failure::new(Code::NotThere, what).hint("Name the log itself: CRIU writes it into its work directory.")
        );
    }
    logs.iter().map(|log| one(log)).collect()
}

fn one(path: &Path) -> Result<Explained, Failure> {
    Ok(Explained { log: escape(path.as_os_str().as_encoded_bytes()), explanation: explain_file(path)? })
}

/// `DIR.failed.log`, beside `DIR`.
fn failed_log(dir: &Path) -> PathBuf {
    // Components drop a slash at the end.
    let mut name = OsString::from(dir.components().as_path());
    name.push(".failed.log");
    PathBuf::from(name)
}
