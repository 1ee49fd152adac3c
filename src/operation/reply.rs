//! Replies.

use protobuf::Message;

use crate::error::{Error, Result};
use crate::proto::rpc::Criu_resp;

/// What a successful operation yields.
pub trait Reply: sealed::Sealed + Sized {
    #[doc(hidden)]
    fn read(response: &dyn ResponseAccess) -> Option<Self>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Dumped {}
    impl Sealed for super::Restored {}
}

/// What a reply holds, without the generated types in public.
#[doc(hidden)]
pub trait ResponseAccess {
    fn restored_pid(&self) -> Option<i32>;
}

impl ResponseAccess for Criu_resp {
    fn restored_pid(&self) -> Option<i32> {
        self.restore.as_ref().map(|restore| restore.pid())
    }
}

/// A dump that succeeded. Its times and counts are in the image `stats-dump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dumped {}

impl Reply for Dumped {
    fn read(_response: &dyn ResponseAccess) -> Option<Self> {
        Some(Self {})
    }
}

/// A restore that succeeded: the tree runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The PID of the root task, as CRIU sees it.
    pub pid: i32,
}

impl Reply for Restored {
    fn read(response: &dyn ResponseAccess) -> Option<Self> {
        response.restored_pid().filter(|pid| *pid > 0).map(|pid| Self { pid })
    }
}

/// A page server that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageServer {
    /// Its PID, for [`Session::wait_pid`](super::Session::wait_pid).
    pub pid: i32,
    /// Its TCP port; `None` where it works on an inherited socket.
    pub port: Option<u16>,
}

/// Decodes what CRIU sent. Never panics, whatever it was.
pub(crate) fn decode(attempt: &'static str, bytes: &[u8]) -> Result<Criu_resp> {
    Criu_resp::parse_from_bytes(bytes).map_err(|source| Error::Nonsense {
        attempt,
        what: format!("{} bytes that are no message: {source}", bytes.len()),
    })
}

/// Decodes a packet and reads it as every reply and event there is.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(response) = decode("fuzz", bytes) {
        let _ = (Dumped::read(&response), Restored::read(&response));
        let _ = response.version.as_ref().map(|version| crate::request::Version::from_proto(version).to_string());
        let _ = response.features.as_ref().map(crate::request::Features::from_proto);
        let _ =
            response.notify.as_ref().map(|notify| crate::event::EventKind::from_script(notify.script()).to_string());
    }
}
