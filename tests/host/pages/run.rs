//! A dump whose memory goes through a relay.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::thread;

use ::crr::operation::Session;
use ::crr::pages::{Link, Plain, Relay, Sent, Store, Stored};
use ::crr::request::{Afterwards, DumpOptions, ImageDirectory, PagesTo};
use ::crr::swrk::Launch;
use libtest_mimic::Failed;
use nix::unistd::pipe;
use tokio::runtime::Runtime;

use crate::victim::Victim;
use crate::{need, programs};

/// The tree: several processes with threads, private and shared memory and a memfd.
pub(super) fn tree(megabytes: u32) -> Result<Victim, Failed> {
    let victim = Victim::start(&programs::program("shared")?, &[&megabytes.to_string()])?;
    victim.await_ticks(2)?;
    Ok(victim)
}

pub(super) fn runtime() -> Result<Runtime, Failed> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(super) fn launch() -> Result<Launch, Failed> {
    Ok(Launch::new(need::criu().ok_or("no criu")?))
}

/// Two connected sockets.
pub(super) fn unix() -> Result<(Plain, Plain), Failed> {
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    Ok((Plain::socket(near)?, Plain::socket(far)?))
}

/// The streams of two processes, as between ssh and what it runs.
pub(super) fn pipes() -> Result<(Plain, Plain), Failed> {
    let ((near_in, far_out), (far_in, near_out)) = (pipe()?, pipe()?);
    Ok((Plain::pipes(near_in, near_out)?, Plain::pipes(far_in, far_out)?))
}

/// An empty directory, open.
pub(super) fn directory(path: &Path) -> Result<OwnedFd, Failed> {
    fs::create_dir(path)?;
    Ok(File::open(path)?.into())
}

/// Dumps; what CRIU writes itself goes to `images`. Gives CRIU's outcome and the relay's.
pub(super) fn dump<L: Link + 'static>(
    pid: i32,
    images: OwnedFd,
    afterwards: Afterwards,
    (relay, socket): (Relay, OwnedFd),
    near: L,
) -> Result<(::crr::Result<()>, ::crr::Result<Sent>), Failed> {
    let relaying = thread::spawn(move || relay.run(near).1);
    let launch = launch()?;
    let dumped = runtime()?.block_on(async {
        let session = Session::start_inheriting(&launch, &[socket.as_fd()])?;
        let mut options = DumpOptions::new(pid);
        options.afterwards = afterwards;
        options.pages_to = Some(PagesTo::Socket(socket));
        let mut dump = session.dump(ImageDirectory::new(images), options).await?;
        while let Some(event) = dump.next().await? {
            event.proceed().await?;
        }
        dump.finish().await.map(drop)
    });
    let sent = relaying.join().map_err(|_| "the relay panicked")?;
    Ok((dumped, sent))
}

/// Dumps into a store; all must pass.
pub(super) fn must_arrive(
    pid: i32,
    images: OwnedFd,
    afterwards: Afterwards,
    from: (Relay, OwnedFd),
    (near, far): (Plain, Plain),
    store: Store,
) -> Result<(Sent, Stored), Failed> {
    let storing = thread::spawn(move || store.run(far).1);
    let (dumped, sent) = dump(pid, images, afterwards, from, near)?;
    let stored = storing.join().map_err(|_| "the store panicked")?;
    let (sent, stored) = (sent.map_err(said)?, stored.map_err(said)?);
    dumped.map_err(said)?;
    Ok((sent, stored))
}

/// An error and its causes.
pub(super) fn said(error: ::crr::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
