//! crun's `status`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::descriptors::Descriptors;
use super::file::{self, null_is_default, wrong};
use super::live::{Init, Live};
use super::problem::Problem;
use super::timestamp;
use crate::error::Result;

/// crun's state of one container; beside it lies a copy of the config.json. Everything in the file is kept.
#[derive(Clone, Debug)]
pub struct Status {
    value: Value,
    known: Known,
    descriptors: Option<Descriptors>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Known {
    pid: i32,
    #[serde(default)]
    process_start_time: u64,
    #[serde(default, deserialize_with = "null_is_default")]
    cgroup_path: PathBuf,
    #[serde(default, deserialize_with = "null_is_default")]
    scope: String,
    rootfs: PathBuf,
    #[serde(default)]
    systemd_cgroup: bool,
    bundle: PathBuf,
    #[serde(default, deserialize_with = "null_is_default")]
    created: String,
    #[serde(default, rename = "external_descriptors", deserialize_with = "null_is_default")]
    external_descriptors: String,
}

impl Status {
    /// The file's name, in the container's directory below crun's root.
    pub const NAME: &str = "status";

    /// Reads the status `path`.
    ///
    /// # Errors
    /// [`crate::Error::Io`], and as [`Status::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&file::read(path)?, path)
    }

    /// Understands the content of a status; `path` is for the error.
    ///
    /// # Errors
    /// [`crate::Error::Container`] if it is too large, no JSON, or not as a crun would have written it.
    pub fn parse(content: &[u8], path: &Path) -> Result<Self> {
        Self::from_value(file::json(content, path)?, path).map_err(|problem| wrong(path, problem))
    }

    fn from_value(value: Value, path: &Path) -> Result<Self, Problem> {
        if !value.is_object() {
            return Err(Problem::Malformed("no object".into()));
        }
        let known = Known::deserialize(&value).map_err(|error| Problem::Malformed(error.to_string()))?;
        if known.pid < 0 {
            return Err(Problem::field("pid", "is negative"));
        }
        if !known.bundle.is_absolute() {
            return Err(Problem::field("bundle", "is not absolute"));
        }
        let descriptors = match known.external_descriptors.as_str() {
            "" => None,
            text => Some(
                Descriptors::parse(text.as_bytes(), path)
                    .map_err(|_| Problem::field("external_descriptors", "is no list of three strings"))?,
            ),
        };
        Ok(Self { value, known, descriptors })
    }

    /// Its first process.
    pub fn init(&self) -> Init {
        Init { pid: self.known.pid, start: self.known.process_start_time }
    }

    /// Its cgroup below its hierarchy's mount point, such as `/c5`.
    pub fn cgroup(&self) -> &Path {
        &self.known.cgroup_path
    }

    /// Whether its cgroup is systemd's to make and remove.
    pub fn systemd_cgroup(&self) -> bool {
        self.known.systemd_cgroup || !self.known.scope.is_empty()
    }

    /// Its bundle, absolute.
    pub fn bundle(&self) -> &Path {
        &self.known.bundle
    }

    /// Its root file system, absolute; the file has it relative to the bundle.
    pub fn rootfs(&self) -> PathBuf {
        self.known.bundle.join(&self.known.rootfs)
    }

    /// When it was made, RFC 3339.
    pub fn created(&self) -> &str {
        &self.known.created
    }

    /// What descriptors 0 to 2 were at the start.
    pub fn descriptors(&self) -> Option<&Descriptors> {
        self.descriptors.as_ref()
    }

    /// The status of a container that has been restored from a checkpoint of this one.
    ///
    /// # Errors
    /// [`crate::Error::Container`] for a path that is not UTF-8.
    pub fn restored(&self, live: &Live) -> Result<Self> {
        finish(self.value.clone(), live)
    }

    /// The status of a container that has been restored from a checkpoint without one.
    ///
    /// # Errors
    /// [`crate::Error::Container`] for a path that is not UTF-8.
    pub fn build(live: &Live) -> Result<Self> {
        let value = serde_json::json!({ "scope": "", "systemd-cgroup": false, "owner": "root", "detached": true });
        finish(value, live)
    }

    /// The content of the file.
    pub fn to_json(&self) -> String {
        self.value.to_string()
    }

    /// Writes `directory/status`, whole or not at all; crun also wants the bundle's config.json beside it.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn write(&self, directory: &Path) -> Result<()> {
        file::write(&directory.join(Self::NAME), self.to_json().as_bytes())
    }
}

fn finish(mut value: Value, live: &Live) -> Result<Status> {
    let path = Path::new(Status::NAME);
    for (name, value_of) in [("cgroup-path", &live.cgroup), ("bundle", &live.bundle), ("rootfs", &live.rootfs)] {
        let what = || format!("would be `{}`, which no JSON can hold", value_of.display());
        let text = value_of.to_str().ok_or_else(|| wrong(path, Problem::field(name, what())))?;
        value[name] = Value::from(text);
    }
    // Relative to the bundle, where it lies below.
    if let Some(below) =
        live.rootfs.strip_prefix(&live.bundle).ok().and_then(Path::to_str).filter(|below| !below.is_empty())
    {
        value["rootfs"] = Value::from(below);
    }
    value["pid"] = Value::from(live.init.pid);
    value["process-start-time"] = Value::from(live.init.start);
    value["created"] = Value::from(timestamp::rfc3339(live.created));
    value["external_descriptors"] = Value::from(live.descriptors.to_json());
    Status::from_value(value, path).map_err(|problem| wrong(path, problem))
}
