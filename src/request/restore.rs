//! Restore.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::Result;
use crate::proto::rpc::{Criu_opts, Inherit_fd, Join_namespace};

use super::cgroups::CgroupOptions;
use super::cpu::CpuCapabilities;
use super::dump::EmptyNamespace;
use super::images::{ImageDirectory, Log};
use super::network::Tcp;
use super::switch::RestoreSwitch;

/// Who is the parent of the restored root task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// CRIU, and after its end the nearest subreaper or PID 1.
    #[default]
    Reaper,
    /// The caller, who must wait for it: `--restore-sibling`. Its end may be signalled before CRIU's reply arrives.
    Caller,
    /// This command, which CRIU becomes after its reply: `--exec-cmd`.
    Command(Vec<String>),
}

/// What the tree does after it was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestoreState {
    /// It runs.
    #[default]
    Run,
    /// It is stopped by SIGSTOP: `--leave-stopped`.
    Stopped,
}

/// A descriptor that takes the place of a recorded one: `--inherit-fd`.
#[derive(Debug)]
pub struct InheritedFd {
    /// What it replaces, such as `pipe:[4711]`, or the name of an external resource.
    pub key: String,
    /// The descriptor.
    pub descriptor: OwnedFd,
}

/// A namespace to restore into: `--join-ns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinNamespace {
    /// `net`, `uts`, `ipc`, `time`, `user` or `mnt`.
    pub kind: String,
    /// A path, or a PID in decimal.
    pub file: String,
    /// For `user`: "uid,gid".
    pub extra: Option<String>,
}

/// Options of a restore.
#[derive(Debug)]
pub struct RestoreOptions {
    /// CRIU's log.
    pub log: Log,
    /// What is switched on.
    pub switches: BTreeSet<RestoreSwitch>,
    /// Established TCP connections: as at dump.
    pub tcp: Tcp,
    /// Who becomes the parent.
    pub parent: Parent,
    /// What the tree does afterwards.
    pub state: RestoreState,
    /// A new root mount point. An absolute path.
    pub root: Option<String>,
    /// Resources that come from outside, in the criu program's syntax.
    pub external: Vec<String>,
    /// Descriptors that take the place of recorded ones.
    pub inherited: Vec<InheritedFd>,
    /// Namespaces to restore into.
    pub join: Vec<JoinNamespace>,
    /// Cgroups.
    pub cgroups: CgroupOptions,
    /// What of the CPU is compared; `None`: floating point and instructions.
    pub cpu: Option<CpuCapabilities>,
    /// Mount points that are left out.
    pub skip_mnt: Vec<String>,
    /// Namespaces that are restored empty.
    pub empty_ns: Vec<EmptyNamespace>,
    /// The profile of the security module, such as `apparmor:NAME`.
    pub lsm_profile: Option<String>,
    /// SELinux's mount context.
    pub lsm_mount_context: Option<String>,
    /// A configuration file of CRIU's; what it says overrides everything here. An absolute path.
    pub config_file: Option<String>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl RestoreOptions {
    /// CRIU's defaults.
    pub fn new() -> Self {
        Self {
            log: Log::new("restore.log"),
            switches: BTreeSet::new(),
            tcp: Tcp::default(),
            parent: Parent::default(),
            state: RestoreState::default(),
            root: None,
            external: Vec::new(),
            inherited: Vec::new(),
            join: Vec::new(),
            cgroups: CgroupOptions::default(),
            cpu: None,
            skip_mnt: Vec::new(),
            empty_ns: Vec::new(),
            lsm_profile: None,
            lsm_mount_context: None,
            config_file: None,
        }
    }

    pub(crate) fn to_proto(&self, directory: &ImageDirectory) -> Result<Criu_opts> {
        let Self {
            log,
            switches,
            tcp,
            parent,
            state,
            root,
            external,
            inherited,
            join,
            cgroups,
            cpu,
            skip_mnt,
            empty_ns,
            lsm_profile,
            lsm_mount_context,
            config_file,
        } = self;
        log.check()?;
        let mut opts = Criu_opts::new();
        opts.set_notify_scripts(true);
        directory.write(&mut opts);
        log.write(&mut opts);
        for switch in switches {
            switch.write(&mut opts);
        }
        tcp.write(&mut opts);
        match parent {
            Parent::Reaper => {}
            Parent::Caller => opts.set_rst_sibling(true),
            Parent::Command(words) => opts.exec_cmd.clone_from(words),
        }
        match state {
            RestoreState::Run => {}
            RestoreState::Stopped => opts.set_leave_stopped(true),
        }
        opts.root.clone_from(root);
        opts.external.clone_from(external);
        for InheritedFd { key, descriptor } in inherited {
            let mut fd = Inherit_fd::new();
            fd.set_key(key.clone());
            fd.set_fd(descriptor.as_raw_fd());
            opts.inherit_fd.push(fd);
        }
        for JoinNamespace { kind, file, extra } in join {
            let mut namespace = Join_namespace::new();
            namespace.set_ns(kind.clone());
            // CRIU takes a number for a file's name where an earlier call has left an error behind (errno).
            let of_process = || format!("/proc/{file}/ns/{kind}");
            namespace.set_ns_file(if file.parse::<u32>().is_ok() { of_process() } else { file.clone() });
            namespace.extra_opt.clone_from(extra);
            opts.join_ns.push(namespace);
        }
        cgroups.write(&mut opts);
        if let Some(cpu) = cpu {
            cpu.write(&mut opts);
        }
        opts.skip_mnt.clone_from(skip_mnt);
        EmptyNamespace::write(empty_ns, &mut opts);
        opts.lsm_profile.clone_from(lsm_profile);
        opts.lsm_mount_context.clone_from(lsm_mount_context);
        opts.config_file.clone_from(config_file);
        Ok(opts)
    }
}
