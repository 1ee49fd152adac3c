//! What CRIU does not restore, and says nothing of it.
//!
//! What no file of /proc and no call on another process shows cannot be warned of here: a parent death signal
//! (PR_SET_PDEATHSIG; it is in the images, so that a dump and a restore tell it), a denial of writable and executable memory
//! (PR_SET_MDWE), a disabled time stamp counter (PR_SET_TSC).

use crate::process::{Inherited, IoPriority, Task, own_inherited};

use super::examine::{Examination, described};

const SILENT: &str = "the dump passes, but after the restore it has that of whoever restores it: nothing will say so";

pub(super) fn look(examination: &mut Examination<'_>) {
    let own = own_inherited().unwrap_or_default();
    let tree = examination.tree;
    for (index, task) in tree.tasks.iter().enumerate() {
        if task.stat.exit_signal != libc::SIGCHLD && index > 0 {
            look_at_exit_signal(examination, task);
        }
        if task.is_zombie() {
            continue;
        }
        look_at_inherited(examination, task, &own);
        for thread in task.threads.iter().filter(|thread| thread.own_descriptors) {
            examination.findings.warn(
                "thread-descriptors",
                task.pid(),
                format!("thread {} ({}) of {} has descriptors of its own", thread.tid, thread.stat.comm, described(task)),
                "the dump passes, but after the restore it has those of its process, and its own are closed: nothing will say so",
            );
        }
    }
}

fn look_at_exit_signal(examination: &mut Examination<'_>, task: &Task) {
    let parent = examination.name(task.stat.ppid);
    let signal = task.stat.exit_signal;
    examination.findings.warn(
        "exit-signal",
        task.pid(),
        format!("when {} ends, {parent} gets signal {signal} instead of SIGCHLD", described(task)),
        "the dump passes, but after the restore the parent gets SIGCHLD: nothing will say so",
    );
}

fn look_at_inherited(examination: &mut Examination<'_>, task: &Task, own: &Inherited) {
    let pid = task.pid();
    let Inherited { personality, timer_slack_ns, io_priority } = task.inherited;
    if let (Some(bits), Some(own)) = (personality, own.personality) {
        if bits != own {
            examination.findings.warn(
                "personality",
                pid,
                format!("{} has the personality {bits:#x} (setarch), and crr {own:#x}", described(task)),
                "CRIU does not restore this: run crr restore under setarch with the same switches",
            );
        }
    }
    if let (Some(slack), Some(own)) = (timer_slack_ns, own.timer_slack_ns) {
        // The kernel shows that of a real-time task as 0.
        if slack != own && slack != 0 {
            examination.findings.warn(
                "timer-slack",
                pid,
                format!("{} has a timer slack of {slack} ns, and crr one of {own} ns", described(task)),
                SILENT,
            );
        }
    }
    let of_threads = task.threads.iter().map(|thread| thread.io_priority);
    let mut given = std::iter::once(io_priority).chain(of_threads).filter(|priority| *priority != own.io_priority);
    if let Some(priority) = given.next() {
        let shown = |priority: Option<IoPriority>| {
            priority.map_or_else(|| "by its nice value".to_owned(), |priority| priority.to_string())
        };
        examination.findings.warn(
            "io-priority",
            pid,
            format!(
                "the I/O priority of {} is {}, and crr's is {}",
                described(task),
                shown(priority),
                shown(own.io_priority)
            ),
            "CRIU does not save this: after the restore set it again (ionice -p PID), or restore under ionice",
        );
    }
}
