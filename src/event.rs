//! Notifications: what CRIU tells in the middle of a dump or restore, and waits for an answer to.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use protobuf::Message;

use crate::error::Result;
use crate::proto::rpc::{Criu_notify, Criu_opts, Criu_req, Criu_req_type};
use crate::swrk::Channel;

/// Which moment of an operation an event marks.
///
/// Order in a dump: `PreDump`, `NetworkLock`, `QueryExtFiles`, `PostDump`, `NetworkUnlock`, `StatusReady`. In a restore:
/// `PreRestore`, `SetupNamespaces`, `PostSetupNamespaces`, `OrphanPtsMaster` (while files are opened), `PostRestore`,
/// `NetworkUnlock`, `PreResume`, `PostResume`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The tree still runs. Refused: the dump fails and nothing was touched.
    PreDump,
    /// The root has a network namespace of its own, and it is about to be locked. Refused: the dump fails, the tree runs on.
    NetworkLock,
    /// The tree is frozen; external files may be named in the answer. Refused: the dump fails, the tree runs on.
    QueryExtFiles,
    /// The images are complete and written, the tree is frozen. Refused: the dump fails, the tree runs on. Proceeding is the
    /// point of no return of a dump that kills.
    PostDump,
    /// The network is about to be unlocked. The answer is ignored.
    NetworkUnlock,
    /// A page server or lazy dump listens. Refused: it fails.
    StatusReady,
    /// Nothing was made yet. Refused: the restore fails.
    PreRestore,
    /// The namespaces are there; [`Event::pid`] is the root's. Refused: the tree is killed.
    SetupNamespaces,
    /// Mounts and the rest of the namespaces are there. Refused: the tree is killed.
    PostSetupNamespaces,
    /// The master side of an orphaned terminal came along: [`Event::take_descriptor`].
    OrphanPtsMaster,
    /// The tree is there but has not run; [`Event::pid`] is the root's. Refused: the tree is killed. Proceeding is the point
    /// of no return of a restore.
    PostRestore,
    /// The tree is about to run. The answer is ignored.
    PreResume,
    /// The tree runs. The answer is ignored.
    PostResume,
    /// An event of a CRIU newer than this crate.
    Other(String),
}

impl EventKind {
    pub(crate) fn from_script(script: &str) -> Self {
        match script {
            "pre-dump" => Self::PreDump,
            "network-lock" => Self::NetworkLock,
            "query-ext-files" => Self::QueryExtFiles,
            "post-dump" => Self::PostDump,
            "network-unlock" => Self::NetworkUnlock,
            "status-ready" => Self::StatusReady,
            "pre-restore" => Self::PreRestore,
            "setup-namespaces" => Self::SetupNamespaces,
            "post-setup-namespaces" => Self::PostSetupNamespaces,
            "orphan-pts-master" => Self::OrphanPtsMaster,
            "post-restore" => Self::PostRestore,
            "pre-resume" => Self::PreResume,
            "post-resume" => Self::PostResume,
            other => Self::Other(other.to_owned()),
        }
    }

    /// CRIU's name for it.
    pub fn name(&self) -> &str {
        match self {
            Self::PreDump => "pre-dump",
            Self::NetworkLock => "network-lock",
            Self::QueryExtFiles => "query-ext-files",
            Self::PostDump => "post-dump",
            Self::NetworkUnlock => "network-unlock",
            Self::StatusReady => "status-ready",
            Self::PreRestore => "pre-restore",
            Self::SetupNamespaces => "setup-namespaces",
            Self::PostSetupNamespaces => "post-setup-namespaces",
            Self::OrphanPtsMaster => "orphan-pts-master",
            Self::PostRestore => "post-restore",
            Self::PreResume => "pre-resume",
            Self::PostResume => "post-resume",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event that CRIU waits at. Dropping it unanswered refuses it: at once, but for [`EventKind::PreResume`], where even a
/// refusal lets the tree run, when the next event is asked for.
///
/// CRIU has no time-out here: a tree stays frozen for as long as its event is held.
#[derive(Debug)]
#[must_use = "dropping an event refuses it"]
pub struct Event<'operation> {
    channel: &'operation mut Channel,
    kind: EventKind,
    pid: Option<i32>,
    descriptor: Option<OwnedFd>,
    answered: bool,
}

impl<'operation> Event<'operation> {
    pub(crate) fn new(channel: &'operation mut Channel, notify: &Criu_notify, descriptor: Option<OwnedFd>) -> Self {
        let kind = EventKind::from_script(notify.script());
        Self { channel, kind, pid: notify.pid, descriptor, answered: false }
    }

    /// Which event this is.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// The PID of the tree's root as CRIU sees it: at [`EventKind::SetupNamespaces`] and [`EventKind::PostRestore`] only.
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// The descriptor that came with [`EventKind::OrphanPtsMaster`].
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// CRIU's PID.
    pub fn criu_pid(&self) -> i32 {
        self.channel.pid()
    }

    /// Our end of the socket to CRIU: as long as somebody has it open, CRIU does not take our death for an answer.
    pub(crate) fn line(&self) -> Option<BorrowedFd<'_>> {
        self.channel.line()
    }

    /// Lets CRIU go on.
    ///
    /// # Errors
    /// [`Error::Talk`](crate::Error::Talk) if CRIU is gone.
    ///
    /// # Cancellation
    /// The answer is sent whole or not at all; where not at all, the event is refused.
    pub async fn proceed(self) -> Result<()> {
        self.answer(true, None).await
    }

    /// Lets CRIU go on and names external files: an answer to [`EventKind::QueryExtFiles`].
    ///
    /// # Errors
    /// As [`Event::proceed`].
    pub async fn proceed_with_external(self, external: Vec<String>) -> Result<()> {
        let mut opts = Criu_opts::new();
        opts.set_images_dir_fd(-1);
        opts.external = external;
        self.answer(true, Some(opts)).await
    }

    /// Makes CRIU give up, where it still can: see [`EventKind`].
    ///
    /// # Errors
    /// As [`Event::proceed`].
    pub async fn refuse(self) -> Result<()> {
        self.answer(false, None).await
    }

    async fn answer(mut self, success: bool, opts: Option<Criu_opts>) -> Result<()> {
        let bytes = answer_bytes(success, opts)?;
        self.channel.send(&bytes).await?;
        self.answered = true;
        Ok(())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if !self.answered {
            match answer_bytes(false, None) {
                // CRIU lets the tree run here whatever the answer is: whoever gives the restore up must come first.
                Ok(bytes) if self.kind == EventKind::PreResume => self.channel.refuse_later(bytes),
                Ok(bytes) => self.channel.refuse(&bytes),
                Err(_) => self.channel.close(),
            }
        }
    }
}

fn answer_bytes(success: bool, opts: Option<Criu_opts>) -> Result<Vec<u8>> {
    let mut request = Criu_req::new();
    request.set_type(Criu_req_type::NOTIFY);
    request.set_notify_success(success);
    request.opts = opts.into();
    request.write_to_bytes().map_err(|source| crate::Error::Encode { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_event_and_back() {
        let names = "pre-dump network-lock query-ext-files post-dump network-unlock status-ready pre-restore setup-namespaces \
                     post-setup-namespaces orphan-pts-master post-restore pre-resume post-resume";
        for name in names.split_whitespace() {
            let kind = EventKind::from_script(name);
            assert_eq!(kind.name(), name);
            assert!(!matches!(kind, EventKind::Other(_)), "{name}");
        }
        assert_eq!(EventKind::from_script("pre-stream").name(), "pre-stream");
    }
}
