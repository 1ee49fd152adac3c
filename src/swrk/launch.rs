//! How a CRIU process is started.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::neighbour::Neighbour;
use crate::error::{Error, Result};

/// The programs that CRIU starts by name (iptables-restore, ip, tar) are looked for here and nowhere else: what the caller's
/// environment says must not choose what runs as root.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As [`PATH`], without the places where programs for the administrator are: Debian's iptables is in /usr/sbin.
const PATH_WITHOUT_IPTABLES: &str = "/usr/bin:/bin";

/// Which programs CRIU finds by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Programs {
    /// All.
    #[default]
    All,
    /// Those of every user, hence no iptables on most hosts: where the operation needs none, CRIU would start it four times
    /// only to find out what it can do, 10 ms in all.
    NoIptables,
}

/// The process group that CRIU runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// One of its own: Ctrl-C at the caller's terminal does not reach CRIU, so that the caller decides what it means.
    #[default]
    Own,
    /// The caller's: a restored shell job then belongs to the group that holds the terminal.
    Caller,
}

/// What CRIU's standard input is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// The caller's: a restored shell job takes its terminal from there.
    Caller,
}

/// How to start a `criu swrk`.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The CRIU program. A wrapper script must `exec` it.
    pub binary: PathBuf,
    /// The process group.
    pub group: Group,
    /// Standard input.
    pub stdin: Stdin,
    /// The file mode creation mask. CRIU would write memory pages that anyone may read.
    pub umask: u32,
    /// The mount namespace, if not the caller's; the binary must be reachable there. CRIU starts in its root directory.
    pub mount_namespace: Option<Arc<OwnedFd>>,
    /// The process beside which CRIU is started, if not in the caller's PID, network and IPC namespaces.
    pub neighbour: Option<Arc<Neighbour>>,
    /// The programs that CRIU finds.
    pub programs: Programs,
}

impl Launch {
    /// Starts `binary` in a process group of its own with `/dev/null` as standard input and the umask 077.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            group: Group::default(),
            stdin: Stdin::default(),
            umask: 0o077,
            mount_namespace: None,
            neighbour: None,
            programs: Programs::default(),
        }
    }

    /// Starts CRIU with `socket`, its end of the pair, and `inherited` open; both keep their numbers there.
    ///
    /// Its standard error goes to `stderr`; all other descriptors are closed, all signals have their default disposition, and
    /// no parent-death signal is set: a dump that lost its client must live to let the tree go.
    pub(super) fn spawn(&self, socket: OwnedFd, inherited: &[BorrowedFd<'_>], stderr: &File) -> Result<Child> {
        let mut keep: Vec<RawFd> = vec![socket.as_raw_fd()];
        keep.extend(inherited.iter().map(AsRawFd::as_raw_fd));
        let path = match self.programs {
            Programs::All => PATH,
            Programs::NoIptables => PATH_WITHOUT_IPTABLES,
        };
        let mut command = command(&self.binary);
        command
            .args(["--no-default-config", "swrk", &socket.as_raw_fd().to_string()])
            .env_clear()
            .env("PATH", path)
            .stdin(match self.stdin {
                Stdin::Null => Stdio::null(),
                Stdin::Caller => Stdio::inherit(),
            })
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().map_err(|source| Error::system("copy a descriptor", source))?);
        if self.group == Group::Own {
            command.process_group(0);
        }
        let umask = self.umask;
        let namespace = self.mount_namespace.clone();
        // SAFETY: `prepare_child` makes system calls only: it neither allocates nor takes a lock, as is required between fork
        // and exec, and `keep` was built before the fork.
        unsafe { command.pre_exec(move || prepare_child(&keep, umask, namespace.as_deref())) };
        let spawned = match &self.neighbour {
            Some(neighbour) => beside(neighbour, &mut command),
            None => command.spawn(),
        };
        spawned.map_err(|source| Error::Spawn { binary: self.binary.clone(), source })
        // `socket`, the child's end, is closed here: without this CRIU's death would not be seen as an end of file.
    }
}

/// Starts a command in the namespaces of another process: in a thread of its own, which is in them from then on.
fn beside(neighbour: &Neighbour, command: &mut Command) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let spawn = || {
            neighbour.join()?;
            command.spawn()
        };
        let thread = std::thread::Builder::new().name("crr-launch".into()).spawn_scoped(scope, spawn)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// The command that a CRIU program is. Beside the shell script of tools/setup-criu, which execs the dynamic linker of a private
/// prefix, lies what it execs, a word a line: without the shell CRIU starts 0.9 ms sooner.
fn command(binary: &Path) -> Command {
    let words = std::fs::read_to_string(binary.with_extension("argv")).unwrap_or_default();
    let mut words = words.lines();
    match words.next().map(Path::new) {
        Some(program) if program.is_absolute() => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        _ => Command::new(binary),
    }
}

/// Runs in the child, before exec: enters its mount namespace, closes (at exec) all but `keep`, and gives every signal its
/// default disposition.
fn prepare_child(keep: &[RawFd], umask: u32, namespace: Option<&OwnedFd>) -> io::Result<()> {
    if let Some(namespace) = namespace {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNS)?;
    }
    // SAFETY: plain system calls on integers; a failure of close_range (Linux < 5.11) leaves descriptors that are close-on-exec
    // from birth anyway, as far as this crate made them.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for &fd in keep {
            let flags = libc::fcntl(fd, libc::F_GETFD);
            if flags < 0 || libc::fcntl(fd, libc::F_SETFD, flags & !libc::FD_CLOEXEC) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // The kernel's struct sigaction, all zero: SIG_DFL, no flags, nothing masked. By system call, since libc keeps two
        // signals for itself that it neither changes nor lets anyone change, and they may come ignored from our parent.
        let default = [0_u64; 4];
        for signal in 1..=64 {
            // Fails for SIGKILL and SIGSTOP, which cannot be changed anyway.
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), 8);
        }
        libc::umask(umask);
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_wrapper_execs_is_started_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("criu");
        let words = |binary: &Path| {
            let command = command(binary);
            let arguments = command.get_args().map(|word| word.to_str().unwrap().to_owned());
            std::iter::once(command.get_program().to_str().unwrap().to_owned()).chain(arguments).collect::<Vec<_>>()
        };
        let plain = [binary.to_str().unwrap()];
        assert_eq!(words(&binary), plain, "no such file");
        let argv = binary.with_extension("argv");
        for bad in ["", "\n", "relative/ld.so\n"] {
            std::fs::write(&argv, bad).unwrap();
            assert_eq!(words(&binary), plain, "{bad:?}");
        }
        std::fs::write(&argv, "/lib/ld.so\n--library-path\n/a:/b\n/usr/sbin/criu\n").unwrap();
        assert_eq!(words(&binary), ["/lib/ld.so", "--library-path", "/a:/b", "/usr/sbin/criu"]);
    }
}
