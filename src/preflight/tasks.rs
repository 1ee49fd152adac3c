//! Tasks that CRIU cannot stop, or whose state it does not restore.

use std::time::{Duration, Instant};

use crate::process::{Credentials, Stat, Task, Thread, Tree};

use super::circumstances::Capabilities;
use super::examine::{Examination, described};
use super::sessions::outsider;

/// How long a task has to stay in uninterruptible sleep to count as stuck there: longer than a disk takes.
const STUCK: Duration = Duration::from_millis(30);
const SCHED_DEADLINE: u32 = 6;
const SIGTRAP_BIT: u64 = 1 << (libc::SIGTRAP - 1);

pub(super) fn look(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let own = own_cpus();
    look_at_root(examination);
    for task in &tree.tasks {
        look_at_task(examination, task);
        look_at_affinity(examination, task, &own);
        for thread in &task.threads {
            look_at_thread(examination, task, thread);
        }
    }
    look_for_the_stuck(examination, tree);
}

fn look_at_root(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let root = tree.root();
    let pid = root.pid();
    if root.stat.is_kernel_thread() {
        examination.findings.will_not(
            "kernel-thread",
            pid,
            format!("{} is a thread of the kernel: it has no program that could be saved", described(root)),
            "name the PID of a program",
        );
    } else if root.is_zombie() {
        examination.findings.will_not(
            "root-is-dead",
            pid,
            format!("{} has ended and waits for its parent to notice", described(root)),
            "name the PID of a program that runs",
        );
    }
    if tree.has(examination.circumstances.pid) {
        examination.findings.will_not(
            "crr-inside",
            pid,
            format!("crr itself (process {}) is in the tree below {}", examination.circumstances.pid, described(root)),
            "run crr from a shell outside that tree; setsid does not help, only another parent does",
        );
    }
}

fn look_at_task(examination: &mut Examination<'_>, task: &Task) {
    let pid = task.pid();
    let tracer = task.status.tracer;
    if tracer != 0 {
        examination.findings.will_not(
            "traced",
            pid,
            format!("{} is being traced by {}", described(task), outsider(tracer)),
            "detach the debugger or strace: a task can have one tracer only, and CRIU has to be it",
        );
    }
    if task.unreadable {
        examination.findings.will_not(
            "not-permitted",
            pid,
            format!("{} may not be looked into by this user", described(task)),
            "run crr as root",
        );
    }
    let pending = task.status.pending | task.status.shared_pending;
    if pending & SIGTRAP_BIT != 0 && !task.is_zombie() {
        examination.findings.will_not(
            "pending-sigtrap",
            pid,
            format!("{} has a SIGTRAP pending, which CRIU cannot save", described(task)),
            "let the program take the signal",
        );
    }
    if task.is_zombie() && !task.threads.is_empty() {
        examination.findings.will_not(
            "zombie-leader",
            pid,
            format!("the main thread of {} has ended while {} others run", described(task), task.threads.len()),
            "CRIU cannot save that; the main thread has to wait for the others instead of ending first",
        );
    }
    if task.stat.state == 'T' && tracer == 0 {
        examination.findings.note(
            "stopped",
            pid,
            format!("{} is stopped, and will be restored stopped", described(task)),
            "",
        );
    }
    if task.stat.policy == SCHED_DEADLINE {
        deadline(examination, pid, described(task));
    }
    look_at_credentials(examination, task);
    look_at_shared(examination, task);
}

fn deadline(examination: &mut Examination<'_>, pid: i32, who: String) {
    examination.findings.warn(
        "sched-deadline",
        pid,
        format!("{who} is scheduled under SCHED_DEADLINE"),
        "the dump passes, but it cannot be restored: change the policy first (chrt --other --pid 0 PID)",
    );
}

/// Without CAP_SYS_RESOURCE the kernel shows nobody the limits (prlimit) of a task of another user: CRIU's dump ends there.
fn look_at_credentials(examination: &mut Examination<'_>, task: &Task) {
    let circumstances = examination.circumstances;
    if circumstances.capabilities.has(Capabilities::SYS_RESOURCE) || task.is_zombie() {
        return;
    }
    let Credentials { uids, gids, effective_capabilities, .. } = &task.status.credentials;
    let tree = examination.tree;
    let same_users = task.namespaces.user == tree.own_namespaces.user;
    // Whoever made a user namespace has every capability over those in it. The filesystem IDs, the last ones, do not count.
    let is_other = uids[..3].iter().any(|uid| *uid != circumstances.user)
        || gids[..3].iter().any(|gid| *gid != circumstances.group);
    if same_users && is_other {
        examination.findings.will_not(
            "other-user",
            task.pid(),
            format!(
                "{} runs as user {} and group {}, and crr has no CAP_SYS_RESOURCE",
                described(task),
                ids(uids),
                ids(gids)
            ),
            "run crr with CAP_SYS_RESOURCE, as root normally has it: this machine or container withholds it",
        );
    }
    if same_users && Capabilities(*effective_capabilities).has(Capabilities::SYS_RESOURCE) {
        examination.findings.warn(
            "sys-resource",
            task.pid(),
            format!("{} has the capability CAP_SYS_RESOURCE, which crr lacks", described(task)),
            "restore it where crr has that capability",
        );
    }
}

