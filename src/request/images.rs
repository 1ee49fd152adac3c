//! Where images and log go: the part that every request has.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::proto::rpc::Criu_opts;

/// The directory of the images, and where CRIU works.
///
/// CRIU opens both as files of this process, so they stay open until the operation is over; paths are never sent.
#[derive(Debug)]
pub struct ImageDirectory {
    /// The directory that images are written to or read from.
    pub images: OwnedFd,
    /// The directory for log, statistics and sockets, and CRIU's working directory. `None`: the image directory.
    pub work: Option<OwnedFd>,
}

impl ImageDirectory {
    /// Images, log and statistics in one directory.
    pub fn new(images: OwnedFd) -> Self {
        Self { images, work: None }
    }

    /// The directory that log and statistics are in.
    pub(crate) fn work(&self) -> &OwnedFd {
        self.work.as_ref().unwrap_or(&self.images)
    }

    pub(super) fn write(&self, opts: &mut Criu_opts) {
        let Self { images, work } = self;
        opts.set_images_dir_fd(images.as_raw_fd());
        if let Some(work) = work {
            opts.set_work_dir_fd(work.as_raw_fd());
        }
    }
}

/// CRIU's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The file's name, in the work directory; must not hold a `/`.
    pub file: String,
    /// 1 errors, 2 warnings, 3 information, 4 debugging. At 4 a restore writes a line per page.
    pub level: u8,
}

impl Log {
    /// Errors and warnings into `file`.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), level: 2 }
    }

    pub(super) fn write(&self, opts: &mut Criu_opts) {
        let Self { file, level } = self;
        opts.set_log_file(file.clone());
        opts.set_log_level(i32::from(*level));
    }

    /// A name with a `/` is refused by CRIU without a word in any log ("error 56").
    pub(super) fn check(&self) -> crate::Result<()> {
        match self.file.contains('/') || self.file.is_empty() {
            true => Err(crate::Error::Option {
                option: "log-file",
                value: self.file.clone(),
                reason: "must be a plain file name: CRIU writes its log in the work directory",
            }),
            false => Ok(()),
        }
    }
}
