//! Who looks again while the container stands still: since the first look tasks, connections and files may have come.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ending::Ending;
use super::network::has_connections;
use super::outsiders::{Members, described};
use super::readers::Readers;
use crate::container::tmpfs::Tmpfs;
use crate::dump::Attendant;
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::host::TcpSockets;

/// Why a dump that was refused may be repeated, in another way.
#[derive(Clone, Debug, Default)]
pub(super) struct Again {
    /// A connection has come: with the network locked.
    connected: Arc<AtomicBool>,
    /// A tmpfs has come to hold data: with all of them in the images.
    filled: Arc<AtomicBool>,
}

impl Again {
    pub(super) fn with_lock(&self) -> bool {
        self.connected.load(Ordering::SeqCst)
    }

    pub(super) fn with_tmpfs(&self) -> bool {
        self.filled.load(Ordering::SeqCst)
    }
}

/// The attendant of a container's dump.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) id: String,
    pub(super) members: Members,
    /// Tasks that are not in the tree are let go of.
    pub(super) drop_exec: bool,
    /// The connections of a container whose network is not locked.
    pub(super) unlocked: Option<TcpSockets>,
    /// What is left out of the images.
    pub(super) tmpfs: Vec<Tmpfs>,
    /// What follows a dump that ends the container.
    pub(super) ending: Option<Ending>,
    /// Who must be able to read the images.
    pub(super) readers: Option<Readers>,
    pub(super) again: Again,
}

impl Watch {
    fn stay_unconnected(&self) -> Result<()> {
        match &self.unlocked {
            Some(sockets) if has_connections(Some(sockets)) => {
                self.again.connected.store(true, Ordering::SeqCst);
                Err(Error::Connected { id: self.id.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl Attendant for Watch {
    fn attend(&mut self, event: &EventKind, images: &Path) -> Result<()> {
        match event {
            EventKind::QueryExtFiles => {
                let outsiders = if self.drop_exec { Vec::new() } else { self.members.outsiders_quickly() };
                if !outsiders.is_empty() {
                    return Err(Error::Outsiders { id: self.id.clone(), tasks: described(&outsiders) });
                }
                if let Some(changed) = self.tmpfs.iter().find(|tmpfs| !tmpfs.is_unchanged()) {
                    self.again.filled.store(true, Ordering::SeqCst);
                    return Err(Error::Filled { place: changed.recorded().destination.clone() });
                }
                self.stay_unconnected()
            }
            EventKind::PostDump => {
                if let Some(readers) = &self.readers {
                    readers.let_in(images)?;
                }
                match &self.ending {
                    // The kernel may have accepted one since, for a program that will not be there to answer.
                    Some(ending) => {
                        self.stay_unconnected()?;
                        ending.note()
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn tidy(&mut self) -> Vec<String> {
        self.ending.as_ref().map(Ending::finish).unwrap_or_default()
    }
}
