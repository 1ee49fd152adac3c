//! The socket on which a runtime hands over a container's terminal, and the one who sits at that terminal.

use std::fs::File;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libtest_mimic::Failed;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::until::{SOON, until};

/// A listening socket: `--console-socket`. One terminal after another may come.
pub(crate) struct Console {
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The masters, in the order in which they came.
    terminals: Vec<File>,
    /// What all of them showed.
    text: Vec<u8>,
}

impl Console {
    /// Listens at a path.
    pub(crate) fn listen(path: PathBuf) -> Result<Self, Failed> {
        let listener = UnixListener::bind(&path)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        // These threads end with the program at the latest: nobody waits for them.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(master) = receive(&stream) else { continue };
                let (Ok(mut shown), shared) = (master.try_clone(), Arc::clone(&shared)) else { continue };
                shared.lock().unwrap_or_else(PoisonError::into_inner).terminals.push(master);
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    // An error is how a terminal says that its last user is gone.
                    while let Ok(read @ 1..) = shown.read(&mut buffer) {
                        let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.text.extend_from_slice(&buffer[..read]);
                    }
                });
            }
        });
        Ok(Self { path, seen })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this many terminals have come.
    pub(crate) fn await_terminals(&self, count: usize) -> Result<(), Failed> {
        until(format_args!("terminal {count}"), SOON, || (self.seen().terminals.len() >= count).then_some(()))
    }

    /// What they showed, without carriage returns.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen().text).replace('\r', "")
    }

    /// Types at the one that came last.
    pub(crate) fn type_in(&self, line: &str) -> Result<(), Failed> {
        let terminal = self.seen().terminals.last().ok_or("no terminal has come")?.try_clone()?;
        Ok((&terminal).write_all(line.as_bytes())?)
    }

    /// Types a line, and waits until a line of what is shown is `wanted`.
    pub(crate) fn answers(&self, line: &str, wanted: &str) -> Result<(), Failed> {
        let before = self.text().len();
        self.type_in(&format!("{line}\n"))?;
        let shown = until(format_args!("{wanted:?} on the terminal"), SOON, || {
            self.text().get(before..)?.lines().any(|line| line == wanted).then_some(())
        });
        shown.map_err(|failed| format!("{}; it showed {:?}", failed.message().unwrap_or_default(), self.text()).into())
    }
}

/// The descriptor that comes on a connection.
fn receive(stream: &std::os::unix::net::UnixStream) -> Option<File> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    descriptors.pop().map(File::from)
}
