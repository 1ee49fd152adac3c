//! A tree that stands still in a cgroup while two hosts agree which of them runs it.
//!
//! CRIU holds a tree by ptrace: if it dies at one of its events, the tree runs, on the source with its sockets in repair mode,
//! which ends the program. So at `post-dump` on the source and at `pre-resume` on the target, where every task is stopped by
//! ptrace and none can fork, the tree is moved into a cgroup of ours that is named by the migration, and frozen there: then it
//! stands still whatever becomes of CRIU and crr. Never before a dump was asked for: CRIU hangs on a tree that is frozen.
//!
//! A tree that has a cgroup for itself stays there, and that one is frozen. The hierarchy is version 1's `freezer` where there is
//! one, as nothing else depends on it, else version 2.
//!
//! | step | what a crash right after it leaves |
//! |---|---|
//! | [`Hold::plan`] | nothing; the plan is to be written down |
//! | [`Hold::gather`] | the tree, or a part of it, in our cgroup, and not frozen: [`Hold::release`] or [`Hold::end`] |
//! | [`Hold::freeze`] | the tree frozen: the same |
//! | [`Hold::release`] | a part of the tree where it was, running, the rest frozen: the same once more |
//! | [`Hold::end`] | a part of the tree dead: the same once more |
//!
//! Who has lost the plan finds the cgroup by its name ([`Hold::all`]).

mod guard;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub use guard::KillGuard;

use super::freezer::{Freezer, Setting};
use super::layout::{Hierarchy, Layout};
use super::{Membership, own, put};
use crate::error::{Error, Result};
use crate::process::{self, Expected};

/// The beginning of our cgroups' names, before the first half of the migration's ID.
const PREFIX: &str = "migration-";

/// How often the end of killed tasks is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// A tree, and where it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    tag: String,
    /// The hierarchy's [name](Hierarchy::name), and the directory of the cgroup there that is frozen.
    hierarchy: String,
    directory: PathBuf,
    place: Place,
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Place {
    /// A cgroup of ours.
    Ours,
    /// The tree's own, and what it had been told to be.
    Tree(Setting),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    task: Expected,
    /// The path of its cgroup.
    cgroup: String,
}

/// What became of a [`Hold::release`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// The tasks that run again.
    pub tasks: usize,
    /// Those that could not be put where they were, and why. They run all the same.
    pub failures: Vec<String>,
}

impl Hold {
    /// Looks where the tasks are, and changes nothing. They must stand still until they are gathered.
    ///
    /// # Errors
    /// [`Error::System`] if no hierarchy can freeze anything, [`Error::Io`] if a task has gone.
    pub fn plan(layout: &Layout, tag: &str, tasks: &[Expected]) -> Result<Self> {
        let hierarchy = of_freezer(layout)?;
        let mut members = Vec::new();
        for task in tasks {
            let cgroup = Membership::of(task.pid)?.0.remove(&hierarchy.name).unwrap_or_default();
            members.push(Member { task: *task, cgroup });
        }
        let ours = ours(hierarchy, tag);
        let (directory, place) = match own_cgroup(hierarchy, &members) {
            // One of ours may be left, with all of the tree in it.
            Some((directory, setting)) if directory != ours => (directory, Place::Tree(setting)),
            _ => (ours, Place::Ours),
        };
        Ok(Self { tag: tag.to_owned(), hierarchy: hierarchy.name.clone(), directory, place, members })
    }

