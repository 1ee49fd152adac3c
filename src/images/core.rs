//! `core-TID.img`: a thread.

use std::ffi::{OsStr, OsString};

use super::name;
use super::record::Record;
use super::task::Ids;
use crate::proto::images::{core as proto, core_x86, creds};

/// A thread and, where it is the first of its task, the task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Core {
    /// What it ran on.
    pub machine: Machine,
    /// The task; only in the core of its first thread.
    pub task: Option<TaskCore>,
    /// The thread; zombies have none.
    pub thread: Option<ThreadCore>,
    /// The same as in the ids image, where that was merged into this one.
    pub ids: Option<Ids>,
}

impl Core {
    /// The name of the thread (`/proc/PID/comm`), else of its task.
    pub fn comm(&self) -> Option<&OsStr> {
        let of_thread = self.thread.as_ref().and_then(|thread| thread.comm.as_deref());
        of_thread.or_else(|| self.task.as_ref().map(|task| task.comm.as_os_str()))
    }
}

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Machine {
    /// Not known to CRIU.
    Unknown,
    /// x86-64, running 64-bit code.
    X86_64,
    /// x86-64, running 32-bit code.
    X86Compat,
    /// 64-bit ARM.
    Aarch64,
    /// Another, by CRIU's number.
    Other(i32),
}

/// What a whole task has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskCore {
    /// Whether it runs.
    pub state: TaskState,
    /// The status that its parent gets from wait(2); means something for a zombie.
    pub exit_code: u32,
    /// As personality(2).
    pub personality: u32,
    /// Its name, up to 15 bytes.
    pub comm: OsString,
    /// Its set of cgroups, where not each thread says it ([`ThreadCore::cgroup_set`]).
    pub cgroup_set: Option<u32>,
    /// Soft and hard limit by RLIMIT number, `u64::MAX` for none.
    pub limits: Vec<(u64, u64)>,
    /// As /proc/PID/loginuid.
    pub login_uid: Option<u32>,
    /// As /proc/PID/oom_score_adj.
    pub oom_score_adjustment: Option<i32>,
    /// Whether orphans below it become its children.
    pub child_subreaper: bool,
}

/// What a task was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// Running or sleeping.
    Alive,
    /// Ended and not yet reaped.
    Zombie,
    /// Stopped by a signal.
    Stopped,
    /// A number unknown to this version.
    Other(u32),
}

/// What each thread has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadCore {
    /// Its name, up to 15 bytes.
    pub comm: Option<OsString>,
    /// Its credentials; old images have them in a file of their own.
    pub credentials: Option<Credentials>,
    /// Its set of cgroups, by [`CgroupSet::id`](super::CgroupSet::id).
    pub cgroup_set: Option<u32>,
    /// Nice value.
    pub nice: Option<i32>,
    /// As `SCHED_OTHER` (0), `SCHED_FIFO` (1)...
    pub scheduling_policy: Option<u32>,
    /// Real-time priority.
    pub scheduling_priority: Option<u32>,
    /// The signal it gets when its parent ends.
    pub parent_death_signal: Option<u32>,
    /// Its seccomp mode.
    pub seccomp: Seccomp,
}

/// A seccomp mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seccomp {
    /// No restriction.
    Disabled,
    /// Only read, write, exit and sigreturn.
    Strict,
    /// Filters, with the place of the last in `seccomp.img`.
    Filter(u32),
    /// A number unknown to this version.
    Other(i32),
}

/// User and group ids, as the task's user namespace has them, capabilities and security labels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved user id.
    pub suid: u32,
    /// User id for file access.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// Group id for file access.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable capabilities, a bit each.
    pub inheritable: u64,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Effective capabilities.
    pub effective: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Ambient capabilities.
    pub ambient: u64,
    /// `SECBIT_` flags.
    pub securebits: u32,
    /// Whether execve(2) can give no new privileges.
    pub no_new_privileges: bool,
    /// AppArmor profile or SELinux context.
    pub profile: Option<OsString>,
}

impl Record for Core {
    type Message = proto::Core_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        let compat = || {
            let registers = message.thread_info.as_ref().and_then(|info| info.gpregs.as_ref());
            registers.is_some_and(|registers| registers.mode() == core_x86::User_x86_regs_mode::COMPAT)
        };
        let machine = match message.mtype.map_or(0, |machine| machine.value()) {
            0 => Machine::Unknown,
            1 if compat() => Machine::X86Compat,
            1 => Machine::X86_64,
            3 => Machine::Aarch64,
            other => Machine::Other(other),
        };
        Ok(Self {
            machine,
            task: message.tc.0.map(|task| TaskCore::from(*task)),
            thread: message.thread_core.0.map(|thread| ThreadCore::from(*thread)),
            ids: message.ids.0.map(|ids| Ids::from_message(*ids)).transpose()?,
        })
    }
}

impl From<proto::Task_core_entry> for TaskCore {
    fn from(message: proto::Task_core_entry) -> Self {
        let limits = message.rlimits.as_ref().map(|limits| limits.rlimits.as_slice()).unwrap_or_default();
        Self {
            state: match message.task_state() {
                1 => TaskState::Alive,
                // A zombie is written as "dead"; its other number is CRIU's own.
                2 | 6 => TaskState::Zombie,
                3 => TaskState::Stopped,
                other => TaskState::Other(other),
            },
            exit_code: message.exit_code(),
            personality: message.personality(),
            cgroup_set: message.cg_set,
            limits: limits.iter().map(|limit| (limit.cur(), limit.max())).collect(),
            login_uid: message.loginuid,
            oom_score_adjustment: message.oom_score_adj,
            child_subreaper: message.child_subreaper(),
            comm: name(message.comm),
        }
    }
}

impl From<proto::Thread_core_entry> for ThreadCore {
    fn from(message: proto::Thread_core_entry) -> Self {
        Self {
            cgroup_set: message.cg_set,
            nice: message.sched_nice,
            scheduling_policy: message.sched_policy,
            scheduling_priority: message.sched_prio,
            parent_death_signal: message.pdeath_sig,
            seccomp: match message.seccomp_mode.map_or(0, |mode| mode.value()) {
                0 => Seccomp::Disabled,
                1 => Seccomp::Strict,
                2 => Seccomp::Filter(message.seccomp_filter()),
                other => Seccomp::Other(other),
            },
            credentials: message.creds.0.map(|credentials| Credentials::from(*credentials)),
            comm: message.comm.map(|comm| name(Some(comm))),
        }
    }
}

impl From<creds::Creds_entry> for Credentials {
    fn from(message: creds::Creds_entry) -> Self {
        // Two words of 32 bits; there is no capability 64.
        let set = |words: &[u32]| {
            words.iter().take(2).enumerate().fold(0, |set, (place, word)| set | (u64::from(*word) << (32 * place)))
        };
        Self {
            uid: message.uid(),
            euid: message.euid(),
            suid: message.suid(),
            fsuid: message.fsuid(),
            gid: message.gid(),
            egid: message.egid(),
            sgid: message.sgid(),
            fsgid: message.fsgid(),
            inheritable: set(&message.cap_inh),
            permitted: set(&message.cap_prm),
            effective: set(&message.cap_eff),
            bounding: set(&message.cap_bnd),
            ambient: set(&message.cap_amb),
            securebits: message.secbits(),
            no_new_privileges: message.no_new_privs() != 0,
            profile: message.lsm_profile.map(|profile| name(Some(profile))),
            groups: message.groups,
        }
    }
}
