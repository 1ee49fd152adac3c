//! The CRIU of a restore, which is started before all is known that it is to do.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::Record;
use crate::copy::Enclosure;
use crate::criu::Chosen;
use crate::error::Result;
use crate::operation::Session;
use crate::process::Expected;
use crate::request::{DumpSwitch, RestoreOptions, RestoreSwitch};
use crate::swrk::{Group, Launch, Programs, Stdin};

/// A CRIU that waits for its request, and what its start depended on.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) session: Session,
    binary: PathBuf,
    /// Whether it is in the caller's process group and has its terminal.
    in_job: bool,
    /// What it finds by name.
    programs: Programs,
}

impl Worker {
    /// Starts CRIU as the record says, while the images are not read yet. It gets the descriptors of `options`, which must be
    /// all that it will need.
    pub(crate) fn start_early(
        criu: &Chosen,
        record: &Record,
        options: &RestoreOptions,
        programs: Programs,
        mount_namespace: Option<Arc<OwnedFd>>,
    ) -> Result<Self> {
        let recorded = record.options.switches.contains(&DumpSwitch::ShellJob) && !sends_master(options);
        Self::launch(criu, is_job(options) || recorded, options, Vec::new(), programs, mount_namespace, None)
    }

    /// Starts CRIU before there is a record: for a tree that is no job of a shell unless the caller says so. It gets `descriptors`
    /// besides those of `options`.
    pub(crate) fn start_ahead<'a>(
        criu: &Chosen,
        options: &'a RestoreOptions,
        descriptors: impl Iterator<Item = &'a OwnedFd>,
        programs: Programs,
        mount_namespace: Option<Arc<OwnedFd>>,
    ) -> Result<Self> {
        let descriptors = descriptors.map(AsFd::as_fd).collect();
        Self::launch(criu, is_job(options), options, descriptors, programs, mount_namespace, None)
    }

    /// Starts CRIU for these options, which are complete.
    pub(super) fn start(
        criu: &Chosen,
        options: &RestoreOptions,
        programs: Programs,
        mount_namespace: Option<Arc<OwnedFd>>,
        enclosure: Option<&Enclosure>,
    ) -> Result<Self> {
        Self::launch(criu, is_job(options), options, Vec::new(), programs, mount_namespace, enclosure)
    }

    /// Whether it is there, and what would be started for these options.
    pub(super) fn fits(&self, criu: &Chosen, options: &RestoreOptions, needed: Programs) -> bool {
        let is_alike = self.binary == criu.binary && self.in_job == is_job(options);
        let finds_all = self.programs == Programs::All || self.programs == needed;
        is_alike && finds_all && self.has(options) && Expected::now(self.session.criu_pid()).is_some()
    }

    /// Whether it has the descriptors of these options.
    pub(crate) fn has(&self, options: &RestoreOptions) -> bool {
        options.inherited.iter().all(|inherited| self.session.has_inherited(&inherited.descriptor))
    }

    fn launch<'a>(
        criu: &Chosen,
        in_job: bool,
        options: &'a RestoreOptions,
        mut inherited: Vec<BorrowedFd<'a>>,
        programs: Programs,
        mount_namespace: Option<Arc<OwnedFd>>,
        enclosure: Option<&Enclosure>,
    ) -> Result<Self> {
        let mut launch = Launch { programs, mount_namespace, ..Launch::new(&criu.binary) };
        if let Some(enclosure) = enclosure {
            enclosure.host(&mut launch);
        }
        if in_job {
            // The job's group is to be the caller's, which holds the terminal.
            launch.group = Group::Caller;
            launch.stdin = Stdin::Caller;
        }
        inherited.extend(options.inherited.iter().map(|inherited| inherited.descriptor.as_fd()));
        let mut session = Session::start_inheriting(&launch, &inherited)?;
        session.assume_version(criu.version);
        Ok(Self { session, binary: criu.binary.clone(), in_job, programs })
    }
}

fn is_job(options: &RestoreOptions) -> bool {
    options.switches.contains(&RestoreSwitch::ShellJob) && !sends_master(options)
}

/// Whether the other end of the tree's terminal comes to us instead of being ours.
fn sends_master(options: &RestoreOptions) -> bool {
    options.switches.contains(&RestoreSwitch::OrphanPtsMaster)
}