    /// The cgroups of ours that are there, whoever made them, without what was planned: their tasks came from nowhere.
    pub fn all(layout: &Layout) -> Vec<Self> {
        let mut found = Vec::new();
        for hierarchy in &layout.hierarchies {
            let entries = fs::read_dir(hierarchy.mount.join(own::PARENT)).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let name = entry.file_name();
                let Some(tag) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
                found.push(Self {
                    tag: tag.to_owned(),
                    hierarchy: hierarchy.name.clone(),
                    directory: entry.path(),
                    place: Place::Ours,
                    members: Vec::new(),
                });
            }
        }
        found
    }

    /// The first half of the migration's ID.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The cgroup that is frozen.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Moves the tree into our cgroup, if that is where it is to be held. All of its tasks must be stopped, or none of them
    /// able to fork: a child would stay behind.
    ///
    /// # Errors
    /// [`Error::Io`] if the cgroup cannot be made, or a task not be moved.
    pub fn gather(&self, layout: &Layout) -> Result<()> {
        if self.place != Place::Ours {
            return Ok(());
        }
        let hierarchy = self.hierarchy(layout)?;
        own::make(hierarchy, &format!("{PREFIX}{}", self.tag))
            .map_err(Error::io("make the cgroup", &self.directory))?;
        for Member { task, .. } in self.members.iter().filter(|member| is_there(member.task)) {
            put(task.pid, &self.directory)
                .map_err(Error::io("move a task of the tree to the cgroup", &self.directory))?;
        }
        Ok(())
    }

    /// Freezes the tree, and waits until all of it stands still. Blocks, usually for less than a millisecond.
    ///
    /// # Errors
    /// [`Error::NotFrozen`] if it does not within `limit`, [`Error::Io`] if the cgroup is not there.
    pub fn freeze(&self, limit: Duration) -> Result<()> {
        Freezer::of(&self.directory)?.freeze(limit)
    }

    /// Whether all of the tree stands still.
    ///
    /// # Errors
    /// [`Error::Io`] if the cgroup is not there.
    pub fn is_frozen(&self) -> Result<bool> {
        Freezer::of(&self.directory)?.is_frozen()
    }

    /// Puts every task back where it was, which thaws it, and removes our cgroup: the tree runs. To be done last, after all else
    /// was put right. What is gone is passed over; may be repeated. A task that the plan does not know comes to where the root
    /// was, or out of all cgroups.
    ///
    /// # Errors
    /// [`Error::Io`] if a task can be put nowhere, or the cgroup cannot be thawed.
    pub fn release(&self, layout: &Layout) -> Result<Released> {
        let mut released = Released::default();
        if let Place::Tree(before) = self.place {
            released.tasks = self.tasks().len();
            return match self.directory.exists() {
                true => Freezer::of(&self.directory)?.set(before).map(|()| released),
                false => Ok(released),
            };
        }
        let hierarchy = self.hierarchy(layout)?;
        for task in self.tasks() {
            let member = self.members.iter().find(|member| member.task == task).or(self.members.first());
            let wanted = member.map_or(hierarchy.root.as_str(), |member| member.cgroup.as_str());
            let at = hierarchy.directory(wanted).unwrap_or_else(|| hierarchy.mount.clone());
            // Where it was may be gone since: an empty cgroup is removed by whoever looks after it.
            let place = at.ancestors().find(|place| place.join("cgroup.procs").exists()).unwrap_or(&hierarchy.mount);
            match put(task.pid, place) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
                Err(error) => put(task.pid, &hierarchy.mount)
                    .map_err(Error::io("move a task of the tree to the cgroup", &hierarchy.mount))
                    .map(|()| released.failures.push(format!("PID {}: {}: {error}", task.pid, place.display())))?,
                Ok(()) if place != at => {
                    released.failures.push(format!("PID {}: `{}` is gone", task.pid, at.display()));
                }
                Ok(()) => {}
            }
            released.tasks += 1;
        }
        self.remove();
        Ok(released)
    }

    /// Ends the tree without a word to its peers: every TCP socket is put into repair mode first. Blocks until all of it is
    /// gone, and removes our cgroup. A tree that runs is frozen first. May be repeated.
    ///
    /// Where a CRIU that lives holds the tree, it reports a failure of its own after it is answered, which is none.
    ///
    /// # Errors
    /// [`Error::NotEnded`] if tasks are left after `limit`, [`Error::Io`] if the cgroup cannot be thawed.
    pub fn end(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        if !self.directory.exists() {
            return Ok(());
        }
        let freezer = Freezer::of(&self.directory)?;
        if !self.tasks().is_empty() {
            // What cannot be frozen is killed all the same, if not in silence.
            let _ = freezer.freeze(limit / 2);
            let _ = process::silence(&self.tasks());
        }
        loop {
            let left = self.tasks();
            for task in &left {
                match kill(Pid::from_raw(task.pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(Error::system(format!("kill PID {}", task.pid), errno)),
                }
            }
            // Version 1 lets no frozen task die.
            freezer.set(Setting::Thawed)?;
            if left.is_empty() {
                self.remove();
                return Ok(());
            }
            if Instant::now() >= deadline {
                let pids = left.iter().map(|task| task.pid).collect();
                return Err(Error::NotEnded { cgroup: self.directory.clone(), pids, limit });
            }
            thread::sleep(LOOK);
        }
    }

    /// The processes that are in the cgroup, and in those below it, now: zombies are not counted.
    pub fn tasks(&self) -> Vec<Expected> {
        let pids = directories(&self.directory).into_iter().flat_map(|directory| processes(&directory));
        pids.filter_map(Expected::now).collect()
    }

    fn hierarchy<'a>(&self, layout: &'a Layout) -> Result<&'a Hierarchy> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("no hierarchy `{}` is mounted", self.hierarchy));
        layout.hierarchy(&self.hierarchy).ok_or_else(|| Error::io("find the cgroup", &self.directory)(gone()))
    }

    /// Removes our cgroup, and the one above it if that was the last. The kernel refuses while there is anything in them.
    fn remove(&self) {
        if self.place == Place::Ours && fs::remove_dir(&self.directory).is_ok() {
            if let Some(parent) = self.directory.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// The hierarchy in which cgroups are frozen.
fn of_freezer(layout: &Layout) -> Result<&Hierarchy> {
    let v1 = layout.hierarchies.iter().find(|hierarchy| hierarchy.name.split(',').any(|name| name == "freezer"));
    let found = v1.or_else(|| layout.hierarchies.iter().find(|hierarchy| hierarchy.is_unified()));
    let none = || io::Error::new(io::ErrorKind::Unsupported, "no hierarchy of cgroups with a freezer is mounted");
    found.ok_or_else(|| Error::system("hold the tree in a cgroup", none()))
}

fn ours(hierarchy: &Hierarchy, tag: &str) -> PathBuf {
    hierarchy.mount.join(own::PARENT).join(format!("{PREFIX}{tag}"))
}

/// The cgroup that all of the tasks are in, themselves or below it, and nobody else.
fn own_cgroup(hierarchy: &Hierarchy, members: &[Member]) -> Option<(PathBuf, Setting)> {
    let mut paths = members.iter().map(|member| Path::new(&member.cgroup));
    let first = paths.next()?.to_owned();
    let common = paths.fold(first, |common, path| {
        let shared = common.ancestors().find(|above| path.starts_with(above));
        shared.unwrap_or_else(|| Path::new("/")).to_owned()
    });
    let directory = hierarchy.directory(common.to_str()?)?;
    let inside: Vec<i32> = directories(&directory).iter().flat_map(|directory| processes(directory)).collect();
    let is_alone = !inside.is_empty() && inside.iter().all(|pid| members.iter().any(|member| member.task.pid == *pid));
    // The root of a hierarchy cannot be frozen, and has no such file.
    let freezer = Freezer::of(&directory).ok().filter(|_| is_alone && directory != hierarchy.mount)?;
    Some((freezer.directory().to_owned(), freezer.setting().ok()?))
}

/// A cgroup and all below it.
fn directories(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        found.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    found
}

fn processes(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    // A process of a PID namespace that is not seen from here is a 0.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

fn is_there(task: Expected) -> bool {
    Expected::now(task.pid) == Some(task)
}