/// `0`, or `0/1000/1000` where real, effective and saved differ.
fn ids(ids: &[u32; 4]) -> String {
    if ids[..3].iter().all(|id| *id == ids[0]) {
        ids[0].to_string()
    } else {
        format!("{}/{}/{}", ids[0], ids[1], ids[2])
    }
}

/// Processes that share what only threads of one process share for CRIU.
fn look_at_shared(examination: &mut Examination<'_>, task: &Task) {
    let shared = [
        (task.shares_memory_with, "shared-memory-space", "its address space (CLONE_VM, or vfork)"),
        (task.shares_directory_with, "shared-directory", "its working directory and umask (CLONE_FS)"),
    ];
    for (other, id, what) in shared {
        if let Some(other) = other {
            let what = format!("{} shares {what} with {}", described(task), examination.name(other));
            examination.findings.will_not(
                id,
                task.pid(),
                what,
                "CRIU can save that of threads only: wait until one of them has started another program",
            );
        }
    }
}

fn look_at_thread(examination: &mut Examination<'_>, task: &Task, thread: &Thread) {
    let who = || format!("thread {} ({}) of {}", thread.tid, thread.stat.comm, described(task));
    if thread.status.tracer != 0 && thread.status.tracer != task.status.tracer {
        examination.findings.will_not(
            "traced",
            task.pid(),
            format!("{} is being traced by {}", who(), outsider(thread.status.tracer)),
            "detach the debugger or strace",
        );
    }
    if thread.stat.policy == SCHED_DEADLINE {
        deadline(examination, task.pid(), who());
    }
    let differences = thread.namespaces.differences(&task.namespaces);
    if !differences.is_empty() && !task.is_zombie() {
        examination.findings.warn(
            "thread-namespace",
            task.pid(),
            format!("{} is in another {} namespace than its process", who(), differences.join(" and ")),
            "the dump passes, but after the restore it is in that of its process: nothing will say so",
        );
    }
    if thread.status.pending & SIGTRAP_BIT != 0 {
        examination.findings.will_not(
            "pending-sigtrap",
            task.pid(),
            format!("{} has a SIGTRAP pending, which CRIU cannot save", who()),
            "let the program take the signal",
        );
    }
}

/// The CPUs this process may run on, which is what a restored task gets.
fn own_cpus() -> (String, Vec<(String, String)>) {
    let mut status = crate::process::Status::default();
    let text = std::fs::read("/proc/self/status").unwrap_or_default();
    text.split(|byte| *byte == b'\n').for_each(|line| status.take(line));
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let parts = cgroups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    });
    (status.cpus, parts.collect())
}

fn look_at_affinity(examination: &mut Examination<'_>, task: &Task, own: &(String, Vec<(String, String)>)) {
    let (own_cpus, own_cgroups) = own;
    // In a cpuset of its own the list is the cgroup's, which CRIU restores.
    let cpuset = |cgroups: &[(String, String)]| {
        let of = |wanted: &str| {
            let found = cgroups.iter().find(|(names, _)| names.split(',').any(|name| name == wanted));
            found.map(|(_, path)| path.clone())
        };
        of("cpuset").or_else(|| of(""))
    };
    if task.is_zombie() || own_cpus.is_empty() || cpuset(&task.cgroups) != cpuset(own_cgroups) {
        return;
    }
    let bound = std::iter::once(&task.status.cpus).chain(task.threads.iter().map(|thread| &thread.status.cpus));
    if let Some(cpus) = bound.into_iter().find(|cpus| !cpus.is_empty() && *cpus != own_cpus) {
        examination.findings.warn(
            "cpu-affinity",
            task.pid(),
            format!("{} is bound to the CPUs {cpus}, and crr to {own_cpus}", described(task)),
            "CRIU does not save this: after the restore bind it again (taskset -acp CPUS PID), or restore under taskset",
        );
    }
}

/// A task in uninterruptible sleep cannot be stopped, and CRIU gives up after 10 s. A disk lets go in milliseconds; vfork
/// does not, before the child has its program.
fn look_for_the_stuck(examination: &mut Examination<'_>, tree: &Tree) {
    if examination.intent.frozen {
        return;
    }
    let mut suspects: Vec<&Task> = tree.tasks.iter().filter(|task| task.stat.state == 'D').collect();
    let deadline = Instant::now() + STUCK;
    while !suspects.is_empty() && Instant::now() < deadline {
        suspects.retain(|task| {
            let text = std::fs::read(format!("/proc/{}/stat", task.pid())).unwrap_or_default();
            Stat::parse(&text).is_some_and(|stat| stat.state == 'D')
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    for task in suspects {
        let child = tree.tasks.iter().find(|child| child.stat.ppid == task.pid());
        let why = match child {
            Some(child) => format!(", perhaps in vfork until {} starts its program", described(child)),
            None => String::new(),
        };
        examination.findings.will_not(
            "uninterruptible",
            task.pid(),
            format!("{} is in uninterruptible sleep (state D){why}: it cannot be stopped", described(task)),
            "wait until it has left that state; a server or disk that does not answer may be why it is in it",
        );
    }
}
