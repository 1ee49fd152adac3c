//! The device nodes that every container has.

use serde_json::{Value, json};

/// Those that runc makes in every container (libcontainer/specconv `AllowedDevices`), in its order: path, major, minor.
pub(super) const NODES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

/// What runc's state has for "any number".
const ANY: i64 = -1;

/// A node of every container, as state.json has it.
pub(super) fn node((path, major, minor): (&str, i64, i64)) -> Value {
    json!({
        "type": 'c' as u32, "major": major, "minor": minor, "permissions": "rwm", "allow": true,
        "path": path, "file_mode": 0o666, "uid": 0, "gid": 0
    })
}

/// The rules of the devices cgroup that runc adds to those of every configuration, in its order.
pub(super) fn default_rules() -> impl Iterator<Item = Value> {
    let all = [('c', ANY, ANY, "m"), ('b', ANY, ANY, "m")];
    let nodes = NODES.into_iter().map(|(_, major, minor)| ('c', major, minor, "rwm"));
    // Terminals, ptmx, tun.
    let rest = [('c', 136, ANY, "rwm"), ('c', 5, 2, "rwm"), ('c', 10, 200, "rwm")];
    all.into_iter().chain(nodes).chain(rest).map(|(kind, major, minor, access)| rule(kind, major, minor, access, true))
}

pub(super) fn rule(kind: char, major: i64, minor: i64, access: &str, allow: bool) -> Value {
    json!({ "type": kind as u32, "major": major, "minor": minor, "permissions": access, "allow": allow })
}

/// The letter of a device's type in config.json; `u` is an old word for `c`.
pub(super) fn letter(kind: &str) -> Option<char> {
    match kind {
        "" | "a" => Some('a'),
        "b" => Some('b'),
        "c" | "u" => Some('c'),
        "p" => Some('p'),
        _ => None,
    }
}

/// A rule of `linux.resources.devices`.
pub(super) fn configured_rule(rule_in: &Value) -> Option<Value> {
    let number = |name: &str| rule_in[name].as_i64().unwrap_or(ANY);
    let kind = letter(rule_in["type"].as_str().unwrap_or_default())?;
    let access = rule_in["access"].as_str().unwrap_or_default();
    Some(rule(kind, number("major"), number("minor"), access, rule_in["allow"].as_bool().unwrap_or_default()))
}
