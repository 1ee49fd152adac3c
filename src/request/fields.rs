//! What became of every field of `criu_opts`, and which CRIU knows it.

use protobuf::MessageFull;
use protobuf::reflect::ReflectFieldRef;

use crate::error::{Error, Result};
use crate::proto::rpc::{Criu_network_lock_method, Criu_opts};

use super::version::Version;

/// How this crate accounts for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A caller sets it through this.
    Offered(&'static str),
    /// Never sent; this, CRIU's current form or a better one, takes its place.
    Replaced(&'static str),
    /// Set by this crate itself, for this reason.
    Set(&'static str),
}

/// A field of `criu_opts`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name in rpc.proto.
    pub name: &'static str,
    /// The first release of CRIU that acts on it. An older one ignores it without a word.
    pub since: Version,
    /// What became of it.
    pub account: Account,
}

const fn field(number: u32, name: &'static str, since: (u32, u32), account: Account) -> Field {
    Field { number, name, since: Version::new(since.0, since.1), account }
}

use Account::{Offered, Replaced, Set};

/// Every field of `criu_opts`, in the order of rpc.proto. `tests` compare it with the descriptor.
pub const FIELDS: &[Field] = &[
    field(1, "images_dir_fd", (0, 8), Offered("ImageDirectory::images")),
    field(68, "images_dir", (3, 19), Replaced("images_dir_fd: the path form is broken in CRIU 3.19 to 4.1.1")),
    field(2, "pid", (0, 8), Offered("DumpOptions::pid")),
    field(3, "leave_running", (0, 8), Offered("Afterwards::KeepRunning")),
    field(4, "ext_unix_sk", (0, 8), Offered("DumpSwitch::ExtUnixSk, RestoreSwitch::ExtUnixSk")),
    field(5, "tcp_established", (0, 8), Offered("Tcp::Established")),
    field(6, "evasive_devices", (0, 8), Offered("DumpSwitch::EvasiveDevices")),
    field(7, "shell_job", (0, 8), Offered("DumpSwitch::ShellJob, RestoreSwitch::ShellJob")),
    field(8, "file_locks", (0, 8), Offered("DumpSwitch::FileLocks, RestoreSwitch::FileLocks")),
    field(9, "log_level", (0, 8), Offered("Log::level")),
    field(10, "log_file", (0, 8), Offered("Log::file")),
    field(11, "ps", (1, 2), Offered("PagesTo, Listen")),
    field(12, "notify_scripts", (1, 2), Set("always on: without it a client that vanishes does not stop a dump")),
    field(13, "root", (1, 2), Offered("RestoreOptions::root")),
    field(14, "parent_img", (1, 2), Offered("DumpOptions::parent, PageServerOptions::parent")),
    field(15, "track_mem", (1, 2), Offered("DumpSwitch::TrackMem; always on in a pre-dump")),
    field(16, "auto_dedup", (1, 2), Offered("DumpSwitch::AutoDedup, RestoreSwitch::AutoDedup")),
    field(17, "work_dir_fd", (1, 2), Offered("ImageDirectory::work")),
    field(18, "link_remap", (1, 2), Offered("DumpSwitch::LinkRemap, RestoreSwitch::LinkRemap")),
    field(19, "veths", (1, 2), Replaced("external: veth[in]:out")),
    field(20, "cpu_cap", (1, 3), Offered("CpuCapabilities")),
    field(21, "force_irmap", (1, 3), Offered("DumpSwitch::ForceIrmap")),
    field(22, "exec_cmd", (1, 3), Offered("Parent::Command")),
    field(23, "ext_mnt", (1, 3), Replaced("external: mnt[key]:val")),
    field(24, "manage_cgroups", (1, 3), Replaced("manage_cgroups_mode")),
    field(25, "cg_root", (1, 3), Offered("CgroupOptions::roots")),
    field(26, "rst_sibling", (1, 3), Offered("Parent::Caller")),
    field(27, "inherit_fd", (1, 5), Offered("RestoreOptions::inherited")),
    field(28, "auto_ext_mnt", (1, 6), Replaced("external: mnt[]")),
    field(29, "ext_sharing", (1, 6), Replaced("external: mnt[]:s")),
    field(30, "ext_masters", (1, 6), Replaced("external: mnt[]:m")),
    field(31, "skip_mnt", (1, 6), Offered("DumpOptions::skip_mnt, RestoreOptions::skip_mnt")),
    field(32, "enable_fs", (1, 6), Offered("DumpOptions::enable_fs")),
    field(33, "unix_sk_ino", (1, 7), Replaced("external: unix[inode]")),
    field(34, "manage_cgroups_mode", (1, 7), Offered("CgroupOptions::mode")),
    field(35, "ghost_limit", (1, 7), Offered("DumpOptions::ghost_limit")),
    field(36, "irmap_scan_paths", (1, 8), Offered("DumpOptions::irmap_scan_paths")),
    field(37, "external", (2, 0), Offered("DumpOptions::external, RestoreOptions::external")),
    field(38, "empty_ns", (2, 0), Offered("EmptyNamespace")),
    field(39, "join_ns", (2, 3), Offered("RestoreOptions::join")),
    field(41, "cgroup_props", (2, 4), Offered("DumpOptions::cgroup_props")),
    field(42, "cgroup_props_file", (2, 4), Offered("DumpOptions::cgroup_props_file")),
    field(43, "cgroup_dump_controller", (2, 4), Offered("DumpOptions::cgroup_dump_controllers")),
    field(44, "freeze_cgroup", (2, 4), Offered("DumpOptions::freeze_cgroup")),
    field(45, "timeout", (2, 4), Offered("DumpOptions::timeout_s")),
    field(46, "tcp_skip_in_flight", (2, 4), Offered("DumpSwitch::SkipInFlight")),
    field(47, "weak_sysctls", (2, 9), Offered("RestoreSwitch::WeakSysctls")),
    field(48, "lazy_pages", (3, 5), Offered("DumpSwitch::LazyPages, RestoreSwitch::LazyPages")),
    field(49, "status_fd", (2, 11), Replaced("the event status-ready")),
    field(50, "orphan_pts_master", (2, 12), Offered("RestoreSwitch::OrphanPtsMaster")),
    field(51, "config_file", (3, 11), Offered("DumpOptions::config_file, RestoreOptions::config_file")),
    field(52, "tcp_close", (3, 12), Offered("Tcp::Close")),
    field(53, "lsm_profile", (3, 12), Offered("RestoreOptions::lsm_profile")),
    field(54, "tls_cacert", (3, 13), Offered("Tls::cacert")),
    field(55, "tls_cacrl", (3, 13), Offered("Tls::cacrl")),
    field(56, "tls_cert", (3, 13), Offered("Tls::cert")),
    field(57, "tls_key", (3, 13), Offered("Tls::key")),
    field(58, "tls", (3, 13), Offered("Tls")),
    field(59, "tls_no_cn_verify", (3, 13), Offered("VerifyName::Accept")),
    field(60, "cgroup_yard", (3, 14), Offered("CgroupOptions::yard")),
    field(61, "pre_dump_mode", (3, 14), Offered("PreDumpOptions::mode")),
    field(62, "pidfd_store_sk", (3, 16), Offered("DumpOptions::pidfd_store")),
    field(63, "lsm_mount_context", (3, 16), Offered("RestoreOptions::lsm_mount_context")),
    field(64, "network_lock", (3, 16), Offered("NetworkLock")),
    field(65, "mntns_compat_mode", (3, 17), Offered("RestoreSwitch::MntnsCompatMode")),
    field(66, "skip_file_rwx_check", (3, 18), Offered("RestoreSwitch::SkipFileRwxCheck")),
    field(67, "unprivileged", (3, 18), Offered("DumpSwitch::Unprivileged, RestoreSwitch::Unprivileged")),
    field(69, "leave_stopped", (3, 19), Offered("Afterwards::KeepStopped, RestoreState::Stopped")),
    field(70, "display_stats", (3, 19), Replaced("the images stats-dump and stats-restore")),
    field(71, "log_to_stderr", (3, 19), Replaced("log_file")),
];

/// Refuses a request in which something is set that `running` would ignore without a word.
///
/// `leave_stopped` on CRIU 3.17 is the worst of them: it would kill the tree.
pub(crate) fn gate(opts: &Criu_opts, running: Version) -> Result<()> {
    let descriptor = Criu_opts::descriptor();
    for field in FIELDS {
        let Some(known) = descriptor.field_by_number(field.number) else { continue };
        let set = match known.get_reflect(opts) {
            ReflectFieldRef::Optional(value) => value.value().is_some(),
            ReflectFieldRef::Repeated(values) => !values.is_empty(),
            ReflectFieldRef::Map(values) => !values.is_empty(),
        };
        if set && running < field.since {
            return Err(Error::NeedsNewerCriu { option: field.name.into(), since: field.since, running });
        }
    }
    // A value that came later than its field.
    let since = Version::new(3, 19);
    if opts.network_lock.is_some() && opts.network_lock() == Criu_network_lock_method::SKIP && running < since {
        return Err(Error::NeedsNewerCriu { option: "network_lock=skip".into(), since, running });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_descriptor_is_accounted_for_once() {
        let mut known: Vec<(u32, String)> = Criu_opts::descriptor()
            .fields()
            .map(|field| (field.proto().number().unsigned_abs(), field.name().to_owned()))
            .collect();
        let mut listed: Vec<(u32, String)> = FIELDS.iter().map(|f| (f.number, f.name.to_owned())).collect();
        known.sort();
        listed.sort();
        assert_eq!(known, listed);
        assert_eq!(listed.len(), 70);
    }

    #[test]
    fn an_option_that_the_running_criu_would_ignore_is_an_error() {
        let mut opts = Criu_opts::new();
        opts.set_images_dir_fd(3);
        opts.set_leave_stopped(true);
        assert!(gate(&opts, Version::new(4, 2)).is_ok());
        assert!(gate(&opts, Version::new(3, 19)).is_ok());
        let error = gate(&opts, Version::new(3, 17)).expect_err("3.17 would kill the tree");
        assert!(error.to_string().contains("leave_stopped"), "{error}");
    }

    #[test]
    fn a_lock_method_newer_than_its_field_is_an_error() {
        let mut opts = Criu_opts::new();
        opts.set_images_dir_fd(3);
        opts.set_network_lock(Criu_network_lock_method::SKIP);
        assert!(gate(&opts, Version::new(3, 18)).is_err());
        opts.set_network_lock(Criu_network_lock_method::NFTABLES);
        assert!(gate(&opts, Version::new(3, 18)).is_ok());
    }
}
