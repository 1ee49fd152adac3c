//! Who the tasks are, and what they may.

use nix::sys::resource::{Resource, getrlimit};

use super::super::scene::{Findings, Record, Scene};
use super::super::values::{Capability, Range};
use super::super::violation::Line;
use crate::images::Kind;
use crate::images::message::Message;

const UIDS: [&str; 4] = ["uid", "euid", "suid", "fsuid"];
const GIDS: [&str; 4] = ["gid", "egid", "sgid", "fsgid"];
/// The bounding set gives nothing by itself: it is what setuid programs may get, and a login has all of it.
const SETS: [(&str, &str); 4] =
    [("cap_inh", "inheritable"), ("cap_prm", "permitted"), ("cap_eff", "effective"), ("cap_amb", "ambient")];
/// In the order of the kernel's numbers.
const LIMITS: [Resource; 16] = [
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_STACK,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_AS,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
];
/// Clocks that wake the machine: `CLOCK_REALTIME_ALARM`, `CLOCK_BOOTTIME_ALARM`.
const ALARMS: [u64; 2] = [8, 9];
const ZOMBIE: [u64; 2] = [2, 6];
/// `SECCOMP_MODE_FILTER`
const FILTER: u64 = 2;

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for record in scene.of(Kind::Core) {
        let task = record.message.message("tc");
        if let Some(task) = task {
            whole_task(scene, record, task, findings);
        }
        let zombie = task.is_some_and(|task| task.number("task_state").is_some_and(|state| ZOMBIE.contains(&state)));
        match record.message.message("thread_core") {
            Some(thread) => one_thread(scene, record, thread, findings),
            None if zombie => {}
            None => findings.refuse_in(record, Line::Unrestricted, "it does not say who the task is"),
        }
        for timer in record.message.every("posix_timer_entry") {
            clock(scene, record, timer.number("clock_id"), findings);
        }
    }
    for record in scene.of(Kind::Files) {
        for timer in record.message.every("timerfd_entry") {
            clock(scene, record, timer.number("clockid"), findings);
        }
    }
    // Whoever gets the signals of a descriptor gets them from the user who asked for them.
    let tids = scene.tids();
    for record in scene.of(Kind::Files) {
        for owner in record.message.every("fown_entry") {
            let number = |field| owner.number(field).unwrap_or(0);
            if number("pid") == 0 {
                continue;
            }
            for user in ["uid", "euid"] {
                user_id(scene, record, number(user), "signals of a file are sent as user", findings);
            }
            if !tids.contains(&number("pid")) {
                let what = format!("signals of a file go to {}, which is not of the tree", number("pid"));
                findings.refuse_in(record, Line::Unrestricted, what);
            }
        }
    }
}

fn whole_task(scene: &Scene<'_>, record: &Record, task: &Message, findings: &mut Findings<'_>) {
    let login = task.number("loginuid").filter(|login| *login != u64::from(u32::MAX));
    if let Some(login) = login {
        user_id(scene, record, login, "its login is that of user", findings);
    }
    let score = task.number("oom_score_adj").unwrap_or(0) as i64;
    if score < 0 {
        needs(scene, record, "sys_resource", &format!("its OOM score is lowered by {}", -score), findings);
    }
    if task.number("old_seccomp_mode").unwrap_or(0) != 0 {
        findings.refuse_in(record, Line::Unrestricted, "its filters are in a format of old");
    }
    let limits = task.message("rlimits").into_iter().flat_map(|limits| limits.messages("rlimits"));
    for (limit, resource) in limits.zip(LIMITS) {
        let wanted = limit.number("max").unwrap_or(0);
        // A limit that cannot be read is none that could be exceeded.
        let own = getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
        if wanted > own {
            let what = format!("its {resource:?} of {wanted} is above crr's own, {own}");
            needs(scene, record, "sys_resource", &what, findings);
        }
    }
}

