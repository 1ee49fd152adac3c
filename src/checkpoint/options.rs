//! The options a dump used, as far as its restore, or a repetition, needs them again: an allow-list.
//!
//! Never here: a command to run, a configuration file, hooks, another root, plugin directories, inherited descriptors.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::request::{
    Afterwards, CgroupMode, CgroupRoot, CpuCapabilities, DumpOptions, DumpSwitch, EmptyNamespace, NetworkLock, Tcp,
};

/// What the dump used. Absent keys are CRIU's defaults; an unknown key or word is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordedOptions {
    /// What was switched on, by crr or its caller, in the criu program's words.
    #[serde(skip_serializing_if = "is_default")]
    pub switches: BTreeSet<DumpSwitch>,
    /// Established TCP connections.
    #[serde(skip_serializing_if = "is_default")]
    pub tcp: Tcp,
    /// How the network was locked; absent is CRIU's own choice.
    #[serde(skip_serializing_if = "is_default")]
    pub network_lock: Option<NetworkLock>,
    /// The largest deleted file that went into the images.
    #[serde(skip_serializing_if = "is_default")]
    pub ghost_limit_bytes: Option<u32>,
    /// What comes from outside, in the form that the dump took.
    #[serde(skip_serializing_if = "is_default")]
    pub external: Vec<String>,
    /// Paths that were searched for watched inodes, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub irmap_scan_paths: Vec<String>,
    /// Mount points that were left out, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_mnt: Vec<String>,
    /// File system types that were taken to be mountable again.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_fs: Vec<String>,
    /// Namespaces whose content was left out.
    #[serde(skip_serializing_if = "is_default")]
    pub empty_ns: Vec<EmptyNamespace>,
    /// How far CRIU managed cgroups; absent is CRIU's own choice.
    #[serde(skip_serializing_if = "is_default")]
    pub manage_cgroups: Option<CgroupMode>,
    /// New roots of cgroups, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_roots: Vec<CgroupRoot>,
    /// The controllers that were dumped.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_dump_controllers: Vec<String>,
    /// The properties of cgroups that were dumped.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_props: Option<String>,
    /// What of the CPU was recorded.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu: Option<CpuCapabilities>,
    /// What became of the tree after the dump.
    #[serde(skip_serializing_if = "is_default")]
    pub afterwards: Afterwards,
}

impl RecordedOptions {
    /// What is recorded of the options of a dump.
    pub fn of(options: &DumpOptions) -> Self {
        let DumpOptions {
            pid: _,
            log: _,
            afterwards,
            switches,
            tcp,
            network_lock,
            ghost_limit,
            external,
            cgroups,
            cgroup_props,
            cgroup_props_file: _,
            cgroup_dump_controllers,
            freeze_cgroup: _,
            timeout_s: _,
            parent: _,
            pages_to: _,
            tls: _,
            pidfd_store: _,
            cpu,
            irmap_scan_paths,
            skip_mnt,
            enable_fs,
            empty_ns,
            config_file: _,
        } = options;
        Self {
            switches: switches.clone(),
            tcp: *tcp,
            network_lock: *network_lock,
            ghost_limit_bytes: *ghost_limit,
            external: external.clone(),
            irmap_scan_paths: irmap_scan_paths.clone(),
            skip_mnt: skip_mnt.clone(),
            enable_fs: enable_fs.clone(),
            empty_ns: empty_ns.clone(),
            manage_cgroups: cgroups.mode,
            cgroup_roots: cgroups.roots.clone(),
            cgroup_dump_controllers: cgroup_dump_controllers.clone(),
            cgroup_props: cgroup_props.clone(),
            cpu: *cpu,
            afterwards: *afterwards,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_written_as_nothing() {
        let recorded = RecordedOptions::of(&DumpOptions::new(7));
        assert_eq!(serde_json::to_string(&recorded).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<RecordedOptions>("{}").unwrap(), recorded);
    }

    #[test]
    fn an_option_that_is_not_on_the_list_is_refused() {
        for text in [r#"{"exec":["sh"]}"#, r#"{"root":"/x"}"#, r#"{"config_file":"/x"}"#, r#"{"inherit_fd":[]}"#] {
            let error = serde_json::from_str::<RecordedOptions>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{text}: {error}");
        }
        assert!(serde_json::from_str::<RecordedOptions>(r#"{"switches":["exec-cmd"]}"#).is_err());
    }

    #[test]
    fn every_option_comes_back() {
        let text = |name: &str| vec![name.to_string(), "b".to_string()];
        let mut options = DumpOptions::new(7);
        options.switches.extend(DumpSwitch::ALL);
        options.tcp = Tcp::Close;
        options.ghost_limit = Some(u32::MAX);
        options.irmap_scan_paths = text("/a");
        options.external = text("unix[1]");
        options.skip_mnt = text("/mnt");
        options.enable_fs = text("all");
        options.empty_ns = vec![EmptyNamespace::Network];
        options.network_lock = Some(NetworkLock::Skip);
        options.cgroups.mode = Some(CgroupMode::None);
        options.cgroups.roots = vec![
            CgroupRoot { controller: None, path: "/a".into() },
            CgroupRoot { controller: Some("cpu".into()), path: "/b".into() },
        ];
        options.cgroup_dump_controllers = text("cpu");
        options.cgroup_props = Some("x: y".into());
        options.cpu = Some(CpuCapabilities::None);
        options.afterwards = Afterwards::KeepStopped;
        let recorded = RecordedOptions::of(&options);
        let json = serde_json::to_string(&recorded).unwrap();
        assert_eq!(serde_json::from_str::<RecordedOptions>(&json).unwrap(), recorded);
    }
}
