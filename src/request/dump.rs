//! Dump, pre-dump and check.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::proto::rpc::{Criu_opts, Criu_pre_dump_mode};

use super::cgroups::CgroupOptions;
use super::cpu::CpuCapabilities;
use super::images::{ImageDirectory, Log};
use super::network::{NetworkLock, Tcp};
use super::page_server::{PagesTo, Tls};
use super::switch::DumpSwitch;

/// What becomes of the tree after a dump that succeeded. After one that failed it runs on in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Afterwards {
    /// It is killed: the images are now the program.
    #[default]
    Kill,
    /// It runs on: `--leave-running`.
    KeepRunning,
    /// It is stopped by SIGSTOP, SIGCONT resumes it: `--leave-stopped`, from CRIU 3.19. An older one would kill it.
    KeepStopped,
}

/// A namespace that is restored empty, for the caller to fill: `--empty-ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyNamespace {
    /// The network namespace, the only one that CRIU accepts here.
    Network,
}

impl EmptyNamespace {
    pub(super) fn write(set: &[Self], opts: &mut Criu_opts) {
        if set.contains(&Self::Network) {
            opts.set_empty_ns(libc::CLONE_NEWNET.unsigned_abs());
        }
    }
}

/// How a pre-dump reads memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreDumpMode {
    /// Through pipes, while the tree is stopped.
    Splice,
    /// With process_vm_readv, after it runs again.
    Read,
}

/// Options of a dump.
///
/// ```
/// use crr::request::{DumpOptions, DumpSwitch};
///
/// let mut options = DumpOptions::new(1234);
/// options.switches.insert(DumpSwitch::FileLocks);
/// ```
#[derive(Debug)]
pub struct DumpOptions {
    /// The PID of the tree's root.
    pub pid: i32,
    /// CRIU's log.
    pub log: Log,
    /// What becomes of the tree.
    pub afterwards: Afterwards,
    /// What is switched on.
    pub switches: BTreeSet<DumpSwitch>,
    /// Established TCP connections.
    pub tcp: Tcp,
    /// `None`: CRIU's default, iptables.
    pub network_lock: Option<NetworkLock>,
    /// The largest deleted file that is put into the images, in bytes. `None`: CRIU's default, 1 MiB.
    pub ghost_limit: Option<u32>,
    /// Resources that come from outside, in the criu program's syntax, such as `unix[4711]` or `mnt[/data]:data`.
    pub external: Vec<String>,
    /// Cgroups.
    pub cgroups: CgroupOptions,
    /// Which properties of cgroups are dumped, in the syntax of `--cgroup-props`.
    pub cgroup_props: Option<String>,
    /// A file with the same; an absolute path.
    pub cgroup_props_file: Option<String>,
    /// Only these controllers are dumped.
    pub cgroup_dump_controllers: Vec<String>,
    /// The directory of a cgroup that holds the tree and nothing else, which is frozen instead of each task. Costs 100 ms
    /// unless it is frozen already; [`dump`](crate::dump::dump) freezes it in time.
    pub freeze_cgroup: Option<String>,
    /// How long freezing may take, in seconds; 0 is for ever. `None`: CRIU's default, 10.
    pub timeout_s: Option<u32>,
    /// The directory of the parent images, relative to the image directory.
    pub parent: Option<String>,
    /// Memory goes there instead of into pages files.
    pub pages_to: Option<PagesTo>,
    /// Keys and certificates for `pages_to`.
    pub tls: Option<Tls>,
    /// A datagram unix socket that keeps pidfds between iterations.
    pub pidfd_store: Option<OwnedFd>,
    /// What of the CPU is recorded; `None`: floating point and instructions, without an image.
    pub cpu: Option<CpuCapabilities>,
    /// Paths that are searched for watched inodes.
    pub irmap_scan_paths: Vec<String>,
    /// Mount points that are left out.
    pub skip_mnt: Vec<String>,
    /// File system types that are taken to be mountable again, or `all`.
    pub enable_fs: Vec<String>,
    /// Namespaces whose content is left out.
    pub empty_ns: Vec<EmptyNamespace>,
    /// A configuration file of CRIU's; what it says overrides everything here. An absolute path.
    pub config_file: Option<String>,
}

impl DumpOptions {
    /// CRIU's defaults for the tree below `pid`.
    pub fn new(pid: i32) -> Self {
        Self {
            pid,
            log: Log::new("dump.log"),
            afterwards: Afterwards::default(),
            switches: BTreeSet::new(),
            tcp: Tcp::default(),
            network_lock: None,
            ghost_limit: None,
            external: Vec::new(),
            cgroups: CgroupOptions::default(),
            cgroup_props: None,
            cgroup_props_file: None,
            cgroup_dump_controllers: Vec::new(),
            freeze_cgroup: None,
            timeout_s: None,
            parent: None,
            pages_to: None,
            tls: None,
            pidfd_store: None,
            cpu: None,
            irmap_scan_paths: Vec::new(),
            skip_mnt: Vec::new(),
            enable_fs: Vec::new(),
            empty_ns: Vec::new(),
            config_file: None,
        }
    }

