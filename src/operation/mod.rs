//! Operations in progress: a chain of requests to one CRIU process, events, replies and cancellation.
//!
//! A [`Session`] is one `criu swrk` process. It may be asked small things first and ends with one dump or restore, an
//! [`Operation`], whose events the caller's own loop answers:
//!
//! ```no_run
//! use crr::event::EventKind;
//! use crr::operation::Session;
//! use crr::request::{DumpOptions, ImageDirectory};
//! use crr::swrk::Launch;
//!
//! # async fn dump(pid: i32, directory: std::os::fd::OwnedFd) -> crr::Result<()> {
//! let session = Session::start(&Launch::new("criu"))?;
//! let mut dump = session.dump(ImageDirectory::new(directory), DumpOptions::new(pid)).await?;
//! while let Some(event) = dump.next().await? {
//!     match event.kind() {
//!         EventKind::PostDump => {
//!             // The images are complete and the tree is frozen: make them safe before it is killed.
//!             event.proceed().await?;
//!         }
//!         _ => event.proceed().await?,
//!     }
//! }
//! let dumped = dump.finish().await?;
//! # Ok(()) }
//! ```

mod interrupt;
mod pause;
mod reply;
mod session;

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};

use crate::error::{Error, Result};
use crate::event::Event;
use crate::proto::rpc::{Criu_req_type, Criu_resp};
use crate::request::{ImageDirectory, Log};
use crate::swrk::{Channel, Packet, Reaping, Watch};

pub use interrupt::{Interrupt, Interrupter, Wish};
pub use reply::{Dumped, PageServer, Reply, Restored};
pub use session::Session;

pub(crate) use pause::pause;
pub(crate) use reply::fuzz as fuzz_reply;

/// So much of a failed operation's log is kept, from its end.
const LOG_LIMIT: u64 = 1 << 20;

/// A dump or restore that CRIU is working on.
///
/// Dropping it cancels it as [`Operation::cancel`] does, with 120 s of
/// grace.
pub struct Operation<R> {
    channel: Channel,
    directory: ImageDirectory,
    log: Log,
    /// Descriptors that CRIU opens through this process or inherits: open until the end.
    _kept: Vec<OwnedFd>,
    expected: Criu_req_type,
    response: Option<Criu_resp>,
    reply: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for Operation<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("channel", &self.channel)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl<R: Reply> Operation<R> {
    /// Waits for the next event; `None` when CRIU has replied and [`Operation::finish`] is next.
    ///
    /// # Errors
    /// [`Error::Hangup`] when CRIU died, [`Error::Hang`] when it does not answer (it still runs then), [`Error::Nonsense`] when
    /// it said what no CRIU says.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing; it may be called again.
    pub async fn next(&mut self) -> Result<Option<Event<'_>>> {
        if self.response.is_some() {
            return Ok(None);
        }
        let Packet { bytes, descriptor } = self.channel.recv(Some(&self.directory.images)).await?;
        let mut response = reply::decode(self.channel.attempt, &bytes)?;
        if response.type_() == Criu_req_type::NOTIFY {
            return match response.notify.take() {
                Some(notify) => Ok(Some(Event::new(&mut self.channel, &notify, descriptor))),
                None => Err(self.nonsense("a notification that names no event")),
            };
        }
        if response.type_() != self.expected {
            let what = format!("a reply of the type {:?} instead of {:?}", response.type_(), self.expected);
            return Err(self.nonsense(what));
        }
        self.response = Some(response);
        Ok(None)
    }

    /// Proceeds at every event that is left, waits for the reply and for CRIU's end.
    ///
    /// # Errors
    /// As [`Operation::next`], and [`Error::Refused`] with CRIU's log when it reports failure. A dump that failed has let its
    /// tree run on; a restore that failed has killed what it made.
    ///
    /// # Cancellation
    /// Dropping the future cancels the operation.
    pub async fn finish(mut self) -> Result<R> {
        while let Some(event) = self.next().await? {
            event.proceed().await?;
        }
        let response = self.response.take().unwrap_or_default();
        let exit = self.channel.wait().await;
        if response.success() {
            let reply = R::read(&response).ok_or_else(|| self.nonsense("success, but without its result"))?;
            return Ok(reply);
        }
        // CRIU reports its exit through the reply; a signal after it means that what it reports may be only half the truth.
        if let Some(exit) = exit.filter(|exit| exit.status.code().is_none()) {
            return Err(Error::Hangup { attempt: self.channel.attempt, status: exit.status, stderr: exit.stderr });
        }
        Err(Error::Refused { attempt: self.channel.attempt, errno: response.cr_errno, log: self.log_text() })
    }

    /// Whether CRIU has replied, and with success: all that is left for it is to end, which takes it half a millisecond. Work
    /// may be done beside [`Operation::finish`] then.
    pub fn has_succeeded(&self) -> bool {
        self.response.as_ref().is_some_and(Criu_resp::success)
    }

    /// Closes the socket: CRIU takes that for a refusal at its next event, and is killed when it has
    /// shown no sign of life (no processor time used) for `grace`.
    ///
    /// A dump that is cancelled goes on until its memory is written, then lets its tree run on; killed, it leaves its parasite
    /// mapping in the tasks. A restore that is cancelled before `post-restore` was answered kills what it made.
    /// `None` if CRIU has ended already.
    pub fn cancel(mut self, grace: Duration) -> Option<Reaping> {
        self.channel.abandon(grace)
    }

    /// CRIU's PID.
    pub fn criu_pid(&self) -> i32 {
        self.channel.pid()
    }

    /// How long CRIU may owe an answer.
    pub fn watch(&mut self, watch: Watch) {
        self.channel.watch = watch;
    }

    /// The tail of the log, for an explanation of what went wrong; `None` where none was written.
    pub fn log_text(&self) -> Option<Vec<u8>> {
        tail_of(&self.directory, &self.log, LOG_LIMIT)
    }

    fn nonsense(&self, what: impl Into<String>) -> Error {
        Error::Nonsense { attempt: self.channel.attempt, what: what.into() }
    }
}

/// The last `limit` bytes of a log.
fn tail_of(directory: &ImageDirectory, log: &Log, limit: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::from(openat(directory.work(), log.file.as_str(), flags, Mode::empty()).ok()?);
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(limit))).ok()?;
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text).ok()?;
    Some(text)
}
