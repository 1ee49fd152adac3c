//! The limits of a container's cgroups, from the runtime's state.
//!
//! The runtime has them in its own normal form below `config.cgroups`: 0 or empty stands for "not set".

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::device_filter;

/// A value for a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Which of the container's cgroups: a controller of version 1, or "".
    controller: &'static str,
    file: String,
    value: String,
}

impl Setting {
    fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Self {
        Self { controller, file: file.into(), value: value.to_string() }
    }
}

/// Sets all of them.
///
/// # Errors
/// The first file that the kernel does not take the value for.
pub(super) fn apply(cgroups: &Value, paths: &BTreeMap<String, PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let unified = !paths.keys().any(|name| !name.is_empty() && !name.starts_with("name="));
    let settings = if unified { of_version_2(cgroups) } else { of_version_1(cgroups) };
    for Setting { controller, file, value } in settings {
        let Some(directory) = paths.get(controller) else { continue };
        let path = directory.join(&file);
        match put(&path, &value) {
            // As runc has it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.contains(RESERVED) => {}
            result => result.map_err(|error| (path, error))?,
        }
    }
    if let (true, Some(directory)) = (unified, paths.get("")) {
        device_filter::attach(directory, &devices(cgroups)).map_err(|error| (directory.clone(), error))?;
    }
    Ok(())
}

/// Writes to a file that must be there: the kernel has another error for one that would have to be made.
fn put(path: &Path, value: &str) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.write_all(value.as_bytes())
}

/// Turns on, from the top down, what controllers there are, so that the files of a cgroup of version 2 appear.
pub(super) fn delegate(mount: &Path, directory: &Path) {
    let Ok(below) = directory.strip_prefix(mount) else { return };
    let mut at = mount.to_path_buf();
    for part in below.components() {
        let available = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            // One at a time: a controller that cannot be had here keeps none of the others back.
            let _ = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        at.push(part);
    }
}

fn number(cgroups: &Value, key: &str) -> Option<i64> {
    cgroups.get(key).and_then(Value::as_i64).filter(|number| *number != 0)
}

fn unsigned(cgroups: &Value, key: &str) -> Option<u64> {
    cgroups.get(key).and_then(Value::as_u64).filter(|number| *number != 0)
}

fn text<'a>(cgroups: &'a Value, key: &str) -> Option<&'a str> {
    cgroups.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn of_version_1(cgroups: &Value) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |controller, file: &str, value: Option<String>| {
        all.extend(value.map(|value| Setting::new(controller, file, value)));
    };
    let signed = |key| number(cgroups, key).map(|number| number.to_string());
    let plain = |key| unsigned(cgroups, key).map(|number| number.to_string());
    set("cpuset", "cpuset.cpus", text(cgroups, "cpuset_cpus").map(str::to_owned));
    set("cpuset", "cpuset.mems", text(cgroups, "cpuset_mems").map(str::to_owned));
    // The limit with swap must not be below the one without at any moment: a new cgroup has neither.
    set("memory", "memory.limit_in_bytes", signed("memory"));
    set("memory", "memory.memsw.limit_in_bytes", signed("memory_swap"));
    set("memory", "memory.soft_limit_in_bytes", signed("memory_reservation"));
    let swappiness = cgroups.get("memory_swappiness").and_then(Value::as_u64);
    set("memory", "memory.swappiness", swappiness.map(|number| number.to_string()));
    let no_killer = cgroups.get("oom_kill_disable").and_then(Value::as_bool) == Some(true);
    set("memory", "memory.oom_control", no_killer.then(|| "1".to_owned()));
    set("cpu", "cpu.shares", plain("cpu_shares"));
    set("cpu", "cpu.cfs_period_us", plain("cpu_period"));
    set("cpu", "cpu.cfs_quota_us", signed("cpu_quota"));
    set("cpu", "cpu.rt_period_us", plain("cpu_rt_period"));
    set("cpu", "cpu.rt_runtime_us", signed("cpu_rt_quota"));
    set("pids", "pids.max", number(cgroups, "pids_limit").map(limit_or_max));
    set("blkio", "blkio.weight", plain("blkio_weight"));
    for (key, file) in THROTTLES {
        for device in cgroups.get(key).and_then(Value::as_array).into_iter().flatten() {
            set("blkio", &format!("blkio.{file}"), throttle(device).map(|(device, rate)| format!("{device} {rate}")));
        }
    }
    for (size, bytes) in huge_pages(cgroups) {
        set("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), Some(bytes.to_string()));
        set("hugetlb", &format!("hugetlb.{size}.{RESERVED}limit_in_bytes"), Some(bytes.to_string()));
    }
    set("net_cls", "net_cls.classid", plain("net_cls_classid_u"));
    let devices = devices(cgroups);
    if !devices.is_empty() {
        set("devices", "devices.deny", Some("a".to_owned()));
        for rule in &devices {
            if let Some(line) = rule.line() {
                set("devices", if rule.allow { "devices.allow" } else { "devices.deny" }, Some(line));
            }
        }
    }
    all
}

