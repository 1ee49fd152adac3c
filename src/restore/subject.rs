//! What the images themselves say about the tree: what a restore needs to know before it begins.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::checkpoint::Record;
use crate::error::Result;
use crate::host::cgroup::Membership;
use crate::host::netlock::Connection;
use crate::images::{Images, Inventory, Object, RemapTarget, SocketState, Task};

/// What the images say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Every task, the root first.
    pub(super) tasks: Vec<Task>,
    /// Whether the tree brings a PID namespace of its own: its numbers are free in any case.
    pub(super) own_pids: bool,
    /// Whether the tree brings a mount namespace of its own: its paths mean nothing here.
    pub(super) own_mounts: bool,
    /// The name of the dump.
    pub(super) run_id: Option<String>,
    /// Whether connections were dropped by the dump.
    pub(super) tcp_close: bool,
    /// All TCP connections.
    pub(super) connections: Vec<Connection>,
    /// Those of them in this host's network namespace.
    pub(super) local: Vec<Connection>,
    /// Where TCP sockets in this host's network namespace listen.
    pub(super) listening: Vec<std::net::SocketAddr>,
    /// Whether the tree has TCP, UDP or raw sockets.
    pub(super) inet: bool,
    /// Whether a unix socket has its peer outside.
    pub(super) external_unix: bool,
    /// Whether file locks were dumped.
    pub(super) locks: bool,
    /// Whether CRIU made names for unlinked files.
    pub(super) link_remaps: bool,
    /// Whether the tree took its terminal from a session outside.
    pub(super) outside_terminal: bool,
    /// The cgroups of the root, where CRIU dumped them.
    pub(super) cgroups: Option<Membership>,
    /// The signal that the root gets when its parent ends.
    pub(super) parent_death_signal: Option<u32>,
}

impl Subject {
    /// Reads what is small: no memory, no mappings.
    pub(super) fn read(images: &Images) -> Result<Self> {
        let inventory = images.inventory()?;
        let tasks = images.tasks()?;
        let mut subject = Self {
            own_pids: false,
            own_mounts: false,
            run_id: inventory.run_id.clone(),
            tcp_close: inventory.tcp_close,
            connections: Vec::new(),
            local: Vec::new(),
            listening: Vec::new(),
            inet: false,
            external_unix: false,
            locks: !images.locks()?.is_empty(),
            link_remaps: images.remaps()?.iter().any(|remap| matches!(remap.target, RemapTarget::Link(_))),
            outside_terminal: false,
            cgroups: None,
            parent_death_signal: None,
            tasks,
        };
        subject.look_at_root(images, &inventory)?;
        subject.look_at_files(images, &inventory)?;
        let sessions: BTreeSet<u32> = subject.tasks.iter().map(|task| task.pid).collect();
        let terminals = images.terminals()?;
        subject.outside_terminal = terminals.iter().any(|tty| tty.sid != 0 && !sessions.contains(&tty.sid));
        Ok(subject)
    }

    fn look_at_root(&mut self, images: &Images, inventory: &Inventory) -> Result<()> {
        let Some(root) = self.tasks.first() else { return Ok(()) };
        self.parent_death_signal = images.parent_death_signal(root)?;
        let root = root.pid;
        let core = images.core(root)?;
        let ids = match core.ids {
            Some(ids) => Some(ids),
            None => images.ids(root).ok(),
        };
        if let (Some(own), Some(outside)) = (ids, inventory.root_ids) {
            self.own_pids = own.pid_namespace != outside.pid_namespace;
            self.own_mounts = own.mount_namespace != outside.mount_namespace;
        }
        let of_thread = core.thread.and_then(|thread| thread.cgroup_set);
        if let Some(set) = of_thread.or(core.task.and_then(|task| task.cgroup_set)) {
            let found = images.cgroup_sets()?.into_iter().find(|known| known.id == set);
            self.cgroups = found.map(|set| {
                let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
                Membership(set.cgroups.iter().map(|c| (text(&c.controllers), text(c.path.as_os_str()))).collect())
            });
        }
        Ok(())
    }

    fn look_at_files(&mut self, images: &Images, inventory: &Inventory) -> Result<()> {
        let outside = inventory.root_ids.and_then(|ids| ids.net_namespace);
        for file in images.files()? {
            let object = file?.object;
            self.inet |= matches!(object, Object::Inet(_));
            match object {
                Object::Unix(unix) => self.external_unix |= unix.external,
                Object::Inet(inet) if inet.protocol == libc::IPPROTO_TCP.unsigned_abs() => {
                    // Images of a CRIU that does not say: there is only one.
                    let is_local = inet.namespace.is_none() || outside.is_none() || inet.namespace == outside;
                    match (inet.local, inet.peer, inet.state) {
                        (Some(local), _, SocketState::Listen) if is_local => self.listening.push(local),
                        (Some(local), Some(remote), _) => {
                            self.connections.push(Connection { local, remote });
                            if is_local {
                                self.local.push(Connection { local, remote });
                            }
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the root's session was led by somebody outside: then the tree is a job of a shell.
    pub(super) fn is_shell_job(&self) -> bool {
        let Some(root) = self.tasks.first() else { return false };
        root.sid != 0 && self.tasks.iter().all(|task| task.pid != root.sid)
    }

    /// Every number that the restore takes on this host: of tasks, threads, process groups and sessions. Those of a shell job
    /// that belong to the shell are the caller's own afterwards.
    pub(super) fn numbers(&self) -> BTreeSet<i32> {
        if self.own_pids {
            return BTreeSet::new();
        }
        let root = self.tasks.first();
        let foreign =
            |number: u32| self.is_shell_job() && root.is_some_and(|root| number == root.sid || number == root.pgid);
        let mut numbers = BTreeSet::new();
        for task in &self.tasks {
            numbers.insert(task.pid);
            // Of a zombie they mean nothing.
            numbers.extend(task.threads.iter().skip(1));
            numbers.extend([task.pgid, task.sid].into_iter().filter(|number| !foreign(*number)));
        }
        numbers.extend(root.map(|root| root.pid));
        numbers.into_iter().filter(|number| *number != 0).filter_map(|number| i32::try_from(number).ok()).collect()
    }

    /// The cgroups that the root was in, by the record or else by the images.
    pub(super) fn home(&self, record: Option<&Record>) -> Option<Membership> {
        let of_record = record.and_then(|record| {
            let cgroups = record.cgroups_of(record.tree.first()?);
            let path = |path: &PathBuf| path.to_string_lossy().into_owned();
            let pairs = cgroups.iter().map(|cgroup| (cgroup.controllers.clone(), path(&cgroup.path)));
            (!cgroups.is_empty()).then(|| Membership(pairs.collect()))
        });
        of_record.or_else(|| self.cgroups.clone())
    }
}
