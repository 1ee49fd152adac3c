//! The numbers of a container's tasks in a PID namespace that comes from outside.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::host::await_free_inside;
use crate::images::Images;
use crate::restore::ContainerProblem;

/// How long a killed process may keep its PID.
const DYING: Duration = Duration::from_secs(5);

/// Numbers, and the inode of their namespace.
#[derive(Debug)]
pub(super) struct Pids {
    namespace: u64,
    numbers: BTreeSet<i32>,
}

impl Pids {
    /// Those that the images have.
    pub(super) fn of(images: &Images, namespace: &OwnedFd) -> Result<Self> {
        let namespace = rustix::fs::fstat(namespace)
            .map_err(|errno| Error::system("look at a namespace", std::io::Error::from(errno)))?
            .st_ino;
        let tasks = images.tasks()?;
        let all = tasks
            .iter()
            .flat_map(|task| [task.pid, task.pgid, task.sid].into_iter().chain(task.threads.iter().copied()));
        let numbers = all.filter(|number| *number != 0).filter_map(|number| i32::try_from(number).ok()).collect();
        Ok(Self { namespace, numbers })
    }

    /// Those that are taken, and not about to be free. Blocks until those are.
    pub(super) fn problems(&self) -> Vec<ContainerProblem> {
        let taken = await_free_inside(self.namespace, &self.numbers, Instant::now() + DYING);
        taken.into_iter().map(ContainerProblem::Pid).collect()
    }
}
