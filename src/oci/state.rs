//! runc's `state.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::configuration::{Configuration, IdMapping};
use super::descriptors::Descriptors;
use super::file::{self, null_is_default, wrong};
use super::hook::Hook;
use super::live::{Init, Live};
use super::mount::{Mount, MountKind};
use super::namespace::{Namespace, NamespaceKind};
use super::problem::Problem;
use super::{build, timestamp};
use crate::error::Result;

/// runc's state of one container. Everything in the file is kept, whether crr knows it or not.
///
/// Releases differ: 1.1.5 writes every field, 1.3.6 leaves out those that are empty, and each has some that the other lacks
/// (`premount_cmds`; `cleared_flags`, `domainname`, the time namespace). Both read the other's, as Go's decoder does: an
/// unknown field is skipped, an absent one is zero. crr reads and writes them the same way.
#[derive(Clone, Debug)]
pub struct State {
    value: Value,
    known: Known,
}

#[derive(Clone, Debug, Deserialize)]
struct Known {
    id: String,
    #[serde(default)]
    init_process_pid: i32,
    #[serde(default)]
    init_process_start: u64,
    #[serde(default)]
    created: String,
    config: Config,
    #[serde(default)]
    rootless: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    cgroup_paths: BTreeMap<String, PathBuf>,
    #[serde(default, deserialize_with = "null_is_default")]
    namespace_paths: BTreeMap<String, PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
struct Config {
    rootfs: PathBuf,
    #[serde(default, deserialize_with = "null_is_default")]
    mounts: Vec<ConfigMount>,
    #[serde(default, deserialize_with = "null_is_default")]
    devices: Vec<ConfigDevice>,
    #[serde(default, deserialize_with = "null_is_default")]
    namespaces: Vec<ConfigNamespace>,
    #[serde(default, deserialize_with = "null_is_default")]
    networks: Vec<ConfigNetwork>,
    #[serde(default, deserialize_with = "null_is_default")]
    mask_paths: Vec<PathBuf>,
    #[serde(default, deserialize_with = "null_is_default")]
    readonly_paths: Vec<PathBuf>,
    #[serde(default, deserialize_with = "null_is_default")]
    uid_mappings: Vec<ConfigMapping>,
    #[serde(default, deserialize_with = "null_is_default")]
    gid_mappings: Vec<ConfigMapping>,
    #[serde(default, deserialize_with = "null_is_default")]
    labels: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct ConfigMount {
    #[serde(default)]
    source: PathBuf,
    destination: PathBuf,
    #[serde(default)]
    device: String,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    data: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ConfigDevice {
    path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct ConfigNamespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct ConfigNetwork {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct ConfigMapping {
    container_id: i64,
    host_id: i64,
    size: i64,
}

impl State {
    /// The file's name, in the container's directory below runc's root.
    pub const NAME: &str = "state.json";

    /// Reads the state.json `path`.
    ///
    /// # Errors
    /// [`crate::Error::Io`], and as [`State::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&file::read(path)?, path)
    }

    /// Understands the content of a state.json; `path` is for the error.
    ///
    /// # Errors
    /// [`crate::Error::Container`] if it is too large, no JSON, or not as a runc would have written it.
    pub fn parse(content: &[u8], path: &Path) -> Result<Self> {
        Self::from_value(file::json(content, path)?).map_err(|problem| wrong(path, problem))
    }

    fn from_value(value: Value) -> Result<Self, Problem> {
        // The typed reading would take arrays for both.
        if !value.is_object() || !value["config"].is_object() {
            return Err(Problem::Malformed("no object with an object `config`".into()));
        }
        let known = Known::deserialize(&value).map_err(|error| Problem::Malformed(error.to_string()))?;
        let state = Self { value, known };
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<(), Problem> {
        let config = &self.known.config;
        if self.known.id.is_empty() {
            return Err(Problem::field("id", "is empty"));
        }
        if self.known.init_process_pid < 0 {
            return Err(Problem::field("init_process_pid", "is negative"));
        }
        if !config.rootfs.is_absolute() {
            return Err(Problem::field("config.rootfs", "is not absolute"));
        }
        // A kind that is overlooked is one whose processes end up in the host's.
        if let Some(strange) = config.namespaces.iter().find(|each| NamespaceKind::from_state(&each.kind).is_none()) {
            return Err(Problem::field("config.namespaces", format!("has the unknown kind `{}`", strange.kind)));
        }
        let mut mappings = config.uid_mappings.iter().chain(&config.gid_mappings);
        if mappings.any(|each| [each.container_id, each.host_id, each.size].iter().any(|n| u32::try_from(*n).is_err()))
        {
            return Err(Problem::field("config.uid_mappings or gid_mappings", "has a number that is no id"));
        }
        self.external_descriptors().map(drop)
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.known.id
    }

    /// When it was made, RFC 3339.
    pub fn created(&self) -> &str {
        &self.known.created
    }

    /// Its first process. A container that has none any more has the PID 0 or that of the dead process.
    pub fn init(&self) -> Init {
        Init { pid: self.known.init_process_pid, start: self.known.init_process_start }
    }

    /// Its root file system, absolute.
    pub fn rootfs(&self) -> &Path {
        &self.known.config.rootfs
    }

    /// Its bundle, which is a label.
    pub fn bundle(&self) -> Option<&Path> {
        self.label("bundle").map(Path::new)
    }

    /// The value of a label. Annotations are labels, too.
    pub fn label(&self, name: &str) -> Option<&str> {
        // The bundle's comes last, and an annotation may have that name.
        self.labels().rev().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The hooks to be run when it is gone.
    pub fn poststop(&self) -> Vec<Hook> {
        let hooks = self.value["config"]["Hooks"]["poststop"].as_array().into_iter().flatten();
        // Its times are Go's, in nanoseconds.
        let timeout = |value: &Value| value["timeout"].as_u64().map(Duration::from_nanos);
        hooks.map(|value| Hook { timeout: timeout(value), ..super::spec::hook(value) }).collect()
    }

    /// The version of the OCI's runtime specification that its bundle is written by.
    pub fn oci_version(&self) -> &str {
        self.value["config"]["version"].as_str().unwrap_or_default()
    }

    /// All labels: the annotations of config.json, and the bundle.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.known.config.labels.iter().map(|label| label.split_once('=').unwrap_or((label, "")))
    }

    /// Whether a user other than root made it.
    pub fn rootless(&self) -> bool {
        self.known.rootless
    }

    /// Whether its cgroup is systemd's to make and remove.
    pub fn systemd_cgroup(&self) -> bool {
        let cgroups = &self.value["config"]["cgroups"];
        ["Systemd", "systemd"].iter().any(|name| cgroups[name].as_bool().unwrap_or_default())
    }

    /// The full path of its cgroup in each hierarchy: by controller for v1, with the key `""` for the unified one.
    pub fn cgroup_paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.known.cgroup_paths
    }

    /// Its namespaces' files in /proc, by the names of [`NamespaceKind::in_state`].
    pub fn namespace_paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.known.namespace_paths
    }

    /// The types of the networks that libcontainer itself sets up: `loopback`, and `veth` for those that use it as a library.
    pub fn networks(&self) -> impl Iterator<Item = &str> {
        self.known.config.networks.iter().map(|network| network.kind.as_str())
    }

    /// What descriptors 0 to 2 were at the start; absent in the state of a container that never ran.
    ///
    /// # Errors
    /// A [`Problem`] if there is something else than three strings, which [`State::parse`] has found already.
    pub(super) fn external_descriptors(&self) -> Result<Option<Descriptors>, Problem> {
        match &self.value["external_descriptors"] {
            Value::Null => Ok(None),
            Value::Array(list) if list.is_empty() => Ok(None),
            list => Descriptors::from_value(list)
                .map(Some)
                .map_err(|_| Problem::field("external_descriptors", "is no list of three strings")),
        }
    }

    /// What descriptors 0 to 2 were at the start; absent in the state of a container that never ran.
    pub fn descriptors(&self) -> Option<Descriptors> {
        self.external_descriptors().unwrap_or_default()
    }

    /// What the container was made of.
    pub fn configuration(&self) -> Configuration {
        let config = &self.known.config;
        let mappings = |list: &[ConfigMapping]| {
            // Looked at by `check`.
            let id = |number: i64| u32::try_from(number).unwrap_or_default();
            let convert = |each: &ConfigMapping| IdMapping {
                container: id(each.container_id),
                host: id(each.host_id),
                size: id(each.size),
            };
            list.iter().map(convert).collect()
        };
        let namespace = |each: &ConfigNamespace| {
            let path = (!each.path.as_os_str().is_empty()).then(|| each.path.clone());
            NamespaceKind::from_state(&each.kind).map(|kind| Namespace { kind, path })
        };
        let mount = |each: &ConfigMount| Mount {
            destination: each.destination.clone(),
            source: each.source.clone(),
            kind: match each.flags & libc::MS_BIND {
                0 => MountKind::of(&each.device),
                _ => MountKind::Bind,
            },
            flags: each.flags,
            data: each.data.clone(),
        };
        let annotations = self.labels().filter(|(name, _)| *name != "bundle");
        Configuration {
            rootfs: config.rootfs.clone(),
            mounts: config.mounts.iter().map(mount).collect(),
            masked_paths: config.mask_paths.clone(),
            readonly_paths: config.readonly_paths.clone(),
            devices: config.devices.iter().map(|device| device.path.clone()).collect(),
            namespaces: config.namespaces.iter().filter_map(namespace).collect(),
            uid_mappings: mappings(&config.uid_mappings),
            gid_mappings: mappings(&config.gid_mappings),
            seccomp: !self.value["config"]["seccomp"].is_null(),
            annotations: annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// The state of a container that has been restored from a checkpoint of this one: all that does not belong to the one
    /// life stays as it was.
    ///
    /// # Errors
    /// [`crate::Error::Container`] for a path that is not UTF-8.
    pub fn restored(&self, live: &Live) -> Result<Self> {
        let mut labels: Vec<String> = self.known.config.labels.clone();
        labels.retain(|label| !label.starts_with("bundle="));
        let had_time = self.known.namespace_paths.contains_key(NamespaceKind::Time.in_state());
        finish(self.value.clone(), labels, live, live.time_namespace && had_time)
            .map_err(|problem| wrong(&live.bundle, problem))
    }

    /// The state of a container that has been restored from a checkpoint without a state, as `runc run` would have written it
    /// for this bundle.
    ///
    /// # Errors
    /// [`crate::Error::Container`] if the config.json has what runc's state cannot express.
    pub fn build(bundle: &Bundle, live: &Live) -> Result<Self> {
        let spec = bundle.spec();
        let annotations = spec.configuration(bundle.path()).annotations;
        let labels = annotations.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        build::config(spec, bundle.path(), live.id.as_str())
            .map(|config| json!({ "config": config, "rootless": false, "intel_rdt_path": "" }))
            .and_then(|value| finish(value, labels, live, live.time_namespace))
            .map_err(|problem| wrong(&bundle.path().join(super::Spec::NAME), problem))
    }

    /// The content of the file.
    pub fn to_json(&self) -> String {
        self.value.to_string()
    }

    /// Writes `directory/state.json`, whole or not at all.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn write(&self, directory: &Path) -> Result<()> {
        file::write(&directory.join(Self::NAME), self.to_json().as_bytes())
    }
}

/// Adds what is true of one life of a container only.
fn finish(mut value: Value, mut labels: Vec<String>, live: &Live, time_namespace: bool) -> Result<State, Problem> {
    let kinds = NamespaceKind::ALL.into_iter().filter(|kind| *kind != NamespaceKind::Time || time_namespace);
    let namespaces: BTreeMap<&str, String> =
        kinds.map(|kind| (kind.in_state(), format!("/proc/{}/ns/{}", live.init.pid, kind.in_proc()))).collect();
    let mut cgroups = serde_json::Map::new();
    for (controller, path) in &live.cgroup_paths {
        cgroups.insert(controller.clone(), text("cgroup_paths", path)?.into());
    }
    labels.push(format!("bundle={}", text("bundle", &live.bundle)?));
    value["config"]["rootfs"] = text("config.rootfs", &live.rootfs)?.into();
    value["config"]["labels"] = Value::from(labels);
    value["id"] = Value::from(live.id.as_str());
    value["init_process_pid"] = Value::from(live.init.pid);
    value["init_process_start"] = Value::from(live.init.start);
    value["created"] = Value::from(timestamp::rfc3339(live.created));
    value["cgroup_paths"] = Value::from(cgroups);
    value["namespace_paths"] = json!(namespaces);
    value["external_descriptors"] = live.descriptors.to_value();
    State::from_value(value)
}

/// A path as JSON has it.
fn text<'a>(name: &str, path: &'a Path) -> Result<&'a str, Problem> {
    let wrong = || Problem::field(name, format!("would be `{}`, which no JSON can hold", path.display()));
    path.to_str().ok_or_else(wrong)
}
