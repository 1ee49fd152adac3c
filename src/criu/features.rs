//! The features that the criu program can be asked about, one by one.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::escape::escape;
use crate::swrk::PATH;

/// The slowest takes 60 ms here.
const ANSWER: Duration = Duration::from_secs(20);

/// So many are asked at a time.
const AT_ONCE: usize = 2;

/// CRIU 4.2 knows 45.
const FEATURES_LIMIT: usize = 500;

/// A feature of kernel or machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// CRIU's name for it, such as `mem_dirty_track`.
    pub name: String,
    /// Whether it is there.
    #[serde(flatten)]
    pub state: FeatureState,
}

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum FeatureState {
    /// It is.
    Present,
    /// It is not.
    Absent {
        /// CRIU's words; may be empty.
        why: String,
    },
    /// CRIU did not say.
    Unknown {
        /// Why not.
        why: String,
    },
}

/// Asks the criu program about every feature it names in its help text, and as the first one, `check`, about all that no dump
/// can do without.
///
/// # Errors
/// [`Error::Spawn`] if it cannot be run.
///
/// # Cancellation
/// Dropping the future kills the checks that run.
pub async fn features(binary: &Path) -> Result<Vec<Feature>> {
    let help = run(binary, &["check", "--help"]).await;
    let help = help.map_err(|source| Error::Spawn { binary: binary.to_path_buf(), source })?;
    let mut names = named_in(&String::from_utf8_lossy(&help.stdout)).into_iter();
    let mut running = JoinSet::new();
    let mut found = vec![(0, check(binary, None).await)];
    let mut order = 1;
    loop {
        while running.len() < AT_ONCE {
            let Some(name) = names.next() else { break };
            let (binary, at) = (binary.to_path_buf(), order);
            running.spawn(async move { (at, check(&binary, Some(&name)).await) });
            order += 1;
        }
        match running.join_next().await {
            Some(checked) => found.extend(checked.ok()),
            None => break,
        }
    }
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, feature)| feature).collect())
}

async fn check(binary: &Path, name: Option<&str>) -> Feature {
    let mut arguments = vec!["--no-default-config", "check"];
    arguments.extend(name.iter().flat_map(|name| ["--feature", name]));
    let state = match run(binary, &arguments).await {
        Ok(output) if output.status.success() => FeatureState::Present,
        Ok(output) if output.status.code().is_some() => FeatureState::Absent { why: decisive(&output) },
        Ok(output) => FeatureState::Unknown { why: format!("CRIU died: {}", output.status) },
        Err(error) => FeatureState::Unknown { why: error.to_string() },
    };
    Feature { name: name.unwrap_or("check").to_owned(), state }
}

async fn run(binary: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    let mut command = Command::new(binary);
    command.args(arguments).env_clear().env("PATH", PATH).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(ANSWER, command.output()).await {
        Ok(output) => output,
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("it did not answer within {} s", ANSWER.as_secs()),
        )),
    }
}

/// The last error or warning that says something.
fn decisive(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let says = |line: &&str| !line.trim().is_empty() && !line.contains("RLIMIT_NOFILE");
    escape(text.lines().rev().find(says).unwrap_or_default().trim())
}

/// The features that a help text lists: comma-separated words, behind the option `--feature` and "one of:".
fn named_in(help: &str) -> Vec<String> {
    let mut lines =
        help.lines().skip_while(|line| !(line.trim_start().starts_with("--feature") && line.contains("one of")));
    lines.next();
    let mut names = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if words.is_empty() || !words.iter().all(is_name) || names.len() > FEATURES_LIMIT {
            break;
        }
        names.extend(words.into_iter().map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_ends_where_the_help_goes_on() {
        let help = "\
Check options:
  --all                 same as --extra --experimental
  --feature FEAT        only check a particular feature, one of:
                            mnt_id, mem_dirty_track, 
                            uffd-noncoop, 
                            overlayfs_maps

* Logging:
  -o|--log-file FILE    log file name
";
        assert_eq!(named_in(help), ["mnt_id", "mem_dirty_track", "uffd-noncoop", "overlayfs_maps"]);
        assert_eq!(named_in(""), Vec::<String>::new());
        assert_eq!(named_in("  criu check [--feature FEAT]\n  a, b\n"), Vec::<String>::new());
    }
}
