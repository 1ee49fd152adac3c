//! What the tree as a whole asks for: namespaces, plugins, filters.

use super::super::restrictions::Namespace;
use super::super::scene::{Findings, Scene};
use super::super::values::Capability;
use super::super::violation::Line;
use crate::images::Kind;
use crate::images::message::Message;

/// What a task may share with the host or have of its own. Of the time namespace every restored task gets one: it keeps its
/// clock.
const NAMESPACES: [(&str, &str); 7] = [
    ("pid_ns_id", "PID"),
    ("net_ns_id", "network"),
    ("ipc_ns_id", "IPC"),
    ("uts_ns_id", "UTS"),
    ("mnt_ns_id", "mount"),
    ("user_ns_id", "user"),
    ("cgroup_ns_id", "cgroup"),
];

/// Flags of seccomp(2) that give nobody anything: for all threads, logged, without mitigations.
const FILTER_FLAGS: u64 = 1 | 2 | 4;

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    let mut host = None;
    for record in scene.of(Kind::Inventory) {
        let inventory = &record.message;
        host = host.or(inventory.message("root_ids"));
        for plugin in inventory.every("plugins_entry").iter().flat_map(|plugins| plugins.all_bytes("plugins")) {
            let plugin = String::from_utf8_lossy(plugin);
            findings.refuse_in(record, Line::Unrestricted, format!("it has CRIU load the plugin {plugin}"));
        }
        // It becomes part of a command to nft.
        let run_id = inventory.bytes("dump_criu_run_id").unwrap_or_default();
        if !run_id.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-') {
            let run_id = String::from_utf8_lossy(run_id);
            findings.refuse_in(record, Line::Unrestricted, format!("`{run_id}` is no name of a dump"));
        }
        if inventory.number("allow_uprobes").unwrap_or(0) != 0 {
            findings.refuse_in(record, Line::Unrestricted, "it allows uprobes");
        }
        if inventory.number("pre_dump_mode").is_some() {
            findings.refuse_in(record, Line::Unrestricted, "it is of a pre-dump");
        }
    }
    if scene.of(Kind::Inventory).count() != 1 || scene.of(Kind::Pstree).count() == 0 {
        findings.refuse(
            "inventory.img",
            Line::Unrestricted,
            "inventory and tree are not there, so nothing can be judged",
        );
        return;
    }
    for record in scene.of(Kind::Ids).chain(scene.of(Kind::Core)) {
        for ids in record.message.every("task_kobj_ids_entry") {
            for (field, name) in NAMESPACES.iter().filter(|(field, _)| is_own(ids, host, field)) {
                let allowed = scene.allowed.namespaces.iter().any(|Namespace::Uts| *field == "uts_ns_id");
                if !allowed {
                    findings.refuse_in(record, Line::Namespaces, format!("it has a {name} namespace of its own"));
                }
            }
        }
    }
    for record in scene.of(Kind::Seccomp) {
        for filter in record.message.every("seccomp_filter") {
            let flags = filter.number("flags").unwrap_or(0);
            if flags & !FILTER_FLAGS != 0 && !Capability::has(&scene.allowed.capabilities, "sys_admin") {
                findings.refuse_in(record, Line::Capabilities, format!("a filter has the flags {flags:#x}"));
            }
        }
    }
}

/// CRIU makes a namespace for a task whose number differs from the host's.
fn is_own(ids: &Message, host: Option<&Message>, field: &str) -> bool {
    match host.and_then(|host| host.number(field)) {
        Some(host) => ids.number(field) != Some(host),
        None => true,
    }
}
