//! What is done while CRIU holds the tree at `post-dump`, and after it has let go.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use super::{Hash, Request, WithFiles};
use crate::checkpoint::{
    Flush, Manifest, Partial, Record, RecordedContainer, RecordedHost, RecordedLock, RecordedOptions, RecordedTask,
    Remaps, Step, Sums,
};
use crate::error::{Error, Result};
use crate::host::netlock::{Connection, Entry, Ledger};
use crate::images::{Images, Object};
use crate::operation::pause;
use crate::process::Expected;
use crate::request::{Afterwards, NetworkLock, Tcp, Version};

/// The kernel's clock for times of files may be so much behind: a tick of the slowest.
const TICK: Duration = Duration::from_millis(10);

/// A checkpoint in the making, and what is known about it. Blocks: for `spawn_blocking`.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) partial: Partial,
    pub(super) images: Images,
    /// The directory of log and statistics, where that is another.
    pub(super) work: Option<Images>,
    pub(super) options: RecordedOptions,
    pub(super) criu: Version,
    pub(super) flush: Flush,
    with_files: WithFiles,
    /// The PID of the tree's root, as crr sees it.
    pid: u32,
    /// The root directory of the tree, kept open: the paths in images are relative to it, and it outlives the tree.
    _root: OwnedFd,
    root: PathBuf,
    host: Option<RecordedHost>,
    pub(super) remaps: Option<Remaps>,
    files: Option<Manifest>,
    pub(super) record: Option<Record>,
    tree: Option<Vec<Expected>>,
    /// When the tree stood still, where it runs on.
    held: Option<SystemTime>,
    /// The note about the lock that stays, which `crr check` and `crr unlock` go by.
    pub(super) lock: Option<Entry>,
    pub(super) complaints: Vec<String>,
    container: Option<RecordedContainer>,
    /// Those that come with it, until they are written.
    companions: Vec<(&'static str, Vec<u8>)>,
}