/// Limits of huge pages: their size as the kernel names it, and bytes.
fn huge_pages(cgroups: &Value) -> Vec<(&str, u64)> {
    let limits = cgroups.get("hugetlb_limit").and_then(Value::as_array).into_iter().flatten();
    limits
        .filter_map(|limit| {
            let size = limit.get("page_size").or_else(|| limit.get("Pagesize"))?.as_str()?;
            Some((size, limit.get("limit").or_else(|| limit.get("Limit"))?.as_u64()?))
        })
        .collect()
}

/// In the names of files that kernels before 5.7 do not have.
const RESERVED: &str = "rsvd.";

const THROTTLES: [(&str, &str); 4] = [
    ("blkio_throttle_read_bps_device", "throttle.read_bps_device"),
    ("blkio_throttle_write_bps_device", "throttle.write_bps_device"),
    ("blkio_throttle_read_iops_device", "throttle.read_iops_device"),
    ("blkio_throttle_write_iops_device", "throttle.write_iops_device"),
];

fn throttle(device: &Value) -> Option<(String, u64)> {
    let field = |names: [&str; 2]| names.iter().find_map(|name| device.get(*name)).and_then(Value::as_u64);
    let (major, minor) = (field(["major", "Major"])?, field(["minor", "Minor"])?);
    Some((format!("{major}:{minor}"), field(["rate", "Rate"])?))
}

fn limit_or_max(number: i64) -> String {
    if number < 0 { "max".into() } else { number.to_string() }
}

fn of_version_2(cgroups: &Value) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |file: &str, value: Option<String>| {
        all.extend(value.map(|value| Setting::new("", file, value)));
    };
    set("cpuset.cpus", text(cgroups, "cpuset_cpus").map(str::to_owned));
    set("cpuset.mems", text(cgroups, "cpuset_mems").map(str::to_owned));
    let memory = number(cgroups, "memory");
    set("memory.max", memory.map(limit_or_max));
    // Version 1's limit is of memory and swap together.
    let swap = match (number(cgroups, "memory_swap"), memory) {
        (Some(both), Some(memory)) if both > 0 && memory > 0 => Some((both - memory).max(0).to_string()),
        (Some(both), _) if both < 0 => Some("max".into()),
        _ => None,
    };
    set("memory.swap.max", swap);
    set("memory.low", number(cgroups, "memory_reservation").map(limit_or_max));
    let weight = unsigned(cgroups, "cpu_weight").or_else(|| unsigned(cgroups, "cpu_shares").map(weight_of_shares));
    set("cpu.weight", weight.map(|weight| weight.to_string()));
    let (quota, period) = (number(cgroups, "cpu_quota"), unsigned(cgroups, "cpu_period"));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        set("cpu.max", Some(format!("{quota} {}", period.unwrap_or(100_000))));
    }
    set("pids.max", number(cgroups, "pids_limit").map(limit_or_max));
    for ((key, _), name) in THROTTLES.iter().zip(["rbps", "wbps", "riops", "wiops"]) {
        for device in cgroups.get(*key).and_then(Value::as_array).into_iter().flatten() {
            set("io.max", throttle(device).map(|(device, rate)| format!("{device} {name}={rate}")));
        }
    }
    for (size, bytes) in huge_pages(cgroups) {
        set(&format!("hugetlb.{size}.max"), Some(bytes.to_string()));
        set(&format!("hugetlb.{size}.{RESERVED}max"), Some(bytes.to_string()));
    }
    // What config.json says in the words of version 2 goes into files of that name, and wins.
    for (file, value) in cgroups.get("unified").and_then(Value::as_object).into_iter().flatten() {
        let is_plain = !file.contains('/') && file.contains('.');
        set(file, value.as_str().filter(|_| is_plain).map(str::to_owned));
    }
    all
}

