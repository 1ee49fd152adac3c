//! Reading an image of any kind to its end, for nothing but to know that it can be.

use std::io::Read;
use std::path::PathBuf;

use super::cgroup::Cgroups;
use super::message::Messages;
use super::record::{Reader, Record};
use super::*;
use crate::proto::images::{ghost_file, ipc_shm, pipe_data, sk_packet};

/// Reads all of an image; gives the number of records.
pub(super) fn walk<R: Read>(reader: Reader<R>, kind: Kind) -> Result<u64> {
    match kind {
        Kind::Inventory => one::<Inventory, _>(reader),
        Kind::Pstree => each::<Task, _>(reader),
        Kind::Core => one::<Core, _>(reader),
        Kind::Ids => one::<Ids, _>(reader),
        Kind::Descriptors => each::<Descriptor, _>(reader),
        Kind::Files => each::<OpenFile, _>(reader),
        Kind::Memory => one::<Memory, _>(reader),
        Kind::Directories => one::<Directories, _>(reader),
        Kind::Pagemap | Kind::SharedPagemap => {
            Pagemap::new(reader)?.try_fold(0, |count, range| range.map(|_| count + 1))
        }
        Kind::Remaps => each::<Remap, _>(reader),
        Kind::Memfds => each::<Memfd, _>(reader),
        Kind::Mounts => each::<Mount, _>(reader),
        Kind::Terminals => each::<Terminal, _>(reader),
        Kind::Locks => each::<Lock, _>(reader),
        Kind::Cgroups => one::<Cgroups, _>(reader),
        Kind::TcpStream => one::<TcpStream, _>(reader),
        Kind::DumpStatistics => one::<DumpStatistics, _>(reader),
        Kind::RestoreStatistics => one::<RestoreStatistics, _>(reader),
        Kind::Ghost => ghost(reader),
        Kind::PipeData | Kind::FifoData => {
            followed(reader, |record: &pipe_data::Pipe_data_entry| u64::from(record.bytes()))
        }
        Kind::IpcSharedMemory => followed(reader, |record: &ipc_shm::Ipc_shm_entry| {
            // In whole words of four bytes, by a CRIU before the pagemaps.
            if record.in_pagemaps() { 0 } else { record.size().checked_next_multiple_of(4).unwrap_or(u64::MAX) }
        }),
        Kind::SocketQueues => followed(reader, |record: &sk_packet::Sk_packet_entry| u64::from(record.length())),
        Kind::Seccomp
        | Kind::Uts
        | Kind::TimeNamespace
        | Kind::UserNamespace
        | Kind::NetNamespace
        | Kind::NetDevices
        | Kind::Cpu
        | Kind::AppArmor => framed(reader),
    }
}

fn one<T: Record, R: Read>(reader: Reader<R>) -> Result<u64> {
    reader.only::<T>().map(|_| 1)
}

fn each<T: Record, R: Read>(mut reader: Reader<R>) -> Result<u64> {
    while reader.next::<T>()?.is_some() {}
    Ok(reader.records())
}

/// Records of which only the length is looked at.
fn framed<R: Read>(mut reader: Reader<R>) -> Result<u64> {
    while reader.bytes()?.is_some() {}
    Ok(reader.records())
}

fn followed<M: protobuf::Message, R: Read>(mut reader: Reader<R>, raw_bytes: fn(&M) -> u64) -> Result<u64> {
    while let Some(record) = reader.message()? {
        reader.skip(raw_bytes(&record))?;
    }
    Ok(reader.records())
}

fn ghost<R: Read>(mut reader: Reader<R>) -> Result<u64> {
    let head: GhostFile = reader.next()?.ok_or_else(|| reader.fault(ImageFault::NoRecord))?;
    if head.chunks {
        return followed(reader, |chunk: &ghost_file::Ghost_chunk_entry| chunk.len());
    }
    reader.skip_rest()?;
    Ok(reader.records())
}

/// Reads `data` as an image of every kind that has its magic words.
pub(crate) fn fuzz(data: &[u8]) {
    let word = |place: usize| data.get(place..place + 4).map(|word| word.try_into().map_or(0, u32::from_le_bytes));
    for &kind in Kind::ALL {
        let [first, second] = kind.header();
        if first == word(0) && (second.is_none() || second == word(4)) {
            // Errors are what most inputs deserve.
            let path = PathBuf::from(kind.file_name(1));
            let reader = || Reader::new(data, data.len() as u64, path.clone(), kind);
            let _ = reader().and_then(|reader| walk(reader, kind));
            let _ = reader().map(|reader| Messages::new(reader, kind).count());
        }
    }
}