    /// The same once more, for a dump that is repeated: but for what belongs to one dump only, where its memory goes and what
    /// it keeps of others.
    pub(crate) fn again(&self) -> Self {
        Self {
            pid: self.pid,
            log: self.log.clone(),
            afterwards: self.afterwards,
            switches: self.switches.clone(),
            tcp: self.tcp,
            network_lock: self.network_lock,
            ghost_limit: self.ghost_limit,
            external: self.external.clone(),
            cgroups: self.cgroups.clone(),
            cgroup_props: self.cgroup_props.clone(),
            cgroup_props_file: self.cgroup_props_file.clone(),
            cgroup_dump_controllers: self.cgroup_dump_controllers.clone(),
            freeze_cgroup: self.freeze_cgroup.clone(),
            timeout_s: self.timeout_s,
            parent: self.parent.clone(),
            pages_to: None,
            tls: None,
            pidfd_store: None,
            cpu: self.cpu,
            irmap_scan_paths: self.irmap_scan_paths.clone(),
            skip_mnt: self.skip_mnt.clone(),
            enable_fs: self.enable_fs.clone(),
            empty_ns: self.empty_ns.clone(),
            config_file: self.config_file.clone(),
        }
    }

    pub(crate) fn to_proto(&self, directory: &ImageDirectory) -> Result<Criu_opts> {
        let Self {
            pid,
            log,
            afterwards,
            switches,
            tcp,
            network_lock,
            ghost_limit,
            external,
            cgroups,
            cgroup_props,
            cgroup_props_file,
            cgroup_dump_controllers,
            freeze_cgroup,
            timeout_s,
            parent,
            pages_to,
            tls,
            pidfd_store,
            cpu,
            irmap_scan_paths,
            skip_mnt,
            enable_fs,
            empty_ns,
            config_file,
        } = self;
        if *pid <= 0 {
            // An absent PID is the peer's: CRIU would dump the client itself.
            return Err(Error::Option { option: "tree", value: pid.to_string(), reason: "must be a PID above 0" });
        }
        log.check()?;
        let mut opts = Criu_opts::new();
        opts.set_notify_scripts(true);
        opts.set_pid(*pid);
        directory.write(&mut opts);
        log.write(&mut opts);
        match afterwards {
            Afterwards::Kill => {}
            Afterwards::KeepRunning => opts.set_leave_running(true),
            Afterwards::KeepStopped => opts.set_leave_stopped(true),
        }
        for switch in switches {
            switch.write(&mut opts);
        }
        tcp.write(&mut opts);
        if let Some(lock) = network_lock {
            lock.write(&mut opts);
        }
        opts.ghost_limit = *ghost_limit;
        opts.external.clone_from(external);
        cgroups.write(&mut opts);
        opts.cgroup_props.clone_from(cgroup_props);
        opts.cgroup_props_file.clone_from(cgroup_props_file);
        opts.cgroup_dump_controller.clone_from(cgroup_dump_controllers);
        opts.freeze_cgroup.clone_from(freeze_cgroup);
        opts.timeout = *timeout_s;
        opts.parent_img.clone_from(parent);
        if let Some(pages_to) = pages_to {
            pages_to.write(&mut opts);
        }
        if let Some(tls) = tls {
            tls.write(&mut opts);
        }
        if let Some(store) = pidfd_store {
            opts.set_pidfd_store_sk(store.as_raw_fd());
        }
        if let Some(cpu) = cpu {
            cpu.write(&mut opts);
        }
        opts.irmap_scan_paths.clone_from(irmap_scan_paths);
        opts.skip_mnt.clone_from(skip_mnt);
        opts.enable_fs.clone_from(enable_fs);
        EmptyNamespace::write(empty_ns, &mut opts);
        opts.config_file.clone_from(config_file);
        Ok(opts)
    }

    /// The descriptor that CRIU must inherit.
    pub(crate) fn inherited(&self) -> Option<&OwnedFd> {
        self.pages_to.as_ref().and_then(PagesTo::inherited)
    }
}

/// Which of CRIU's two pre-dump requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreDumpKind {
    /// Another pre-dump or the dump follows on the same CRIU process.
    Chained,
    /// CRIU ends afterwards; from 3.17.
    Single,
}

/// Options of a pre-dump: memory only, the tree runs on. There are no events in it.
#[derive(Debug)]
pub struct PreDumpOptions {
    /// What a pre-dump shares with a dump. `afterwards` must be left alone. Memory tracking is always switched on: without it
    /// CRIU aborts on a kernel that cannot track, and leaves its parasite behind.
    pub dump: DumpOptions,
    /// How memory is read; `None`: CRIU's default, splice.
    pub mode: Option<PreDumpMode>,
}

impl PreDumpOptions {
    pub(crate) fn to_proto(&self, directory: &ImageDirectory) -> Result<Criu_opts> {
        let Self { dump, mode } = self;
        let mut opts = dump.to_proto(directory)?;
        opts.notify_scripts = None;
        opts.set_track_mem(true);
        if let Some(mode) = mode {
            opts.set_pre_dump_mode(match mode {
                PreDumpMode::Splice => Criu_pre_dump_mode::SPLICE,
                PreDumpMode::Read => Criu_pre_dump_mode::VM_READ,
            });
        }
        Ok(opts)
    }
}

/// Options of CRIU's own check of the kernel.
#[derive(Debug)]
pub struct CheckOptions {
    /// CRIU's log.
    pub log: Log,
}

impl CheckOptions {
    pub(crate) fn to_proto(&self, directory: &ImageDirectory) -> Result<Criu_opts> {
        let Self { log } = self;
        log.check()?;
        let mut opts = Criu_opts::new();
        directory.write(&mut opts);
        log.write(&mut opts);
        Ok(opts)
    }
}
