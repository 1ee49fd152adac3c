//! Who else has a pipe, socket, terminal or locked file open: a search through the descriptors of every process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lines::Lines;
use super::namespace::parse_link;
use super::stat::Stat;

/// How long the search may take: on a host of thousands of processes a name for the peer is not worth more.
const SEARCH_LIMIT: Duration = Duration::from_millis(300);

/// A process outside the tree that has something of the tree's open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// Whether it may read there.
    pub reads: bool,
    /// Whether it may write there.
    pub writes: bool,
    /// Whether it holds a lock of the open file (flock or F_OFD_SETLK) there. Looked for on files only.
    pub locks: bool,
}

/// What to search for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Inodes of pipes and sockets.
    pub inodes: BTreeSet<u64>,
    /// Files, by their paths.
    pub paths: BTreeSet<PathBuf>,
}

/// The processes outside a tree that have certain things open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    by_inode: BTreeMap<u64, Vec<Holder>>,
    by_path: BTreeMap<PathBuf, Vec<Holder>>,
    /// Whether every process was looked at.
    pub complete: bool,
}

impl Holders {
    /// Searches all processes but those for which `is_ours`. Nothing wanted takes no time.
    pub fn search(is_ours: impl Fn(i32) -> bool, wanted: &Wanted) -> Self {
        let mut holders = Self { complete: true, ..Self::default() };
        if *wanted == Wanted::default() {
            return holders;
        }
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
            holders.look_into(&entry.path(), pid, wanted, &mut lines);
        }
        holders
    }

    fn look_into(&mut self, process: &Path, pid: i32, wanted: &Wanted, lines: &mut Lines) {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return };
        let mut comm = None;
        for entry in descriptors.flatten() {
            let path = entry.path();
            let Ok(link) = fs::read_link(&path) else { continue };
            let inode = match link.to_str().and_then(parse_link) {
                Some(("pipe" | "socket", inode)) if wanted.inodes.contains(&inode) => Some(inode),
                _ => None,
            };
            if inode.is_none() && !wanted.paths.contains(&link) {
                continue;
            }
            let comm = comm.get_or_insert_with(|| {
                let stat = lines.whole(process.join("stat")).ok().and_then(Stat::parse);
                stat.map_or_else(String::new, |stat| stat.comm)
            });
            // The permission bits of the link are the access mode of the descriptor.
            let mode = nix::sys::stat::lstat(&path).map_or(0, |status| status.st_mode);
            let (reads, writes) = (mode & 0o400 != 0, mode & 0o200 != 0);
            let locks = inode.is_none() && holds_lock(process, &entry.file_name().to_string_lossy(), lines);
            let list = match inode {
                Some(inode) => self.by_inode.entry(inode).or_default(),
                None => self.by_path.entry(link).or_default(),
            };
            match list.iter_mut().find(|holder| holder.pid == pid) {
                Some(holder) => {
                    holder.reads |= reads;
                    holder.writes |= writes;
                    holder.locks |= locks;
                }
                None => list.push(Holder { pid, comm: comm.clone(), reads, writes, locks }),
            }
        }
    }

    /// Who has the pipe or socket `inode` open.
    pub fn of(&self, inode: u64) -> &[Holder] {
        self.by_inode.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// Who has the file `path` open.
    pub fn of_path(&self, path: &Path) -> &[Holder] {
        self.by_path.get(path).map_or(&[], Vec::as_slice)
    }
}

/// Whether a descriptor holds a lock that belongs to the open file, and so to all who share it.
fn holds_lock(process: &Path, fd: &str, lines: &mut Lines) -> bool {
    let mut found = false;
    let _ = lines.each(process.join("fdinfo").join(fd), |line| {
        found |= line.starts_with(b"lock:")
            && [&b" FLOCK "[..], b" OFDLCK "].iter().any(|kind| line.windows(kind.len()).any(|part| part == *kind));
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_other_end_of_a_pipe_is_found_with_its_direction() {
        let (reader, _writer) = nix::unistd::pipe().expect("a pipe");
        let inode =
            nix::sys::stat::stat(format!("/proc/self/fd/{}", reader.as_raw_fd()).as_str()).expect("a stat").st_ino;
        let own = std::process::id() as i32;
        let wanted = Wanted { inodes: BTreeSet::from([inode]), ..Wanted::default() };
        let holders = Holders::search(|pid| pid != own, &wanted);
        assert!(holders.complete);
        let found = holders.of(inode);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].pid, found[0].reads, found[0].writes), (own, true, true));
        assert!(!found[0].comm.is_empty());
        assert_eq!(Holders::search(|_| true, &wanted).of(inode), []);
    }

    #[test]
    fn a_file_is_found_with_the_lock_on_it() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = tempfile::NamedTempFile::new().expect("a file");
        let twin = file.reopen().expect("the file again");
        let _lock = nix::fcntl::Flock::lock(twin, nix::fcntl::FlockArg::LockExclusive).expect("a lock");
        let own = std::process::id() as i32;
        let wanted = Wanted { paths: BTreeSet::from([file.path().into(), other.path().into()]), ..Wanted::default() };
        let holders = Holders::search(|pid| pid != own, &wanted);
        let locks = |path: &Path| holders.of_path(path).iter().map(|holder| holder.locks).collect::<Vec<_>>();
        assert_eq!((locks(file.path()), locks(other.path())), (vec![true], vec![false]));
    }
}
