//! A restore as a container, which is its runtime's again afterwards.
//!
//! [`begin`] looks at the checkpoint and the bundle first and names everything that is missing at once. Then it makes, each
//! written down before (see `journal`): the container's directory in the runtime's root, which reserves the name; its cgroups
//! with their limits; for a clone a directory of its own. CRIU is started in a mount namespace of its own that has the root
//! file system mounted, so nothing is ever mounted where `runc delete` could reach it.
//!
//! At `setup-namespaces` the bundle's hooks run; at `post-restore`, when the tree is complete and has not run, the runtime's
//! state file is written. Until that is answered everything is undone on failure; afterwards the container runs.

mod cgroups;
mod console;
mod device_filter;
mod guest;
mod limits;
mod mounts;
mod namespaces;
mod prepare;
mod readable;
mod rootfs;
mod streams;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::arena::FeatureCache;
use crate::criu::{Identity, InetSockets, Search};
use crate::error::{Error, Result};
use crate::host::KernelRelease;
use crate::host::cgroup::expect_moves;
use crate::oci::Id;
use crate::restore::{self, Request, Restoring};

pub(crate) use rootfs::clone_directory;

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
    let search = Search::new(request.criu.clone(), std::env::var_os("PATH").as_deref());
    let chosen = search.choose(InetSockets::Unknown).await?;
    let features = features(&chosen.binary);
    let prepared = tokio::task::spawn_blocking(move || {
        let notes = super::sweep();
        prepare::prepare(wanted, request, &chosen, features).map(|prepared| (prepared, notes))
    });
    let (prepared, mut notes) =
        prepared.await.map_err(|error| Error::system("prepare", std::io::Error::other(error)))??;
    let prepare::Prepared { request, notes: more, copy } = prepared;
    notes.extend(more);
    let prepare = start.elapsed().saturating_sub(copy);
    let restoring = restore::begin(request).await?;
    Ok(Begun { restoring, notes, prepare, copy })
}

/// What is known about the kernel by this CRIU; without it CRIU looks itself.
fn features(binary: &std::path::Path) -> Option<FeatureCache> {
    let kernel = KernelRelease::running().ok()?;
    Identity::of(binary, &kernel).ok().map(|identity| identity.features())
}