impl Commit {
    pub(super) fn new(
        partial: Partial,
        request: &mut Request,
        options: RecordedOptions,
        criu: Version,
    ) -> Result<Self> {
        let path = partial.partial_path();
        let directory = clone(partial.as_fd(), &path)?;
        let images = Images::from_directory(directory, path);
        let pid = request.options.pid.unsigned_abs();
        let of_tree = PathBuf::from(format!("/proc/{pid}/root"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_directory = rustix::fs::open(&of_tree, flags, Mode::empty())
            .map_err(|errno| Error::io("open", &of_tree)(errno.into()))?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", root_directory.as_raw_fd()));
        let flush = request.flush;
        let work = request.work_dir.as_ref().map(Images::open).transpose()?;
        Ok(Self {
            partial,
            images,
            work,
            options,
            criu,
            flush,
            with_files: request.with_files,
            pid,
            _root: root_directory,
            root,
            host: None,
            remaps: None,
            files: None,
            record: None,
            tree: None,
            held: None,
            lock: None,
            complaints: Vec::new(),
            container: request.container.take(),
            companions: std::mem::take(&mut request.files),
        })
    }

    /// What does not need the tree to stand still: for the time in which CRIU looks at the kernel.
    pub(super) fn prepare(&mut self) -> Result<()> {
        self.host = Some(RecordedHost::here(self.criu.to_string())?);
        for (name, content) in std::mem::take(&mut self.companions) {
            self.partial.add(name, &content)?;
        }
        Ok(())
    }

    /// Whether [`Commit::hold`] has anything to do: else it need not be called.
    pub(super) fn must_hold(&self) -> Result<bool> {
        Ok(self.keeps_changing() || Remaps::are_in(&self.images)?)
    }

    /// Whether the files to be kept include some that the tree will go on writing to.
    fn keeps_changing(&self) -> bool {
        self.with_files == WithFiles::Keep && self.options.afterwards == Afterwards::KeepRunning
    }

    /// What can only be had while the tree stands still: the content of link remaps, and of files that it will go on changing.
    pub(super) fn hold(&mut self) -> Result<()> {
        let path = self.partial.partial_path();
        self.remaps = Some(Remaps::keep(&self.images, &self.root, self.partial.as_fd(), &path)?);
        if self.keeps_changing() {
            let mut files = Manifest::collect(&self.images, &self.root, None)?;
            files.keep_changing(&self.root, self.partial.as_fd(), &path)?;
            self.files = Some(files);
        }
        Ok(())
    }

    /// The tree will run on from now: what is found to have changed since then is not what it had.
    pub(super) fn let_go(&mut self) {
        self.held = Some(SystemTime::now() - TICK);
    }

    /// All that crr.json is to tell.
    ///
    /// Where the tree runs on it does so meanwhile: each look at a file or a task would make it stand still for longer.
    fn describe(&mut self) -> Result<Record> {
        let host = self.host.take().ok_or(Error::Bug { what: "described before it was prepared" })?;
        let mut record = Record::new(self.options.clone(), host);
        record.container = self.container.take();
        let kept = self.files.take();
        let (images, root, held) = (&self.images, &self.root, self.held);
        // Beside each other: of a large tree each takes as long as the other, and the tree may be standing still.
        let (files, tree) = thread::scope(|scope| {
            let files = scope.spawn(move || kept.map_or_else(|| Manifest::collect(images, root, held), Ok));
            let tree = describe_tasks(&mut record, images, self.pid);
            (files.join().unwrap_or(Err(Error::Bug { what: "looking at the files of the tree panicked" })), tree)
        });
        record.files = files?;
        self.tree = tree?;
        let signal = self.images.tasks()?.first().map(|root| self.images.parent_death_signal(root)).transpose()?;
        if let Some(signal) = signal.flatten() {
            self.complaints.push(format!(
                "process {} has asked for signal {signal} when its parent ends (PR_SET_PDEATHSIG): a restored one gets it \
                 when whoever restored it ends, which is at once after crr restore --detach",
                self.pid
            ));
        }
        self.lock = self.lock()?;
        let method = self.options.network_lock.unwrap_or(NetworkLock::Iptables);
        record.network_lock = self.lock.as_ref().map(|lock| RecordedLock::new(method, Some(lock.run_id.clone())));
        record.remaps = self.remaps.clone().unwrap_or_default();
        Ok(record)
    }

    /// The tasks that are held: others may have come or gone since the preflight. `None` for a tree whose PIDs in the images are
    /// others than here, and before it was published.
    pub(super) fn tree(&self) -> Option<&[Expected]> {
        self.tree.as_deref()
    }

    /// The network lock that a dump that kills leaves in place, until a restore or `crr unlock` removes it.
    fn lock(&self) -> Result<Option<Entry>> {
        let stays = self.options.afterwards != Afterwards::KeepRunning && self.options.tcp == Tcp::Established;
        if !stays || self.options.network_lock == Some(NetworkLock::Skip) {
            return Ok(None);
        }
        let mut connections = Vec::new();
        for file in self.images.files()? {
            if let Object::Inet(socket) = file?.object {
                if let (true, Some(local), Some(remote)) = (socket.is_tcp_connection(), socket.local, socket.peer) {
                    connections.push(Connection { local, remote });
                }
            }
        }
        let run_id = self.images.inventory()?.run_id;
        let checkpoint = self.partial.path();
        Ok(run_id.filter(|_| !connections.is_empty()).map(|run_id| Entry { run_id, checkpoint, connections }))
    }

    /// Finds out what crr.json is to hold, writes it, and makes DIR what it is to be.
    pub(super) fn publish(&mut self) -> Result<()> {
        let path = self.partial.partial_path();
        let record = self.describe()?;
        record.write(self.partial.as_fd(), &path, self.flush)?;
        if let Some(Err(error)) = self.lock.as_ref().map(|lock| Ledger::default().note(lock)) {
            self.complaints.push(format!("the network lock is not noted: {}", with_causes(&error)));
        }
        pause("record-written");
        self.record = Some(record);
        self.partial.publish(self.flush, |step| {
            pause(match step {
                Step::Flushed => "flushed",
                Step::Renamed => "renamed",
                Step::PlaceFlushed => "place-flushed",
                _ => "",
            });
        })
    }

    /// Removes the names that CRIU made for unlinked files.
    pub(super) fn clear_remaps(&self) -> Result<()> {
        self.remaps.as_ref().map_or(Ok(()), |remaps| remaps.clear(&self.root))
    }

    /// Adds statistics, sums and copies of files to the published checkpoint. It is whole without them: what cannot be done is
    /// a complaint.
    pub(super) fn complete(self, hash: Hash) -> Result<(Record, Vec<String>)> {
        let Self { partial, images, work, flush, with_files, record, root, _root, mut complaints, .. } = self;
        let mut complain = |what: &str, error: Error| complaints.push(format!("{what}: {}", with_causes(&error)));
        let record = record.ok_or(Error::Bug { what: "completed before it was published" })?;
        let mut files = record.files.clone();
        let mut checkpoint = partial.finish(record)?;
        let statistics = work.as_ref().unwrap_or(&images).dump_statistics().map(Into::into);
        let statistics = statistics.map_err(|error| complain("no statistics", error)).ok();
        if let Some(Err(error)) = (hash == Hash::Sum).then(|| files.hash(&root)) {
            complain("no sums of files", error);
        }
        if with_files == WithFiles::Keep {
            let path = checkpoint.path().to_owned();
            if let Err(error) = files.keep(&root, checkpoint.as_fd(), &path) {
                complain("files were not put into the checkpoint", error);
            }
        }
        // Last, so that the copies have sums too.
        let sums = (hash == Hash::Sum).then(|| Sums::of(checkpoint.as_fd(), checkpoint.path()));
        let sums = sums.and_then(|sums| sums.map_err(|error| complain("no sums of images", error)).ok());
        checkpoint.set_files(files);
        if let Err(error) = checkpoint.complete(sums, statistics, flush) {
            complain("crr.json stays without sums", error);
        }
        let record = checkpoint.record().cloned().ok_or(Error::Bug { what: "a checkpoint without its record" })?;
        Ok((record, complaints))
    }
}

/// Notes the tasks of the images in `record`, with their cgroups, and gives those that are there.
fn describe_tasks(record: &mut Record, images: &Images, root: u32) -> Result<Option<Vec<Expected>>> {
    record.tree = RecordedTask::all(images)?;
    // A tree in a PID namespace of its own has other PIDs in the images than here.
    if record.tree.first().is_none_or(|first| first.pid != root) {
        return Ok(None);
    }
    record.collect_cgroups(|pid| pid)?;
    let expected = |task: &RecordedTask| Expected::now(i32::try_from(task.pid).ok()?);
    Ok(Some(record.tree.iter().filter_map(expected).collect()))
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn clone(fd: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(Error::io("open", path))
}
