//! A private mount namespace for one operation of CRIU's.
//!
//! What CRIU needs mounted for a container (its root, file systems that are to be handed over, overlays) is mounted where no
//! other process sees it, and goes away with the last descriptor of, or process in, the namespace: a crr that is killed leaves
//! no mount behind, and nothing that removes directories can reach a root file system through a mount of ours.
//!
//! Places of ours are below [`PLACE`] there: in a tmpfs of the namespace itself. The machine only has the directory `/run/crr`.
//!
//! Where `/run` is no tmpfs CRIU looks at the kernel anew in each operation, for 25 to 45 ms: it keeps what it finds in
//! `/run/criu.kdat`, but only if that cannot outlive the kernel. [`FeatureCache`] gives it a `/run` that is a tmpfs, and puts
//! the file in and takes it out again.
//!
//! A tree without a mount namespace of its own must share CRIU's: an arena is for containers and for copies.

mod features;
pub(crate) mod mount;
mod plan;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, ResolveFlags};

pub use features::FeatureCache;
pub use plan::{Plan, TmpfsOptions};

use crate::error::{Error, Result};
use features::Loaded;

/// Where an arena has its own directories.
pub const PLACE: &str = "/run/crr";

/// A mount namespace, and a way into it.
#[derive(Debug)]
pub struct Arena {
    namespace: Arc<OwnedFd>,
    /// The namespace's root directory. Paths are resolved from it without entering the namespace.
    top: OwnedFd,
    features: Option<Loaded>,
    /// Whether it sees yet what is mounted outside.
    follows: bool,
}

impl Arena {
    /// Makes the namespace and mounts in it what is planned. Blocks for less than a millisecond.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::System`]; nothing is left then.
    pub fn new(plan: Plan) -> Result<Self> {
        mount::make_place()?;
        in_thread(|| {
            // The thread's own root and working directory: those of the process stay what they are.
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
                .map_err(|errno| Error::system("make a mount namespace", errno))?;
            if plan.follows {
                mount::follow()?
            } else {
                mount::make_private()?
            }
            let follows = plan.follows;
            let features = plan.begin()?;
            let namespace =
                File::open("/proc/thread-self/ns/mnt").map_err(Error::io("open", "/proc/thread-self/ns/mnt"))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let top =
                rustix::fs::open("/", flags, Mode::empty()).map_err(|errno| Error::io("open", "/")(errno.into()))?;
            Ok(Self { namespace: Arc::new(namespace.into()), top, features, follows })
        })?
    }

    /// Mounts more in it, at any time: a CRIU that was started there before sees it. The plan's features come too late.
    ///
    /// # Errors
    /// As [`Arena::new`]; what was mounted before the failure stays.
    pub fn mount(&self, plan: Plan) -> Result<()> {
        self.run_inside(|| {
            if self.follows {
                mount::make_private()?;
            }
            plan.go_on()
        })?
    }

    /// The namespace, for [`Launch::mount_namespace`](crate::swrk::Launch::mount_namespace).
    pub fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }

    /// Opens a file as it is seen in there; symbolic links stay in there as well. Needs no thread.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        let path = path.as_ref();
        let opened = rustix::fs::openat2(
            &self.top,
            path,
            flags | OFlags::CLOEXEC,
            match flags.contains(OFlags::CREATE) {
                true => Mode::RUSR | Mode::WUSR,
                false => Mode::empty(),
            },
            ResolveFlags::IN_ROOT,
        );
        opened.map_err(|errno| Error::io("open", path)(errno.into()))
    }

    /// Runs something in a thread that has entered the namespace.
    ///
    /// # Errors
    /// [`Error::System`] if no thread can be had or it may not enter.
    pub fn run_inside<R: Send>(&self, run: impl FnOnce() -> R + Send) -> Result<R> {
        let namespace: BorrowedFd<'_> = self.namespace.as_fd();
        in_thread(move || {
            unshare(CloneFlags::CLONE_FS)
                .and_then(|()| setns(namespace, CloneFlags::CLONE_NEWNS))
                .map_err(|errno| Error::system("enter the mount namespace of the operation", errno))?;
            Ok(run())
        })?
    }

    /// Keeps what CRIU found out about the kernel, if it did. To be called when CRIU has ended, or at any of its events.
    ///
    /// # Errors
    /// As [`RuntimeDirectory::write`](crate::host::RuntimeDirectory::write). Nothing but time is lost then.
    pub fn keep_features(&mut self) -> Result<()> {
        match &mut self.features {
            Some(features) => features.keep(),
            None => Ok(()),
        }
    }

    /// Whether CRIU was given what is known about the kernel. `None` where that is no matter of ours: `/run` is a tmpfs.
    pub fn had_features(&self) -> Option<bool> {
        self.features.as_ref().map(Loaded::was_known)
    }
}

/// The path of a directory of ours in the arena.
pub fn place(name: &str) -> PathBuf {
    Path::new(PLACE).join(name)
}

/// Runs something in a thread of its own and waits for it: what it does to its mount namespace ends with it.
pub(crate) fn in_thread<R: Send>(run: impl FnOnce() -> R + Send) -> Result<R> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("crr-arena".into());
        let thread =
            thread.spawn_scoped(scope, run).map_err(|source: io::Error| Error::system("start a thread", source))?;
        thread.join().map_err(|_| Error::Bug { what: "the arena's thread panicked" })
    })
}
