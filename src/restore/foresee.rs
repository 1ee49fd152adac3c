//! What would stand against the restore of a tree here, while the tree still runs on another host.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::checks::{Facts, Found, check_criu};
use super::problem::{Problem, Remarks, Shortage};
use super::request::Files;
use crate::checkpoint::{Manifest, Record, RecordedHost, room};
use crate::error::{Error, Result};
use crate::host::await_free;
use crate::host::netlock::Connection;
use crate::process::{Namespaces, Socket, TcpState, Transport, Tree};
use crate::request::{RestoreOptions, Tcp, Version};

/// How long a process that is ending here may keep a PID.
const DYING: Duration = Duration::from_secs(5);

/// A tree before its dump, as far as its restore elsewhere has to be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foreseen {
    /// The machine it runs on, with the version of the CRIU that will dump it.
    pub host: RecordedHost,
    /// Every number that its tasks, threads, process groups and sessions have.
    pub numbers: BTreeSet<i32>,
    /// The two ends of its TCP connections, its own first.
    pub connections: Vec<(SocketAddr, SocketAddr)>,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// What becomes of the connections.
    pub tcp: Tcp,
    /// The files that it uses.
    pub files: Manifest,
    /// Its memory, in bytes: what the images will hold and the restored tree will take.
    pub memory_bytes: u64,
}

/// Where it is to be restored.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Where the images will be.
    pub images: &'a Path,
    /// The CRIU that will restore it.
    pub criu: Version,
    /// Addresses that will be here by then.
    pub coming: &'a [IpAddr],
    /// What a file with another content is.
    pub files: Files,
}

impl Foreseen {
    /// Looks at a tree that shares the mount, PID and network namespaces of this process. Reads the content of its files, as
    /// [`Manifest::hash`] does.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::System`] where the host does not tell.
    pub fn of(tree: &Tree, tcp: Tcp, criu: Version, memory_bytes: u64) -> Result<Self> {
        let root = Path::new("/");
        let mut files = Manifest::forecast(tree, root)?;
        files.hash(root)?;
        let mut foreseen = Self {
            host: RecordedHost::here(criu.to_string())?,
            numbers: numbers(tree),
            connections: Vec::new(),
            listening: Vec::new(),
            tcp,
            files: files.elsewhere(),
            memory_bytes,
        };
        let network = Namespaces::read("/proc/self/ns".as_ref()).net;
        if tree.root().namespaces.net == network {
            tree.sockets.values().for_each(|socket| foreseen.take(socket));
        }
        Ok(foreseen)
    }

    fn take(&mut self, socket: &Socket) {
        let Transport::Tcp { state, .. } = socket.transport else { return };
        match (state, socket.local, socket.peer) {
            (TcpState::Listening, Some(local), _) => self.listening.push(local),
            (_, Some(local), Some(peer)) => self.connections.push((local, peer)),
            _ => {}
        }
    }

    /// Everything that would stand against its restore here now. Reads the files of the same names here. Blocks.
    ///
    /// # Errors
    /// Only what keeps a check from being made.
    pub async fn judge(&self, place: &Place<'_>, options: &RestoreOptions) -> Result<(Vec<Problem>, Remarks)> {
        let mut found = Found::default();
        let facts = Facts::of(options, false).with(self.tcp);
        facts.check_host(&RecordedHost::here("")?, &self.host, &mut found);
        check_criu(Some(&Record { host: self.host.clone(), ..Record::default() }), place.criu, &mut found);
        let connections: Vec<_> =
            self.connections.iter().map(|(local, remote)| Connection { local: *local, remote: *remote }).collect();
        facts.check_addresses(&connections, &self.listening, place.coming, &mut found);
        facts.check_files(&self.files, place.files, &mut found)?;
        found.problems.extend(self.shortages(place.images)?.into_iter().map(Problem::Shortage));
        let taken = await_free(&self.numbers, Instant::now() + DYING).await;
        found.problems.extend(taken.into_iter().map(Problem::Pid));
        Ok((found.problems, found.remarks))
    }