/// As the runtimes convert it: 2 to 262144 shares are a weight of 1 to 10000.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// A rule about devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceRule {
    /// `a`, `b` or `c`.
    pub(super) kind: char,
    /// `None`: any.
    pub(super) major: Option<u32>,
    /// `None`: any.
    pub(super) minor: Option<u32>,
    /// Of `r`, `w` and `m`.
    pub(super) access: String,
    pub(super) allow: bool,
}

impl DeviceRule {
    /// In the kernel's words; `None` for "all", which is the beginning in any case.
    fn line(&self) -> Option<String> {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let Self { kind, major, minor, access, allow } = self;
        match kind {
            'a' if *allow => Some("a".to_owned()),
            'a' => None,
            _ => Some(format!("{kind} {}:{} {access}", number(*major), number(*minor))),
        }
    }
}

/// The rules about devices, in their order.
fn devices(cgroups: &Value) -> Vec<DeviceRule> {
    let rule = |rule: &Value| {
        let kind = u32::try_from(rule.get("type")?.as_i64()?).ok().and_then(char::from_u32)?;
        let number = |key: &str| rule.get(key).and_then(Value::as_i64).and_then(|number| u32::try_from(number).ok());
        Some(DeviceRule {
            kind: if matches!(kind, 'b' | 'c') { kind } else { 'a' },
            major: number("major"),
            minor: number("minor"),
            access: rule.get("permissions")?.as_str()?.to_owned(),
            allow: rule.get("allow")?.as_bool()?,
        })
    };
    cgroups.get("devices").and_then(Value::as_array).into_iter().flatten().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(of: fn(&Value) -> Vec<Setting>, cgroups: Value) -> Vec<String> {
        of(&cgroups).into_iter().map(|s| format!("{}:{}={}", s.controller, s.file, s.value)).collect()
    }

    #[test]
    fn limits_that_are_not_set_are_left_alone() {
        let cgroups = serde_json::json!({"memory": 0, "pids_limit": 0, "cpuset_cpus": "", "memory_swappiness": null});
        assert_eq!(settings(of_version_1, cgroups.clone()), [""; 0]);
        assert_eq!(settings(of_version_2, cgroups), [""; 0]);
    }

    #[test]
    fn limits_are_put_into_the_files_of_either_version() {
        let cgroups = serde_json::json!({
            "memory": 1_000_000, "memory_swap": 3_000_000, "pids_limit": 20, "cpu_quota": 5000, "cpu_period": 10000,
            "cpu_shares": 1024, "devices": [
                {"type": 97, "major": -1, "minor": -1, "permissions": "rwm", "allow": false},
                {"type": 99, "major": 1, "minor": 3, "permissions": "rwm", "allow": true},
                {"type": 98, "major": -1, "minor": -1, "permissions": "m", "allow": true},
            ],
        });
        assert_eq!(
            settings(of_version_1, cgroups.clone()),
            [
                "memory:memory.limit_in_bytes=1000000",
                "memory:memory.memsw.limit_in_bytes=3000000",
                "cpu:cpu.shares=1024",
                "cpu:cpu.cfs_period_us=10000",
                "cpu:cpu.cfs_quota_us=5000",
                "pids:pids.max=20",
                "devices:devices.deny=a",
                "devices:devices.allow=c 1:3 rwm",
                "devices:devices.allow=b *:* m",
            ]
        );
        assert_eq!(
            settings(of_version_2, cgroups),
            [
                ":memory.max=1000000",
                ":memory.swap.max=2000000",
                ":cpu.weight=39",
                ":cpu.max=5000 10000",
                ":pids.max=20"
            ]
        );
    }

    #[test]
    fn a_file_outside_the_cgroup_is_not_written() {
        let cgroups = serde_json::json!({"unified": {"../memory.max": "1", "memory.high": "5"}});
        assert_eq!(settings(of_version_2, cgroups), [":memory.high=5"]);
    }
}