fn one_thread(scene: &Scene<'_>, record: &Record, thread: &Message, findings: &mut Findings<'_>) {
    let all = thread.every("creds_entry");
    if all.is_empty() {
        findings.refuse_in(record, Line::Unrestricted, "it does not say who the task is");
    }
    for credentials in &all {
        identity(scene, record, credentials, findings);
    }
    let bound = |credentials: &&Message| credentials.number("no_new_privs").unwrap_or(0) != 0;
    let filtered = thread.number("seccomp_mode").unwrap_or(0) == FILTER;
    if filtered && !all.iter().all(bound) {
        let what = "it has a filter that a setuid program would inherit (no_new_privs is not set)";
        needs(scene, record, "sys_admin", what, findings);
    }
    let nice = thread.number("sched_nice").unwrap_or(0) as i64;
    if nice < 0 {
        needs(scene, record, "sys_nice", &format!("its nice value is {nice}"), findings);
    }
    let policy = thread.number("sched_policy").unwrap_or(0);
    // SCHED_OTHER, SCHED_BATCH and SCHED_IDLE are everybody's.
    if ![0, 3, 5].contains(&policy) {
        needs(scene, record, "sys_nice", &format!("its scheduling policy is {policy}"), findings);
    }
}

fn identity(scene: &Scene<'_>, record: &Record, credentials: &Message, findings: &mut Findings<'_>) {
    let number = |field| credentials.number(field).unwrap_or(0);
    for field in UIDS {
        user_id(scene, record, number(field), &format!("its {field} is"), findings);
    }
    for field in GIDS {
        group_id(scene, record, number(field), &format!("its {field} is"), findings);
    }
    for group in credentials.numbers("groups") {
        group_id(scene, record, group, "it is in the group", findings);
    }
    for (field, name) in SETS {
        let words: Vec<u64> = credentials.numbers(field).collect();
        let set = words.iter().take(2).enumerate().fold(0, |set, (place, word)| set | (word << (32 * place)));
        let beyond = Capability::beyond(&scene.allowed.capabilities, set);
        if !beyond.is_empty() {
            findings.refuse_in(record, Line::Capabilities, format!("its {name} set has {}", beyond.join(", ")));
        }
        if words.iter().skip(2).any(|word| *word != 0) {
            findings.refuse_in(record, Line::Capabilities, format!("its {name} set has more than 64 bits"));
        }
    }
    if number("secbits") != 0 {
        needs(scene, record, "setpcap", &format!("its securebits are {:#x}", number("secbits")), findings);
    }
    if scene.allowed.no_new_privileges && number("no_new_privs") == 0 {
        findings.refuse_in(record, Line::NoNewPrivileges, "it may call setuid programs (no_new_privs is not set)");
    }
    for field in ["lsm_profile", "lsm_sockcreate", "apparmor_data"] {
        let Some(label) = credentials.bytes(field).filter(|label| !label.is_empty()) else { continue };
        let label = String::from_utf8_lossy(label);
        if !scene.allowed.profiles.iter().any(|allowed| *allowed == label) {
            findings.refuse_in(record, Line::Profiles, format!("its {field} is `{label}`"));
        }
    }
}

/// `what` ends where the number follows.
pub(super) fn user_id(scene: &Scene<'_>, record: &Record, user: u64, what: &str, findings: &mut Findings<'_>) {
    if !Range::has(&scene.allowed.uids, user) {
        findings.refuse_in(record, Line::Uids, format!("{what} {user}"));
    }
}

pub(super) fn group_id(scene: &Scene<'_>, record: &Record, group: u64, what: &str, findings: &mut Findings<'_>) {
    if !Range::has(&scene.allowed.gids, group) {
        findings.refuse_in(record, Line::Gids, format!("{what} {group}"));
    }
}

/// What the kernel lets only those do who have a capability.
pub(super) fn needs(scene: &Scene<'_>, record: &Record, capability: &str, what: &str, findings: &mut Findings<'_>) {
    if !Capability::has(&scene.allowed.capabilities, capability) {
        findings.refuse_in(record, Line::Capabilities, format!("{what}, which takes {capability}"));
    }
}

fn clock(scene: &Scene<'_>, record: &Record, clock: Option<u64>, findings: &mut Findings<'_>) {
    if let Some(clock) = clock.filter(|clock| ALARMS.contains(clock)) {
        needs(scene, record, "wake_alarm", &format!("it has a timer of the clock {clock}"), findings);
    }
}