    /// The images lie in a tmpfs while the memory is filled from them: there are both for a while.
    fn shortages(&self, images: &Path) -> Result<Vec<Shortage>> {
        let mut short = Vec::new();
        let free_bytes = room(images)?;
        if free_bytes < self.memory_bytes {
            short.push(Shortage { of: images.display().to_string(), needed_bytes: self.memory_bytes, free_bytes });
        }
        let (needed_bytes, free_bytes) = (self.memory_bytes.saturating_mul(2), available_bytes()?);
        if free_bytes < needed_bytes {
            short.push(Shortage { of: "memory".into(), needed_bytes, free_bytes });
        }
        Ok(short)
    }
}

/// Those of a shell job that belong to the shell stay with it.
fn numbers(tree: &Tree) -> BTreeSet<i32> {
    let mut numbers = BTreeSet::new();
    for task in &tree.tasks {
        numbers.insert(task.pid());
        numbers.extend(task.threads.iter().map(|thread| thread.tid));
        numbers.extend([task.stat.pgid, task.stat.sid].into_iter().filter(|number| tree.has(*number)));
    }
    numbers
}

/// What can be had without swapping, in bytes.
fn available_bytes() -> Result<u64> {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or(Error::Bug { what: "/proc/meminfo without MemAvailable" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Foreseen {
        let tree = Tree::read(nix::unistd::getpid().as_raw()).unwrap();
        Foreseen::of(&tree, Tcp::Established, Version::new(4, 2), 1 << 20).unwrap()
    }

    async fn problems(foreseen: &Foreseen, criu: Version) -> Vec<Problem> {
        let place = Place { images: Path::new("/dev/shm"), criu, coming: &[], files: Files::AsCriu };
        foreseen.judge(&place, &RestoreOptions::new()).await.unwrap().0
    }

    #[tokio::test]
    async fn this_process_could_be_restored_here_but_for_its_numbers() {
        let own = own();
        let pid = nix::unistd::getpid().as_raw();
        let found = problems(&own, Version::new(4, 2)).await;
        assert!(found.iter().all(|problem| matches!(problem, Problem::Pid(_))), "{found:?}");
        assert!(found.iter().any(|problem| matches!(problem, Problem::Pid(taken) if taken.pid == pid)), "{found:?}");
    }

    #[tokio::test]
    async fn all_that_is_wrong_is_named_at_once() {
        let mut own = own();
        own.host.machine = "vax".into();
        own.memory_bytes = u64::MAX;
        own.numbers.clear();
        own.connections.push(("192.0.2.1:80".parse().unwrap(), "192.0.2.2:1234".parse().unwrap()));
        let found = problems(&own, Version::new(4, 1)).await;
        let has = |is: fn(&Problem) -> bool| found.iter().filter(|problem| is(problem)).count();
        assert_eq!(has(|problem| matches!(problem, Problem::Machine { .. })), 1, "{found:?}");
        assert_eq!(has(|problem| matches!(problem, Problem::Criu { .. })), 1, "{found:?}");
        assert_eq!(has(|problem| matches!(problem, Problem::Shortage(_))), 2, "{found:?}");
        assert_eq!(has(|problem| matches!(problem, Problem::Address { connections: 1, .. })), 1, "{found:?}");
    }

    #[tokio::test]
    async fn an_address_that_comes_along_is_not_missing() {
        let mut own = own();
        own.connections.push(("192.0.2.1:80".parse().unwrap(), "192.0.2.2:1234".parse().unwrap()));
        own.numbers.clear();
        let coming = ["192.0.2.1".parse().unwrap()];
        let place = Place { images: Path::new("/"), criu: Version::new(4, 2), coming: &coming, files: Files::AsCriu };
        let (found, _) = own.judge(&place, &RestoreOptions::new()).await.unwrap();
        assert_eq!(found, []);
    }

    #[test]
    fn what_is_sent_is_what_arrives() {
        let own = own();
        let text = serde_json::to_vec(&own).unwrap();
        assert_eq!(serde_json::from_slice::<Foreseen>(&text).unwrap(), own);
    }
}
