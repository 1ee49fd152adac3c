//! A seccomp filter of config.json as runc's state has it. `runc exec` puts it on what it starts, so that a state without it
//! would open the container.

use serde_json::{Value, json};

use super::problem::Problem;

/// libcontainer's `configs.Seccomp` of `linux.seccomp` (libcontainer/specconv `SetupSeccomp`).
pub(super) fn filter(spec: &Value) -> Result<Value, Problem> {
    if spec.is_null() {
        return Ok(Value::Null);
    }
    let architectures: Vec<Value> = list(&spec["architectures"])
        .map(|name| known("architecture", name, architecture).map(Value::from))
        .collect::<Result<_, _>>()?;
    let mut syscalls = Vec::new();
    for rule in list(&spec["syscalls"]) {
        let action = known("action", &rule["action"], action)?;
        let arguments: Vec<Value> = list(&rule["args"])
            .map(|argument| {
                Ok(json!({
                    "index": argument["index"],
                    "value": argument["value"],
                    "value_two": argument["valueTwo"].as_u64().unwrap_or_default(),
                    "op": known("op", &argument["op"], operator)?
                }))
            })
            .collect::<Result<_, Problem>>()?;
        // runc has one rule for each name.
        for name in list(&rule["names"]) {
            syscalls.push(json!({
                "name": name, "action": action, "errnoRet": rule["errnoRet"], "args": arguments
            }));
        }
    }
    let mut filter = json!({
        "default_action": known("defaultAction", &spec["defaultAction"], action)?,
        "architectures": architectures,
        "syscalls": syscalls,
        "default_errno_ret": spec["defaultErrnoRet"]
    });
    for (from, to) in [("flags", "flags"), ("listenerPath", "listener_path"), ("listenerMetadata", "listener_metadata")]
    {
        if !spec[from].is_null() {
            filter[to] = spec[from].clone();
        }
    }
    Ok(filter)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn known<T>(what: &str, value: &Value, find: fn(&str) -> Option<T>) -> Result<T, Problem> {
    let wrong = || Problem::field("linux.seccomp", format!("has the unknown {what} {value}"));
    value.as_str().and_then(find).ok_or_else(wrong)
}

fn action(name: &str) -> Option<u32> {
    Some(match name {
        "SCMP_ACT_KILL" => 1,
        "SCMP_ACT_ERRNO" => 2,
        "SCMP_ACT_TRAP" => 3,
        "SCMP_ACT_ALLOW" => 4,
        "SCMP_ACT_TRACE" => 5,
        "SCMP_ACT_LOG" => 6,
        "SCMP_ACT_NOTIFY" => 7,
        "SCMP_ACT_KILL_THREAD" => 8,
        "SCMP_ACT_KILL_PROCESS" => 9,
        _ => return None,
    })
}

fn operator(name: &str) -> Option<u32> {
    Some(match name {
        "SCMP_CMP_EQ" => 1,
        "SCMP_CMP_NE" => 2,
        "SCMP_CMP_GT" => 3,
        "SCMP_CMP_GE" => 4,
        "SCMP_CMP_LT" => 5,
        "SCMP_CMP_LE" => 6,
        "SCMP_CMP_MASKED_EQ" => 7,
        _ => return None,
    })
}

fn architecture(name: &str) -> Option<&'static str> {
    Some(match name {
        "SCMP_ARCH_X86" => "x86",
        "SCMP_ARCH_X86_64" => "amd64",
        "SCMP_ARCH_X32" => "x32",
        "SCMP_ARCH_ARM" => "arm",
        "SCMP_ARCH_AARCH64" => "arm64",
        "SCMP_ARCH_MIPS" => "mips",
        "SCMP_ARCH_MIPS64" => "mips64",
        "SCMP_ARCH_MIPS64N32" => "mips64n32",
        "SCMP_ARCH_MIPSEL" => "mipsel",
        "SCMP_ARCH_MIPSEL64" => "mipsel64",
        "SCMP_ARCH_MIPSEL64N32" => "mipsel64n32",
        "SCMP_ARCH_PPC" => "ppc",
        "SCMP_ARCH_PPC64" => "ppc64",
        "SCMP_ARCH_PPC64LE" => "ppc64le",
        "SCMP_ARCH_RISCV64" => "riscv64",
        "SCMP_ARCH_S390" => "s390",
        "SCMP_ARCH_S390X" => "s390x",
        _ => return None,
    })
}
