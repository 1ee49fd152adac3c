//! The other end of a container's terminal, for whoever listens on `--console-socket`.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::error::{Error, Result};

/// What the terminal is called: whoever receives it shows it to people at most.
const NAME: &[u8] = b"/dev/ptmx";

/// Sends `master` the way runc does: one message with a name, and the descriptor beside it.
///
/// # Errors
/// [`Error::Io`] if nobody listens there.
pub(super) fn send(socket: &Path, master: &OwnedFd) -> Result<()> {
    let sent = UnixStream::connect(socket).and_then(|stream| {
        let descriptors = [master.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(NAME)], &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(io::Error::from)
    });
    sent.map(drop).map_err(Error::io("send the terminal to", socket))
}
