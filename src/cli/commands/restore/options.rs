//! CRIU's own options of a restore.

use std::os::fd::{OwnedFd, RawFd};

use clap::Args;
use crr::request::{
    EmptyNamespace, InheritedFd, JoinNamespace, Parent, RestoreOptions, RestoreState, RestoreSwitch, Tcp,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::super::super::exit::Code;
use super::super::super::failure::Failure;
use super::super::super::values::{self, CgroupArgs, LogArgs};

/// CRIU's options. What the checkpoint records need not be given; what differs from it wins.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is in the tree")]
pub(super) struct Resources {
    /// Keep established TCP connections
    #[arg(long, conflicts_with = "tcp_close")]
    tcp_established: bool,
    /// Restore established TCP connections as closed
    #[arg(long)]
    tcp_close: bool,
    /// The tree is a job of a shell: it joins the caller's session and takes its terminal
    #[arg(long, short = 'j')]
    shell_job: bool,
    /// Connect unix sockets to their peers outside the tree again
    #[arg(long, short = 'x')]
    ext_unix_sk: bool,
    /// Take file locks again
    #[arg(long, short = 'l')]
    file_locks: bool,
    /// Use the names that the dump made for unlinked files
    #[arg(long)]
    link_remap: bool,
    /// Something that comes from outside, as CRIU spells it: mnt[NAME]:PATH, dev[NAME]:PATH, veth[IF]:OUT, …
    #[arg(long, value_name = "RES")]
    external: Vec<String>,
    /// Descriptor NUM of crr takes the place of what was dumped, as in 'fd[4]:pipe[4711]'
    #[arg(long, value_name = "fd[NUM]:RES", value_parser = inherited)]
    inherit_fd: Vec<(RawFd, String)>,
    /// Restore into a namespace, as in net:/run/netns/web or user:PID,UID,GID
    #[arg(long, short = 'J', value_name = "NS:FILE|PID", value_parser = joined)]
    join_ns: Vec<JoinNamespace>,
    /// Leave this namespace empty
    #[arg(long, value_enum, value_name = "NS")]
    empty_ns: Vec<values::EmptyNs>,
    /// The root mount point of a tree with a mount namespace of its own
    #[arg(long, short = 'r', value_name = "DIR")]
    root: Option<String>,
    /// Leave out this mount point
    #[arg(long, value_name = "PATH")]
    skip_mnt: Vec<String>,
    /// Restore mounts by the engine of CRIU before 3.17
    #[arg(long)]
    mntns_compat_mode: bool,
    /// What of the CPU is compared: none, fpu, cpu, ins, all
    #[arg(long, value_enum, value_name = "CAP")]
    cpu_cap: Option<values::CpuCap>,
    /// Do not compare the permissions of files
    #[arg(long)]
    skip_file_rwx_check: bool,
    /// Pass over sysctls that cannot be set
    #[arg(long)]
    weak_sysctls: bool,
    /// The profile of the security module, as in apparmor:NAME
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// SELinux's mount context
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Run CRIU without root's capabilities
    #[arg(long)]
    unprivileged: bool,
    /// A configuration file of CRIU's, which overrides all options here
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

impl Resources {
    /// Whether --root is given.
    pub(super) fn names_root(&self) -> bool {
        self.root.is_some()
    }

    /// The options for CRIU.
    pub(super) fn options(
        self,
        parent: Parent,
        state: RestoreState,
        cgroups: CgroupArgs,
        log: LogArgs,
    ) -> Result<RestoreOptions, Failure> {
        let Self {
            tcp_established,
            tcp_close,
            shell_job,
            ext_unix_sk,
            file_locks,
            link_remap,
            external,
            inherit_fd,
            join_ns,
            empty_ns,
            root,
            skip_mnt,
            mntns_compat_mode,
            cpu_cap,
            skip_file_rwx_check,
            weak_sysctls,
            lsm_profile,
            lsm_mount_context,
            unprivileged,
            config,
        } = self;
        let mut options = RestoreOptions::new();
        options.tcp = match (tcp_established, tcp_close) {
            (true, _) => Tcp::Established,
            (false, true) => Tcp::Close,
            (false, false) => Tcp::Refuse,
        };
        let switches = [
            (shell_job, RestoreSwitch::ShellJob),
            (ext_unix_sk, RestoreSwitch::ExtUnixSk),
            (file_locks, RestoreSwitch::FileLocks),
            (link_remap, RestoreSwitch::LinkRemap),
            (mntns_compat_mode, RestoreSwitch::MntnsCompatMode),
            (skip_file_rwx_check, RestoreSwitch::SkipFileRwxCheck),
            (weak_sysctls, RestoreSwitch::WeakSysctls),
            (unprivileged, RestoreSwitch::Unprivileged),
        ];
        options.switches.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, switch)| switch));
        options.external = external;
        options.join = join_ns;
        options.empty_ns = empty_ns.into_iter().map(EmptyNamespace::from).collect();
        options.root = root.map(absolute).transpose()?;
        options.skip_mnt = skip_mnt;
        options.cpu = cpu_cap.map(Into::into);
        options.lsm_profile = lsm_profile;
        options.lsm_mount_context = lsm_mount_context;
        options.config_file = config.map(absolute).transpose()?;
        options.parent = parent;
        options.state = state;
        options.cgroups = cgroups.options();
        for (number, key) in inherit_fd {
            options.inherited.push(InheritedFd { key, descriptor: own(number)? });
        }
        log.write(&mut options.log).map_err(|what| Failure::new(Code::Usage, what))?;
        Ok(options)
    }
}

