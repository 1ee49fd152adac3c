//! libcontainer's configuration of a config.json, as runc keeps it in state.json: libcontainer/specconv
//! `CreateLibcontainerConfig`. Compared with what runc 1.1.5 and 1.3.6 write, in tests/build.rs.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::device;
use super::mount::{self, Options};
use super::namespace::NamespaceKind;
use super::problem::Problem;
use super::seccomp;
use super::spec::Spec;

/// All of `config` but what [`super::State::restored`] has to set too: the root file system and the labels.
pub(super) fn config(spec: &Spec, bundle: &Path, id: &str) -> Result<Value, Problem> {
    let value = spec.value();
    let (linux, process) = (&value["linux"], &value["process"]);
    let mut config = json!({
        "no_pivot_root": false,
        "parent_death_signal": 0,
        "umask": process["user"]["umask"],
        "readonlyfs": spec.rootfs_read_only(),
        "rootPropagation": root_propagation(&linux["rootfsPropagation"])?,
        "mounts": list(&value["mounts"]).map(|each| mount(each, bundle)).collect::<Vec<_>>(),
        "devices": devices(linux)?,
        "mount_label": words(&linux["mountLabel"]),
        "hostname": words(&value["hostname"]),
        "namespaces": namespaces(spec),
        "capabilities": capabilities(&process["capabilities"]),
        "networks": networks(spec),
        "routes": null,
        "cgroups": cgroups(spec, id)?,
        "uid_mappings": mappings(&linux["uidMappings"]),
        "gid_mappings": mappings(&linux["gidMappings"]),
        "mask_paths": linux["maskedPaths"],
        "readonly_paths": linux["readonlyPaths"],
        "sysctl": linux["sysctl"],
        "seccomp": seccomp::filter(&linux["seccomp"])?,
        "no_new_privileges": process["noNewPrivileges"].as_bool().unwrap_or_default(),
        "Hooks": hooks(&value["hooks"]),
        "version": value["ociVersion"],
        "no_new_keyring": false
    });
    // Absent where there is nothing to say.
    for (to, from) in [
        ("domainname", &value["domainname"]),
        ("oom_score_adj", &process["oomScoreAdj"]),
        ("apparmor_profile", &process["apparmorProfile"]),
        ("process_label", &process["selinuxLabel"]),
        ("scheduler", &process["scheduler"]),
        ("io_priority", &process["ioPriority"]),
        ("time_offsets", &linux["timeOffsets"]),
    ] {
        if !from.is_null() && from.as_str() != Some("") {
            config[to] = from.clone();
        }
    }
    Ok(config)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn root_propagation(value: &Value) -> Result<u64, Problem> {
    match words(value) {
        "" => Ok(0),
        word => mount::propagation(word)
            .ok_or_else(|| Problem::field("linux.rootfsPropagation", format!("is `{word}`, which is none"))),
    }
}

fn mount(value: &Value, bundle: &Path) -> Value {
    let options = Options::parse(list(&value["options"]).filter_map(Value::as_str));
    let path = |name: &str| Path::new(words(&value[name]));
    let made = mount::from_config(path("destination"), words(&value["type"]), path("source"), &options, bundle);
    let device = if options.flags & libc::MS_BIND != 0 { "bind" } else { words(&value["type"]) };
    let propagation = (!options.propagation.is_empty()).then_some(options.propagation);
    json!({
        // UTF-8, as config.json's are; the bundle's own path is looked at with the labels.
        "source": made.source.to_string_lossy(),
        "destination": made.destination.to_string_lossy(),
        "device": device,
        "flags": options.flags,
        "cleared_flags": options.cleared,
        "propagation_flags": propagation,
        "data": options.data,
        "relabel": "",
        "rec_attr": null,
        "extensions": u32::from(options.copy_up)
    })
}

fn devices(linux: &Value) -> Result<Vec<Value>, Problem> {
    let configured: Vec<&Value> = list(&linux["devices"]).collect();
    let is_configured = |path: &str| configured.iter().any(|device| words(&device["path"]) == path);
    let mut devices: Vec<Value> =
        device::NODES.into_iter().filter(|(path, ..)| !is_configured(path)).map(device::node).collect();
    for device in configured {
        let kind = words(&device["type"]);
        let letter = device::letter(kind)
            .filter(|_| !kind.is_empty())
            .ok_or_else(|| Problem::field("linux.devices", format!("has the unknown type `{kind}`")))?;
        let number = |name: &str| device[name].as_i64().unwrap_or_default();
        devices.push(json!({
            "type": letter as u32, "major": number("major"), "minor": number("minor"), "permissions": "",
            "allow": false, "path": words(&device["path"]),
            "file_mode": device["fileMode"].as_u64().unwrap_or(0o666), "uid": number("uid"), "gid": number("gid")
        }));
    }
    Ok(devices)
}

fn namespaces(spec: &Spec) -> Vec<Value> {
    let path = |path: Option<std::path::PathBuf>| path.unwrap_or_default().to_string_lossy().into_owned();
    let namespace = |each: super::Namespace| json!({ "type": each.kind.in_state(), "path": path(each.path) });
    spec.namespaces().into_iter().map(namespace).collect()
}

/// A network namespace of its own gets a loopback device; one that is joined has its own already.
fn networks(spec: &Spec) -> Value {
    let private = |each: &super::Namespace| each.kind == NamespaceKind::Network && each.path.is_none();
    match spec.namespaces().iter().any(private) {
        true => json!([{ "type": "loopback" }]),
        false => Value::Null,
    }
}

fn capabilities(spec: &Value) -> Value {
    if spec.is_null() {
        return Value::Null;
    }
    json!({
        "Bounding": spec["bounding"], "Effective": spec["effective"], "Inheritable": spec["inheritable"],
        "Permitted": spec["permitted"], "Ambient": spec["ambient"]
    })
}

fn mappings(spec: &Value) -> Value {
    if list(spec).next().is_none() {
        return Value::Null;
    }
    let mapping =
        |each: &Value| json!({ "container_id": each["containerID"], "host_id": each["hostID"], "size": each["size"] });
    list(spec).map(mapping).collect()
}

fn hooks(spec: &Value) -> Value {
    let mut hooks = Map::new();
    for name in ["createContainer", "createRuntime", "poststart", "poststop", "prestart", "startContainer"] {
        let hook = |each: &Value| {
            json!({
                "path": each["path"], "args": each["args"], "env": each["env"], "dir": "",
                // Go's Duration counts nanoseconds.
                "timeout": each["timeout"].as_u64().map(|seconds| seconds.saturating_mul(1_000_000_000))
            })
        };
        let list: Vec<Value> = list(&spec[name]).map(hook).collect();
        hooks.insert(name.into(), if list.is_empty() { Value::Null } else { list.into() });
    }
    hooks.into()
}

/// `configs.Cgroup`. Without `cpu_weight`, which each release derives from the shares by another formula, and which
/// `runc update` leaves alone if it is absent.
fn cgroups(spec: &Spec, id: &str) -> Result<Value, Problem> {
    let resources = &spec.value()["linux"]["resources"];
    let (memory, cpu, io) = (&resources["memory"], &resources["cpu"], &resources["blockIO"]);
    let mut rules = Vec::new();
    for rule in list(&resources["devices"]) {
        let wrong = || Problem::field("linux.resources.devices", format!("has the unknown type {}", rule["type"]));
        rules.push(device::configured_rule(rule).ok_or_else(wrong)?);
    }
    rules.extend(device::default_rules());
    let path = match spec.cgroups_path() {
        Some(path) => path.to_string_lossy().into_owned(),
        None => String::new(),
    };
    let mut cgroups = json!({
        "name": if path.is_empty() { id } else { "" },
        "path": path,
        "devices": rules,
        "Systemd": false,
        "Rootless": false
    });
    for (to, from) in [
        ("memory", &memory["limit"]),
        ("memory_reservation", &memory["reservation"]),
        ("memory_swap", &memory["swap"]),
        ("memory_swappiness", &memory["swappiness"]),
        ("memory_check_before_update", &memory["checkBeforeUpdate"]),
        ("oom_kill_disable", &memory["disableOOMKiller"]),
        ("cpu_shares", &cpu["shares"]),
        ("cpu_quota", &cpu["quota"]),
        ("cpu_burst", &cpu["burst"]),
        ("cpu_period", &cpu["period"]),
        ("cpu_rt_quota", &cpu["realtimeRuntime"]),
        ("cpu_rt_period", &cpu["realtimePeriod"]),
        ("cpuset_cpus", &cpu["cpus"]),
        ("cpuset_mems", &cpu["mems"]),
        ("cpu_idle", &cpu["idle"]),
        ("pids_limit", &resources["pids"]["limit"]),
        ("blkio_weight", &io["weight"]),
        ("blkio_leaf_weight", &io["leafWeight"]),
        ("net_cls_classid_u", &resources["network"]["classID"]),
        ("unified", &resources["unified"]),
    ] {
        if !from.is_null() {
            cgroups[to] = from.clone();
        }
    }
    for (to, from, names) in [
        (
            "blkio_weight_device",
            &io["weightDevice"],
            &[("major", "major"), ("minor", "minor"), ("weight", "weight"), ("leafWeight", "leafWeight")][..],
        ),
        ("blkio_throttle_read_bps_device", &io["throttleReadBpsDevice"], RATE),
        ("blkio_throttle_write_bps_device", &io["throttleWriteBpsDevice"], RATE),
        ("blkio_throttle_read_iops_device", &io["throttleReadIOPSDevice"], RATE),
        ("blkio_throttle_write_iops_device", &io["throttleWriteIOPSDevice"], RATE),
        ("hugetlb_limit", &resources["hugepageLimits"], &[("page_size", "pageSize"), ("limit", "limit")][..]),
        (
            "net_prio_ifpriomap",
            &resources["network"]["priorities"],
            &[("interface", "name"), ("priority", "priority")][..],
        ),
    ] {
        let items: Vec<Value> = list(from).map(|item| renamed(item, names)).collect();
        if !items.is_empty() {
            cgroups[to] = items.into();
        }
    }
    if let Some(devices) = resources["rdma"].as_object() {
        let names = &[("hca_handles", "hcaHandles"), ("hca_objects", "hcaObjects")];
        let rdma: Map<String, Value> =
            devices.iter().map(|(name, limit)| (name.clone(), renamed(limit, names))).collect();
        cgroups["rdma"] = rdma.into();
    }
    Ok(cgroups)
}

const RATE: &[(&str, &str)] = &[("major", "major"), ("minor", "minor"), ("rate", "rate")];

fn renamed(item: &Value, names: &[(&str, &str)]) -> Value {
    let pairs = names.iter().filter(|(_, from)| !item[*from].is_null());
    Value::Object(pairs.map(|(to, from)| ((*to).to_owned(), item[*from].clone())).collect())
}
