//! `pstree.img` and `ids-PID.img`: the tasks, and which kernel objects they share.

use super::record::Record;
use crate::proto::images::{core as core_proto, pstree as proto};

/// A task of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Task {
    /// Its PID in the PID namespace of the tree.
    pub pid: u32,
    /// Its parent; 0 for the root.
    pub ppid: u32,
    /// Its process group.
    pub pgid: u32,
    /// Its session.
    pub sid: u32,
    /// Its thread ids, the PID first. Of a zombie they mean nothing: CRIU 4.2 writes one that it never set.
    pub threads: Vec<u32>,
}

impl Record for Task {
    type Message = proto::Pstree_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            pid: message.pid(),
            ppid: message.ppid(),
            pgid: message.pgid(),
            sid: message.sid(),
            threads: message.threads,
        })
    }
}

/// Numbers of kernel objects. Tasks with the same number share the object; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ids {
    /// Address space.
    pub memory: u32,
    /// Descriptor table: the number of the fdinfo image.
    pub files: u32,
    /// Current and root directory.
    pub directories: u32,
    /// Signal handlers.
    pub signal_handlers: u32,
    /// PID namespace.
    pub pid_namespace: Option<u32>,
    /// Network namespace.
    pub net_namespace: Option<u32>,
    /// IPC namespace.
    pub ipc_namespace: Option<u32>,
    /// UTS namespace.
    pub uts_namespace: Option<u32>,
    /// Mount namespace.
    pub mount_namespace: Option<u32>,
    /// User namespace.
    pub user_namespace: Option<u32>,
    /// Cgroup namespace.
    pub cgroup_namespace: Option<u32>,
    /// Time namespace.
    pub time_namespace: Option<u32>,
}

impl Record for Ids {
    type Message = core_proto::Task_kobj_ids_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        Ok(Self {
            memory: message.vm_id(),
            files: message.files_id(),
            directories: message.fs_id(),
            signal_handlers: message.sighand_id(),
            pid_namespace: message.pid_ns_id,
            net_namespace: message.net_ns_id,
            ipc_namespace: message.ipc_ns_id,
            uts_namespace: message.uts_ns_id,
            mount_namespace: message.mnt_ns_id,
            user_namespace: message.user_ns_id,
            cgroup_namespace: message.cgroup_ns_id,
            time_namespace: message.time_ns_id,
        })
    }
}
