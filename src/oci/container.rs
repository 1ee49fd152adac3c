//! Containers below a runtime's root directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::configuration::Configuration;
use super::descriptors::Descriptors;
use super::file::wrong;
use super::id::Id;
use super::live::Init;
use super::problem::Problem;
use super::spec::Spec;
use super::state::State;
use super::status::Status;
use crate::error::{Error, Result};

/// Who makes and manages containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    /// runc, and what keeps its state as runc does.
    Runc,
    /// crun.
    Crun,
}

impl Runtime {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Runc, Self::Crun];

    /// Its command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    /// Where it keeps its state when root runs it.
    pub fn default_root(self) -> &'static Path {
        Path::new(match self {
            Self::Runc => "/run/runc",
            Self::Crun => "/run/crun",
        })
    }

    /// The file that says so, in a container's directory.
    pub fn state_file(self) -> &'static str {
        match self {
            Self::Runc => State::NAME,
            Self::Crun => Status::NAME,
        }
    }
}

/// A container that a runtime knows.
#[derive(Clone, Debug)]
pub struct Container {
    id: Id,
    directory: PathBuf,
    record: Record,
}

/// What the runtime has written down of it.
#[derive(Clone, Debug)]
pub enum Record {
    /// runc's state.
    Runc(Box<State>),
    /// crun's status, and the config.json beside it.
    Crun(Box<Status>, Box<Spec>),
}

impl Container {
    /// The container `id` below `root`, or below each runtime's default root if none is given.
    ///
    /// # Errors
    /// [`Error::Container`] if there is none, or its files are damaged, or of no known runtime; [`Error::Io`] if they cannot
    /// be read.
    pub fn find(root: Option<&Path>, id: &Id) -> Result<Self> {
        let roots = match root {
            Some(root) => vec![root],
            None => Runtime::ALL.map(Runtime::default_root).to_vec(),
        };
        for root in &roots {
            // A link may lead anywhere.
            if root.join(id).symlink_metadata().is_ok_and(|found| found.is_dir()) {
                return Self::read(root, id);
            }
        }
        Err(wrong(&roots[0].join(id), Problem::NoContainer))
    }

    /// Reads the container `id` below `root`.
    fn read(root: &Path, id: &Id) -> Result<Self> {
        let directory = std::path::absolute(root).map_err(Error::io("open", root))?.join(id);
        let path = |runtime: Runtime| directory.join(runtime.state_file());
        let record = match runtime_of(&directory) {
            Some(Runtime::Runc) => {
                let state = State::read(&path(Runtime::Runc))?;
                if state.id() != id.as_str() {
                    return Err(wrong(&path(Runtime::Runc), Problem::OtherId(state.id().to_owned())));
                }
                Record::Runc(Box::new(state))
            }
            Some(Runtime::Crun) => {
                let spec = Spec::read(&directory.join(Spec::NAME))?;
                Record::Crun(Box::new(Status::read(&path(Runtime::Crun))?), Box::new(spec))
            }
            None => return Err(wrong(&directory, Problem::NoState)),
        };
        Ok(Self { id: id.clone(), directory, record })
    }

    /// Its id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The runtime's directory for it, absolute.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is there while it waits for `start`.
    pub fn exec_fifo(&self) -> PathBuf {
        self.directory.join("exec.fifo")
    }

    /// The runtime's own record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whose it is.
    pub fn runtime(&self) -> Runtime {
        match self.record {
            Record::Runc(_) => Runtime::Runc,
            Record::Crun(..) => Runtime::Crun,
        }
    }

    /// Its first process, which may have ended.
    pub fn init(&self) -> Init {
        match &self.record {
            Record::Runc(state) => state.init(),
            Record::Crun(status, _) => status.init(),
        }
    }

    /// The directory of its bundle; an engine may have taken it away.
    pub fn bundle(&self) -> Option<&Path> {
        match &self.record {
            Record::Runc(state) => state.bundle(),
            Record::Crun(status, _) => Some(status.bundle()),
        }
    }

    /// What it was made of.
    pub fn configuration(&self) -> Configuration {
        match &self.record {
            Record::Runc(state) => state.configuration(),
            Record::Crun(status, spec) => {
                Configuration { rootfs: status.rootfs(), ..spec.configuration(status.bundle()) }
            }
        }
    }

    /// What its descriptors 0 to 2 were at the start.
    pub fn descriptors(&self) -> Option<Descriptors> {
        match &self.record {
            Record::Runc(state) => state.descriptors(),
            Record::Crun(status, _) => status.descriptors().cloned(),
        }
    }

    /// Its cgroups, if the record has full paths: by controller, with the key `""` for the unified hierarchy. crun's has
    /// only the path below the hierarchy ([`Status::cgroup`]).
    pub fn cgroup_paths(&self) -> Option<&BTreeMap<String, PathBuf>> {
        match &self.record {
            Record::Runc(state) => Some(state.cgroup_paths()),
            Record::Crun(..) => None,
        }
    }

    /// Whether its cgroup is systemd's.
    pub fn systemd_cgroup(&self) -> bool {
        match &self.record {
            Record::Runc(state) => state.systemd_cgroup(),
            Record::Crun(status, _) => status.systemd_cgroup(),
        }
    }
}

/// A directory below a runtime's root.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub id: Id,
    /// The container, or why it cannot be read.
    pub container: Result<Container>,
}

/// All containers below `root`, sorted by id. A root that is not there has none.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read.
pub fn list(root: &Path) -> Result<Vec<Listed>> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", root))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", root))?;
        // crun keeps a directory `.cache` and the like there.
        let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'));
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        ids.extend(name.filter(|_| is_directory).and_then(|name| name.parse::<Id>().ok()));
    }
    ids.sort();
    Ok(ids.into_iter().map(|id| Listed { container: Container::read(root, &id), id }).collect())
}

fn runtime_of(directory: &Path) -> Option<Runtime> {
    Runtime::ALL.into_iter().find(|runtime| directory.join(runtime.state_file()).symlink_metadata().is_ok())
}
