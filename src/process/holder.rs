//! Who else has a pipe or socket open: a search through the descriptors of every process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::lines::Lines;
use super::namespace::parse_link;
use super::stat::Stat;

/// How long the search may take: on a host of thousands of processes a name for the peer is not worth more.
const SEARCH_LIMIT: Duration = Duration::from_millis(300);

/// A process outside the tree that has something of the tree's open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The process.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// Whether it may read there.
    pub reads: bool,
    /// Whether it may write there.
    pub writes: bool,
}

/// The processes outside a tree that have certain pipes and sockets open, by inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    found: BTreeMap<u64, Vec<Holder>>,
    /// Whether every process was looked at.
    pub complete: bool,
}

impl Holders {
    /// Searches all processes but those for which `is_ours`, for pipes and sockets with an inode that `is_wanted`.
    pub fn search(is_ours: impl Fn(i32) -> bool, is_wanted: impl Fn(u64) -> bool) -> Self {
        let mut holders = Self { found: BTreeMap::new(), complete: true };
        let mut lines = Lines::new();
        let began = Instant::now();
        let Ok(processes) = fs::read_dir("/proc") else {
            return Self::default();
        };
        for entry in processes.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if is_ours(pid) {
                continue;
            }
            if began.elapsed() > SEARCH_LIMIT {
                holders.complete = false;
                break;
            }
            holders.look_into(&entry.path(), pid, &is_wanted, &mut lines);
        }
        holders
    }

    fn look_into(&mut self, process: &Path, pid: i32, is_wanted: &impl Fn(u64) -> bool, lines: &mut Lines) {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return };
        let mut comm = None;
        for entry in descriptors.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let Some(("pipe" | "socket", inode)) = parse_link(&link.to_string_lossy()) else { continue };
            if !is_wanted(inode) {
                continue;
            }
            let comm = comm.get_or_insert_with(|| {
                let stat = lines.whole(process.join("stat")).ok().and_then(Stat::parse);
                stat.map_or_else(String::new, |stat| stat.comm)
            });
            // The permission bits of the link are the access mode of the descriptor.
            let mode = nix::sys::stat::lstat(&entry.path()).map_or(0, |status| status.st_mode);
            let (reads, writes) = (mode & 0o400 != 0, mode & 0o200 != 0);
            let list = self.found.entry(inode).or_default();
            match list.iter_mut().find(|holder| holder.pid == pid) {
                Some(holder) => {
                    holder.reads |= reads;
                    holder.writes |= writes;
                }
                None => list.push(Holder { pid, comm: comm.clone(), reads, writes }),
            }
        }
    }

    /// Who has `inode` open.
    pub fn of(&self, inode: u64) -> &[Holder] {
        self.found.get(&inode).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_other_end_of_a_pipe_is_found_with_its_direction() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let inode =
            nix::sys::stat::stat(format!("/proc/self/fd/{}", reader.as_raw_fd()).as_str()).expect("a stat").st_ino;
        let own = std::process::id() as i32;
        let holders = Holders::search(|pid| pid != own, |wanted| wanted == inode);
        assert!(holders.complete);
        let found = holders.of(inode);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].pid, found[0].reads, found[0].writes), (own, true, true));
        assert!(!found[0].comm.is_empty());
        assert_eq!(Holders::search(|_| true, |_| true).of(inode), []);
    }
}
