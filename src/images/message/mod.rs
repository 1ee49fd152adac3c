//! Messages of image files by the whole of CRIU's layout, for whoever must know that nothing was left out.
//!
//! The typed readers beside this one decode what crr has a use for and pass over the rest. A [`Message`] has every field by
//! name, and is an error unless all of it is understood: a field that CRIU 4.2 does not know, one that comes twice, a number
//! that is too large for its type, a text with a NUL byte in it. So another reader, CRIU's in C above all, cannot see anything
//! else in the same bytes.

mod decode;
mod layout;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufReader, Read};

use self::decode::decode;
pub use self::layout::{Field, Label, Layout, Type};
use super::record::Reader;
use super::{Images, Kind};
use crate::error::Result;

/// A message, all of its fields known.
#[derive(Clone, Debug)]
pub struct Message {
    layout: &'static Layout,
    fields: Vec<(&'static Field, Value)>,
}

/// What a field holds.
#[derive(Clone, Debug)]
enum Value {
    /// A number or truth value; negative ones sign-extended.
    Number(u64),
    Bytes(Vec<u8>),
    Message(Message),
}

impl Message {
    /// CRIU's name for this kind of message.
    pub fn name(&self) -> &'static str {
        self.layout.name
    }

    /// A number, or a truth value as 0 or 1. Of a signed one all bits.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.numbers(field).next()
    }

    /// All numbers of a field that may come more than once.
    pub fn numbers(&self, field: &str) -> impl Iterator<Item = u64> {
        self.values(field).filter_map(|value| match value {
            Value::Number(number) => Some(*number),
            _ => None,
        })
    }

    /// Bytes or text.
    pub fn bytes(&self, field: &str) -> Option<&[u8]> {
        self.all_bytes(field).next()
    }

    /// All of a field of bytes that may come more than once.
    pub fn all_bytes(&self, field: &str) -> impl Iterator<Item = &[u8]> {
        self.values(field).filter_map(|value| match value {
            Value::Bytes(bytes) => Some(bytes.as_slice()),
            _ => None,
        })
    }

    /// A message in this one.
    pub fn message(&self, field: &str) -> Option<&Message> {
        self.messages(field).next()
    }

    /// All messages of a field that may come more than once.
    pub fn messages(&self, field: &str) -> impl Iterator<Item = &Message> {
        self.values(field).filter_map(|value| match value {
            Value::Message(message) => Some(message),
            _ => None,
        })
    }

    /// This message and all that are in it, however deep, of this name.
    pub fn every<'a>(&'a self, name: &str) -> Vec<&'a Message> {
        let (mut found, mut pending) = (Vec::new(), vec![self]);
        while let Some(message) = pending.pop() {
            if message.layout.name == name {
                found.push(message);
            }
            pending.extend(message.fields.iter().filter_map(|(_, value)| match value {
                Value::Message(message) => Some(message),
                _ => None,
            }));
        }
        found
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &Value> {
        let wanted = self.layout.named(name);
        debug_assert!(wanted.is_some(), "{} has no field {name}", self.layout.name);
        let number = wanted.map(|field| field.number);
        self.fields.iter().filter(move |(field, _)| Some(field.number) == number).map(|(_, value)| value)
    }
}

/// The messages of one image, read one by one. Raw bytes between them are passed over.
#[derive(Debug)]
pub struct Messages<R = BufReader<File>> {
    reader: Option<Reader<R>>,
    kind: Kind,
}

impl Images {
    /// Reads every record of an image, by all of its fields.
    ///
    /// # Errors
    /// As of every reader; see [`Messages`] for those of the records.
    pub fn messages(&self, kind: Kind, id: u32) -> Result<Messages> {
        Ok(Messages::new(self.reader(kind, id)?, kind))
    }
}

impl<R: Read> Messages<R> {
    pub(super) fn new(reader: Reader<R>, kind: Kind) -> Self {
        Self { reader: Some(reader), kind }
    }

    fn read(&mut self) -> Result<Option<Message>> {
        let Some(reader) = self.reader.as_mut() else { return Ok(None) };
        let layout = layout_of(self.kind, reader.records() > 0);
        let Some(bytes) = reader.bytes()? else { return Ok(None) };
        let message = decode(layout, bytes);
        let message = message.map_err(|fault| reader.undecodable(layout.name, &fault.to_string()))?;
        let number = |field| message.number(field).unwrap_or(0);
        match self.kind {
            Kind::TcpStream => reader.skip(number("inq_len").saturating_add(number("outq_len")))?,
            Kind::PipeData | Kind::FifoData => reader.skip(number("bytes"))?,
            Kind::SocketQueues => reader.skip(number("length"))?,
            Kind::IpcSharedMemory if number("in_pagemaps") == 0 => {
                reader.skip(number("size").checked_next_multiple_of(4).unwrap_or(u64::MAX))?;
            }
            Kind::Ghost if layout.name == "ghost_chunk_entry" => reader.skip(number("len"))?,
            Kind::Ghost if number("chunks") == 0 => reader.skip_rest()?,
            _ => {}
        }
        Ok(Some(message))
    }
}

impl<R: Read> Iterator for Messages<R> {
    type Item = Result<Message>;

    /// The next record. What can be read no further than a bad record ends there.
    fn next(&mut self) -> Option<Result<Message>> {
        let next = self.read().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.reader = None;
        }
        next
    }
}

/// What the records of a kind of image are. Of two kinds the first differs from the others.
fn layout_of(kind: Kind, later: bool) -> &'static Layout {
    Layout::of(match kind {
        Kind::Inventory => "inventory_entry",
        Kind::Pstree => "pstree_entry",
        Kind::Core => "core_entry",
        Kind::Ids => "task_kobj_ids_entry",
        Kind::Descriptors => "fdinfo_entry",
        Kind::Files => "file_entry",
        Kind::Memory => "mm_entry",
        Kind::Pagemap | Kind::SharedPagemap if !later => "pagemap_head",
        Kind::Pagemap | Kind::SharedPagemap => "pagemap_entry",
        Kind::Directories => "fs_entry",
        Kind::Remaps => "remap_file_path_entry",
        Kind::Ghost if !later => "ghost_file_entry",
        Kind::Ghost => "ghost_chunk_entry",
        Kind::Memfds => "memfd_inode_entry",
        Kind::TcpStream => "tcp_stream_entry",
        Kind::Locks => "file_lock_entry",
        Kind::Cgroups => "cgroup_entry",
        Kind::Terminals => "tty_info_entry",
        Kind::PipeData | Kind::FifoData => "pipe_data_entry",
        Kind::SocketQueues => "sk_packet_entry",
        Kind::DumpStatistics | Kind::RestoreStatistics => "stats_entry",
        Kind::Seccomp => "seccomp_entry",
        Kind::Mounts => "mnt_entry",
        Kind::Uts => "utsns_entry",
        Kind::IpcSharedMemory => "ipc_shm_entry",
        Kind::TimeNamespace => "timens_entry",
        Kind::UserNamespace => "userns_entry",
        Kind::NetNamespace => "netns_entry",
        Kind::NetDevices => "net_device_entry",
        Kind::Cpu => "cpuinfo_entry",
        Kind::AppArmor => "apparmor_entry",
    })
}
