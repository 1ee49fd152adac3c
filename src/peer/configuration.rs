//! The directory that holds key, peers and policy, and what it takes to believe it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::geteuid;

use super::Problem;
use crate::checkpoint::{Caller, Directory, Trust, kind, open_directory};
use crate::error::{Distrust, DistrustReason, Error, Result};

/// Where this host's key, its peers and its policy are.
#[derive(Clone, Debug)]
pub struct Configuration {
    path: PathBuf,
}

impl Configuration {
    /// The usual place.
    pub const DEFAULT: &str = "/etc/crr";

    /// The directory at `path`, which need not be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory if it is there and nobody else could have put anything into it or could exchange it.
    pub(super) fn open(&self) -> Result<Option<Directory>> {
        let (reached, mut found) = match open_directory(&self.path, trust()) {
            Ok(opened) => opened,
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(None),
            Err(error) => return Err(error),
        };
        let directory = readable(&reached)?;
        let stat = fstat(&directory).map_err(|errno| Error::io("look at", &self.path)(errno.into()))?;
        found.extend(distrust(&stat, reached.path()));
        believed(&self.path, found)?;
        Ok(Some(directory))
    }

    /// The same, but makes it if it is not there: 0700, in a directory that is believed.
    pub(super) fn open_or_make(&self) -> Result<Directory> {
        if let Some(directory) = self.open()? {
            return Ok(directory);
        }
        let absolute = std::path::absolute(&self.path).map_err(Error::io("find", &self.path))?;
        let (Some(above), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(Error::io("make", &self.path)(Errno::EINVAL.into()));
        };
        let (above, found) = open_directory(above, trust())?;
        believed(&self.path, found)?;
        make(&readable(&above)?, name)?;
        self.open()?.ok_or_else(|| Error::io("open", &self.path)(Errno::ENOENT.into()))
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Self::at(Self::DEFAULT)
    }
}

/// The same directory, opened so that it can be listed and flushed.
fn readable(directory: &Directory) -> Result<Directory> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = openat(directory, ".", flags, Mode::empty());
    opened
        .map(|fd| Directory::new(fd, directory.path()))
        .map_err(|errno| Error::io("open", directory.path())(errno.into()))
}

/// Whose the files may be. Not the caller of sudo, whom checkpoints are believed of: enrolling a peer makes it root.
fn trust() -> Trust {
    Trust::Owners(Caller::user(geteuid().as_raw()))
}

/// Makes a directory for its owner only; that it is there is no error.
pub(super) fn make(above: &Directory, name: &OsStr) -> Result<()> {
    match mkdirat(above, name, Mode::S_IRWXU) {
        Ok(()) => above.flush(),
        Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::io("make the directory", above.path_of(name))(errno.into())),
    }
}

/// Why a file or directory is not to be believed.
pub(super) fn distrust(stat: &FileStat, path: &Path) -> Option<Distrust> {
    let why = match () {
        () if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() => DistrustReason::Owner(stat.st_uid),
        () if stat.st_mode & 0o022 != 0 => DistrustReason::Writable(stat.st_mode & 0o7777),
        () => return None,
    };
    Some(Distrust { path: path.into(), why })
}

pub(super) fn believed(path: &Path, found: Vec<Distrust>) -> Result<()> {
    if found.is_empty() { Ok(()) } else { Err(Problem::Untrusted { path: path.into(), found }.into()) }
}

/// Reads a file in `directory` if it is there: a plain one that only its owner may write, of at most `limit` bytes.
pub(super) fn read(directory: &Directory, name: &OsStr, limit: u64) -> Result<Option<(String, FileStat)>> {
    let path = directory.path_of(name);
    let file = match directory.file(name) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let stat = fstat(&file).map_err(|errno| Error::io("look at", &path)(errno.into()))?;
    believed(&path, distrust(&stat, &path).into_iter().collect())?;
    let text = text(file, limit).map_err(|why| match why {
        Ok(error) => Error::io("read", &path)(error),
        Err(why) => Problem::Damaged { path: path.clone(), why }.into(),
    })?;
    Ok(Some((text, stat)))
}

fn text(file: File, limit: u64) -> Result<String, Result<std::io::Error, String>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Ok)?;
    if bytes.len() as u64 > limit {
        return Err(Err(format!("it is larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Err("it is not UTF-8".into()))
}

/// Keeps every other crr from changing what is in `directory` until it is dropped.
pub(super) fn lock(directory: &Directory) -> Result<Flock<File>> {
    let failed = |errno: Errno| Error::io("lock", directory.path())(errno.into());
    // A description of its own: locks belong to these.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(directory, ".", flags, Mode::empty()).map_err(failed)?;
    Flock::lock(File::from(fd), FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno))
}

/// What the kind of a name is, for those that are looked through.
pub(super) fn is_plain(stat: &FileStat) -> bool {
    kind(stat) == nix::sys::stat::SFlag::S_IFREG
}
