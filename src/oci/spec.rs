//! config.json of the OCI's runtime specification.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use oci_spec::runtime;

use super::configuration::{Configuration, IdMapping};
use super::device;
use super::file::{self, wrong};
use super::hook::{Hook, Hooks};
use super::mount::{self, Options};
use super::namespace::{Namespace, NamespaceKind};
use super::problem::Problem;
use crate::error::Result;

/// A config.json that has been checked; its bytes are kept, so that what crr does not know of survives.
#[derive(Clone, Debug)]
pub struct Spec {
    bytes: Vec<u8>,
    /// As it is, for [`super::State::build`].
    value: Value,
    typed: runtime::Spec,
}

impl Spec {
    /// The file's name.
    pub const NAME: &str = "config.json";

    /// Reads the config.json `path`.
    ///
    /// # Errors
    /// [`crate::Error::Io`], and as [`Spec::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(file::read(path)?, path)
    }

    /// Understands the content of a config.json; `path` is for the error.
    ///
    /// # Errors
    /// [`crate::Error::Container`] if it is too large, malformed, or has what no runtime can make a container of.
    pub fn parse(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let value = file::json(&bytes, path)?;
        let typed = serde_json::from_value(value.clone());
        let typed = typed.map_err(|error| wrong(path, Problem::Malformed(error.to_string())))?;
        let spec = Self { bytes, value, typed };
        spec.check().map_err(|problem| wrong(path, problem))?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), Problem> {
        let present = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        if !present(&self.value["ociVersion"]) {
            return Err(Problem::field("ociVersion", "is missing"));
        }
        if !self.value["ociVersion"].as_str().unwrap_or_default().starts_with("1.") {
            return Err(Problem::field("ociVersion", format!("is {}, and crr knows 1.x", self.value["ociVersion"])));
        }
        if !present(&self.value["root"]["path"]) {
            return Err(Problem::field("root.path", "is missing"));
        }
        if self.typed.linux().is_none() {
            return Err(Problem::field("linux", "is missing: it is not a Linux container"));
        }
        for (number, mount) in self.mounts().iter().enumerate() {
            if mount.destination().as_os_str().is_empty() {
                return Err(Problem::field(format!("mounts[{number}].destination"), "is empty"));
            }
        }
        let mut seen = Vec::new();
        for namespace in self.namespaces() {
            if seen.contains(&namespace.kind) {
                return Err(Problem::field(
                    "linux.namespaces",
                    format!("names the {} namespace twice", namespace.kind.in_config()),
                ));
            }
            if namespace.path.as_ref().is_some_and(|path| !path.is_absolute()) {
                let what = format!("has a path for the {} namespace that is not absolute", namespace.kind.in_config());
                return Err(Problem::field("linux.namespaces", what));
            }
            seen.push(namespace.kind);
        }
        let hooks = self.hooks();
        for (name, list) in [("prestart", &hooks.prestart), ("createRuntime", &hooks.create_runtime)] {
            if let Some(hook) = list.iter().find(|hook| !hook.path.is_absolute()) {
                let what = format!("has the path `{}`, which is not absolute", hook.path.display());
                return Err(Problem::field(format!("hooks.{name}"), what));
            }
        }
        Ok(())
    }

    /// The file as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole of it.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// The root file system of a bundle in `bundle`, as the file names it.
    pub fn rootfs(&self, bundle: &Path) -> PathBuf {
        bundle.join(self.typed.root().as_ref().map(|root| root.path().clone()).unwrap_or_default())
    }

    /// Whether the root file system is read-only.
    pub fn rootfs_read_only(&self) -> bool {
        self.typed.root().as_ref().and_then(runtime::Root::readonly).unwrap_or_default()
    }

    /// Whether the container has a terminal.
    pub fn terminal(&self) -> bool {
        self.typed.process().as_ref().and_then(runtime::Process::terminal).unwrap_or_default()
    }

    /// `linux.cgroupsPath`, as it is: below the hierarchies' mount points, or `slice:prefix:name` for systemd.
    pub fn cgroups_path(&self) -> Option<&Path> {
        let path = self.typed.linux().as_ref()?.cgroups_path().as_deref()?;
        (!path.as_os_str().is_empty()).then_some(path)
    }

    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.typed.annotations().as_ref()?.get(name).map(String::as_str)
    }

    /// The hooks that belong to a restore and to a container's end.
    pub fn hooks(&self) -> Hooks {
        let list = |name: &str| -> Vec<Hook> {
            self.value["hooks"][name].as_array().into_iter().flatten().map(hook).collect()
        };
        Hooks { prestart: list("prestart"), create_runtime: list("createRuntime"), poststop: list("poststop") }
    }

    /// What a container of a bundle in `bundle` is made of.
    pub fn configuration(&self, bundle: &Path) -> Configuration {
        let paths = |list: Option<&Vec<String>>| list.into_iter().flatten().map(PathBuf::from).collect();
        let linux = self.typed.linux().as_ref();
        let mappings = |list: Option<&Vec<runtime::LinuxIdMapping>>| {
            let mapping = |mapping: &runtime::LinuxIdMapping| IdMapping {
                container: mapping.container_id(),
                host: mapping.host_id(),
                size: mapping.size(),
            };
            list.into_iter().flatten().map(mapping).collect()
        };
        let configured = linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten();
        let configured: Vec<PathBuf> = configured.map(|device| device.path().clone()).collect();
        let nodes = device::NODES.iter().map(|(path, ..)| PathBuf::from(path));
        let mut annotations: Vec<(String, String)> =
            self.typed.annotations().iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
        annotations.sort();
        Configuration {
            rootfs: self.rootfs(bundle),
            mounts: self.mounts().iter().map(|mount| convert(mount, bundle)).collect(),
            masked_paths: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
            readonly_paths: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
            devices: nodes.filter(|node| !configured.contains(node)).chain(configured.iter().cloned()).collect(),
            namespaces: self.namespaces(),
            uid_mappings: mappings(linux.and_then(|linux| linux.uid_mappings().as_ref())),
            gid_mappings: mappings(linux.and_then(|linux| linux.gid_mappings().as_ref())),
            seccomp: linux.is_some_and(|linux| linux.seccomp().is_some()),
            annotations,
        }
    }

    fn mounts(&self) -> &[runtime::Mount] {
        self.typed.mounts().as_deref().unwrap_or_default()
    }

    pub(super) fn namespaces(&self) -> Vec<Namespace> {
        let list = self.value["linux"]["namespaces"].as_array().into_iter().flatten();
        let namespace = |value: &Value| {
            let path = value["path"].as_str().filter(|path| !path.is_empty()).map(PathBuf::from);
            Some(Namespace { kind: NamespaceKind::from_config(value["type"].as_str()?)?, path })
        };
        list.filter_map(namespace).collect()
    }
}

fn convert(mount: &runtime::Mount, bundle: &Path) -> super::Mount {
    let options = Options::parse(mount.options().iter().flatten().map(String::as_str));
    let kind = mount.typ().as_deref().unwrap_or_default();
    mount::from_config(mount.destination(), kind, mount.source().as_deref().unwrap_or(Path::new("")), &options, bundle)
}

/// A hook, of whose shape the typed reading has made sure.
pub(super) fn hook(value: &Value) -> Hook {
    let words = |name: &str| -> Vec<String> {
        value[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Hook {
        path: value["path"].as_str().unwrap_or_default().into(),
        args: words("args"),
        env: words("env"),
        timeout: value["timeout"].as_u64().map(Duration::from_secs),
    }
}