/// CRIU opens paths after it has changed its directory.
fn absolute(path: impl AsRef<std::path::Path>) -> Result<String, Failure> {
    let path = path.as_ref();
    let absolute = std::path::absolute(path).map_err(crr::Error::io("find", path))?;
    Ok(absolute.to_string_lossy().into_owned())
}

/// A copy of a descriptor that this process was started with.
pub(super) fn own(number: RawFd) -> Result<OwnedFd, Failure> {
    let copy = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));
    copy.map_err(|errno| {
        let what = format!("crr was started without a descriptor {number}: {}", std::io::Error::from(errno));
        Failure::new(Code::Usage, what)
    })
}

/// `fd[NUM]:RES`
fn inherited(text: &str) -> Result<(RawFd, String), String> {
    let bad = || format!("`{text}` is not fd[NUM]:RES, such as fd[4]:pipe[4711]");
    let (number, key) = text.strip_prefix("fd[").and_then(|rest| rest.split_once("]:")).ok_or_else(bad)?;
    let number: RawFd = number.parse().map_err(|_| bad())?;
    if number < 0 || key.is_empty() {
        return Err(bad());
    }
    Ok((number, key.to_owned()))
}

/// `NS:{PID|FILE}[,OPTIONS]`
fn joined(text: &str) -> Result<JoinNamespace, String> {
    let bad = || format!("`{text}` is not NS:FILE or NS:PID with NS one of net, uts, ipc, time, user, mnt");
    let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
    if !["net", "uts", "ipc", "time", "user", "mnt"].contains(&kind) || rest.is_empty() {
        return Err(bad());
    }
    let (file, extra) = match rest.split_once(',') {
        Some((file, extra)) if kind == "user" => (file, Some(extra.to_owned())),
        _ => (rest, None),
    };
    Ok(JoinNamespace { kind: kind.into(), file: file.into(), extra })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_descriptors_are_spelled_as_criu_spells_them() {
        assert_eq!(inherited("fd[4]:pipe[4711]"), Ok((4, "pipe[4711]".into())));
        assert_eq!(inherited("fd[0]:tmp/log:x"), Ok((0, "tmp/log:x".into())));
        for bad in ["", "4:pipe", "fd[]:x", "fd[-1]:x", "fd[4]:", "fd[4]x"] {
            assert!(inherited(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn namespaces_to_join_are_files_or_pids() {
        let namespace = |kind: &str, file: &str, extra: Option<&str>| {
            Ok(JoinNamespace { kind: kind.into(), file: file.into(), extra: extra.map(Into::into) })
        };
        assert_eq!(joined("net:/run/netns/a,b"), namespace("net", "/run/netns/a,b", None));
        assert_eq!(joined("user:7,1,2"), namespace("user", "7", Some("1,2")));
        for bad in ["net", "net:", "pid:7", ":7"] {
            assert!(joined(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_the_callers_mistake() {
        let failure = own(987_654).expect_err("there is none");
        assert_eq!(failure.code, Code::Usage);
    }
}
