//! A restore as a container, which is its runtime's again afterwards.
//!
//! In five steps, each a module: CRIU is started in a mount namespace of its own (`stage`), which [`prepare`] does before there
//! are images. What the images say (`found`) and what the bundle and this host have for it is one plan, or a list of all that is
//! missing (`blueprint`). Then it is made, each thing written down before (see `journal`): for a clone a directory of its own, and
//! in the mount namespace the root file system, so that nothing is ever mounted where `runc delete` could reach it (`site`); and,
//! when the container that was dumped is gone (`original`), the container's directory in the runtime's root, which reserves the
//! name, and its cgroups with their limits (`guest`).
//!
//! At `setup-namespaces` the bundle's hooks run; at `post-restore`, when the tree is complete and has not run, the runtime's
//! state file is written. Until that is answered everything is undone on failure; afterwards the container runs.

mod blueprint;
mod cgroups;
mod console;
mod device_filter;
mod found;
mod guest;
mod limits;
mod mounts;
mod namespaces;
mod neighbours;
mod original;
mod pids;
mod readable;
mod rootfs;
mod site;
mod stage;
mod streams;
mod veths;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::host::cgroup::expect_moves;
use crate::oci::Id;
use crate::restore::{self, Request, Restoring};

pub(crate) use rootfs::clone_directory;
use site::Built;
use stage::Stage;

/// A container that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub id: Id,
    /// The runtime's root, such as /run/runc.
    pub runtime_root: PathBuf,
    /// Its bundle. `None`: the recorded one.
    pub bundle: Option<PathBuf>,
    /// Where its standard streams lead.
    pub stdio: Stdio,
    /// The socket that takes the other end of its terminal.
    pub console: Option<PathBuf>,
    /// Its veth interfaces. Those recorded that are not named here get the recorded peers.
    pub veths: Vec<Veth>,
    /// Namespaces to be restored into.
    pub joins: Vec<Join>,
    /// What its root file system is. `None`: the bundle's own, or an overlay over it where another container uses that.
    pub rootfs: Option<Rootfs>,
}

/// Where standard streams lead that came from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stdio {
    /// To where crr's own lead.
    #[default]
    Inherit,
    /// To the recorded files.
    Recorded,
    /// Nowhere.
    Null,
}

/// What the root file system of a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// An overlay of its own over the bundle's.
    Overlay,
    /// A copy of the bundle's.
    Copy,
    /// The bundle's own.
    Shared,
}

/// A veth interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Its name in the container.
    pub inside: String,
    /// The name of its other end, on the host.
    pub outside: String,
    /// The bridge that the other end is put into.
    pub bridge: Option<String>,
}

/// A namespace to be restored into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// As in /proc/PID/ns: `net`, `ipc`, `uts`, `user`, `mnt`, `time`.
    pub kind: String,
    /// Whose it is.
    pub target: JoinTarget,
    /// For `user`: "uid,gid".
    pub extra: Option<String>,
}

/// Whose namespace it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinTarget {
    /// That of a process.
    Pid(i32),
    /// The one that is bound to this file.
    File(PathBuf),
    /// That of a running container, in the same runtime's root.
    Container(String),
}

/// A restore of a container that has begun.
#[derive(Debug)]
pub struct Begun {
    /// The restore under way.
    pub restoring: Restoring,
    /// What was found and removed of restores that were killed, and what else was decided.
    pub notes: Vec<String>,
    /// How long it took to look and to make what the container needs, the next one aside.
    pub prepare: Duration,
    /// How long it took to copy its root file system, or to make its overlay.
    pub copy: Duration,
}

/// A restore of a container for which all is ready that does not depend on the images, CRIU included.
#[derive(Debug)]
pub struct Prepared {
    wanted: Wanted,
    request: Request,
    stage: Stage,
}

/// Prepares a restore whose images are not there yet.
///
/// # Errors
/// [`Error::NoCriu`](crate::Error::NoCriu) and the like: nothing is left then.
pub async fn prepare(wanted: Wanted, request: Request) -> Result<Prepared> {
    let mut stage = Stage::set(&request, true).await?;
    stage.start(wanted.stdio, &request)?;
    Ok(Prepared { wanted, request, stage })
}

impl Prepared {
    /// Begins it, now that the images are there.
    ///
    /// # Errors
    /// As [`begin`].
    ///
    /// # Cancellation
    /// As [`begin`].
    pub async fn begin(self) -> Result<Begun> {
        let Self { wanted, request, stage } = self;
        expect_moves();
        go_on(wanted, request, stage, Instant::now()).await
    }
}

/// Begins the restore of a checkpoint as a container. The request's options are the caller's; what the container needs is added.
///
/// # Errors
/// [`Error::Unrestorable`] with everything that stands against it, [`Error::Container`] for a bundle that cannot be used, else
/// as [`restore::begin`]. Nothing is left then.
///
/// # Cancellation
/// Dropping the future leaves nothing, though it may take as long as it takes to remove what was made.
pub async fn begin(wanted: Wanted, request: Request) -> Result<Begun> {
    let start = Instant::now();
    expect_moves();
    let mut stage = Stage::set(&request, false).await?;
    // While it starts the images are looked at.
    stage.start(wanted.stdio, &request)?;
    go_on(wanted, request, stage, start).await
}

async fn go_on(wanted: Wanted, request: Request, stage: Stage, start: Instant) -> Result<Begun> {
    let built = tokio::task::spawn_blocking(move || {
        let notes = super::sweep();
        stage.build(wanted, request).map(|built| (built, notes))
    });
    let (built, mut notes) = built.await.map_err(|error| Error::system("prepare", std::io::Error::other(error)))??;
    let Built { request, notes: more, copy } = built;
    notes.extend(more);
    let prepare = start.elapsed().saturating_sub(copy);
    let restoring = restore::begin(request).await?;
    Ok(Begun { restoring, notes, prepare, copy })
}
