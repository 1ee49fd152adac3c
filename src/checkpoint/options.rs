//! The options a dump used, as far as its restore needs them again: an allow-list.
//!
//! Never here: a command to run, a configuration file, hooks, another root, plugin directories, inherited descriptors.

use serde::{Deserialize, Serialize};

/// What the dump used. Absent keys are CRIU's defaults; an unknown key is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordedOptions {
    /// `--shell-job`.
    #[serde(skip_serializing_if = "is_default")]
    pub shell_job: bool,
    /// What became of TCP connections.
    #[serde(skip_serializing_if = "is_default")]
    pub tcp: RecordedTcp,
    /// `--skip-in-flight`.
    #[serde(skip_serializing_if = "is_default")]
    pub tcp_skip_in_flight: bool,
    /// `--ext-unix-sk`.
    #[serde(skip_serializing_if = "is_default")]
    pub ext_unix_sk: bool,
    /// `--file-locks`.
    #[serde(skip_serializing_if = "is_default")]
    pub file_locks: bool,
    /// `--link-remap`.
    #[serde(skip_serializing_if = "is_default")]
    pub link_remap: bool,
    /// `--evasive-devices`.
    #[serde(skip_serializing_if = "is_default")]
    pub evasive_devices: bool,
    /// `--force-irmap`.
    #[serde(skip_serializing_if = "is_default")]
    pub force_irmap: bool,
    /// `--irmap-scan-path`, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub irmap_scan_paths: Vec<String>,
    /// `--ghost-limit`, in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub ghost_limit_bytes: Option<u32>,
    /// `--external`, in the form that the dump took.
    #[serde(skip_serializing_if = "is_default")]
    pub external: Vec<String>,
    /// `--ext-mount-map auto`.
    #[serde(skip_serializing_if = "is_default")]
    pub auto_external_mounts: bool,
    /// `--enable-external-sharing`.
    #[serde(skip_serializing_if = "is_default")]
    pub external_sharing: bool,
    /// `--enable-external-masters`.
    #[serde(skip_serializing_if = "is_default")]
    pub external_masters: bool,
    /// `--skip-mnt`, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_mounts: Vec<String>,
    /// `--enable-fs`, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_filesystems: Vec<String>,
    /// `--empty-ns net`.
    #[serde(skip_serializing_if = "is_default")]
    pub empty_network_namespace: bool,
    /// `--network-lock`; absent is CRIU's own choice.
    #[serde(skip_serializing_if = "is_default")]
    pub network_lock: Option<RecordedLockMethod>,
    /// `--manage-cgroups`; absent is CRIU's own choice.
    #[serde(skip_serializing_if = "is_default")]
    pub manage_cgroups: Option<RecordedCgroupMode>,
    /// `--cgroup-root`, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_roots: Vec<RecordedCgroupRoot>,
    /// `--cgroup-dump-controller`, in order.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_controllers: Vec<String>,
    /// `--cgroup-props`.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_properties: Option<String>,
    /// `--cpu-cap`, CRIU's bits (1 FPU, 2 CPU, 4 instructions, 8 image).
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_cap: Option<u32>,
    /// `--allow-uprobes`.
    #[serde(skip_serializing_if = "is_default")]
    pub allow_uprobes: bool,
    /// `--unprivileged`.
    #[serde(skip_serializing_if = "is_default")]
    pub unprivileged: bool,
    /// What became of the tree after the dump.
    #[serde(skip_serializing_if = "is_default")]
    pub afterwards: RecordedAfterwards,
}

/// What became of TCP connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedTcp {
    /// No option was given.
    #[default]
    Refused,
    /// `--tcp-established`.
    Established,
    /// `--tcp-close`.
    Close,
}

/// How CRIU locked the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedLockMethod {
    /// With iptables rules.
    Iptables,
    /// With an nftables table.
    Nftables,
    /// Not at all.
    Skip,
}

/// How CRIU treats cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedCgroupMode {
    /// Leaves them alone.
    Ignore,
    /// Puts tasks into them, makes none.
    None,
    /// Sets their properties.
    Props,
    /// Makes those that are missing.
    Soft,
    /// Makes all.
    Full,
    /// Makes all, and fails where one exists.
    Strict,
}

/// What became of the tree after the dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedAfterwards {
    /// It was killed.
    #[default]
    Kill,
    /// It ran on (`--leave-running`).
    KeepRunning,
    /// It was left stopped (`--leave-stopped`).
    KeepStopped,
}

/// One `--cgroup-root`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedCgroupRoot {
    /// The controllers, comma-separated; absent is all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub controllers: Option<String>,
    /// The cgroup.
    pub path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_written_as_nothing() {
        assert_eq!(serde_json::to_string(&RecordedOptions::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<RecordedOptions>("{}").unwrap(), RecordedOptions::default());
    }

    #[test]
    fn an_option_that_is_not_on_the_list_is_refused() {
        for text in [r#"{"exec":["sh"]}"#, r#"{"root":"/x"}"#, r#"{"config_file":"/x"}"#, r#"{"inherit_fd":[]}"#] {
            let error = serde_json::from_str::<RecordedOptions>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{text}: {error}");
        }
    }

    #[test]
    fn every_option_comes_back() {
        let text = |name: &str| vec![name.to_string(), "b".to_string()];
        let options = RecordedOptions {
            shell_job: true,
            tcp: RecordedTcp::Close,
            tcp_skip_in_flight: true,
            ext_unix_sk: true,
            file_locks: true,
            link_remap: true,
            evasive_devices: true,
            force_irmap: true,
            irmap_scan_paths: text("/a"),
            ghost_limit_bytes: Some(u32::MAX),
            external: text("unix[1]"),
            auto_external_mounts: true,
            external_sharing: true,
            external_masters: true,
            skip_mounts: text("/mnt"),
            enable_filesystems: text("all"),
            empty_network_namespace: true,
            network_lock: Some(RecordedLockMethod::Skip),
            manage_cgroups: Some(RecordedCgroupMode::None),
            cgroup_roots: vec![
                RecordedCgroupRoot { controllers: None, path: "/a".into() },
                RecordedCgroupRoot { controllers: Some("cpu".into()), path: "/b".into() },
            ],
            cgroup_controllers: text("cpu"),
            cgroup_properties: Some("x: y".into()),
            cpu_cap: Some(0),
            allow_uprobes: true,
            unprivileged: true,
            afterwards: RecordedAfterwards::KeepStopped,
        };
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<RecordedOptions>(&json).unwrap(), options);
    }
}
