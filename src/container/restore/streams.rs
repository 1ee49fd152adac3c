//! Standard streams of a restored container: they come from crr, as those of runc's containers come from runc.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::Stdio;
use crate::checkpoint::RecordedContainer;
use crate::request::InheritedFd;
use crate::restore::ContainerProblem;

/// A stream that does not come with the images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    /// 0, 1 or 2.
    number: u32,
    /// CRIU's name for it.
    key: String,
    /// Where it led at the dump.
    target: String,
    /// A plain file, which can be opened again: its path and the flags it had.
    file: Option<(PathBuf, u32)>,
}

/// Which streams came from outside: pipes of whoever started the container, and files of the host.
pub(super) fn outside(descriptors: &[String; 3], recorded: Option<&RecordedContainer>) -> Vec<Outside> {
    let mut all: Vec<Outside> = Vec::new();
    for (number, target) in (0u32..).zip(descriptors) {
        let file = recorded.and_then(|recorded| recorded.stdio_files.get(&number));
        let key = match file {
            Some(file) => file.key.clone(),
            None if target.starts_with("pipe:[") || target.starts_with("socket:[") => target.clone(),
            None => continue,
        };
        // Both outputs may be one pipe: they stay one.
        if all.iter().all(|known| known.key != key) {
            let file = file.map(|file| (file.path.clone(), file.flags));
            all.push(Outside { number, key, target: target.clone(), file });
        }
    }
    all
}

/// A descriptor for each of them; those that are `ready` are taken from there.
pub(super) fn open(
    all: &[Outside],
    stdio: Stdio,
    ready: &mut Ready,
    problems: &mut Vec<ContainerProblem>,
) -> Vec<InheritedFd> {
    let mut inherited = Vec::new();
    for stream in all {
        let ready = usize::try_from(stream.number).ok().and_then(|number| ready.0.get_mut(number)?.take());
        let opened = match (stdio, &stream.file) {
            _ if ready.is_some() => ready.ok_or_else(|| io::ErrorKind::NotFound.into()),
            (Stdio::Inherit, _) => own(stream.number),
            (Stdio::Null, _) => null(),
            (Stdio::Recorded, Some((path, flags))) => again(path, *flags),
            (Stdio::Recorded, None) => Err(io::Error::other("it cannot be opened again")),
        };
        match opened {
            Ok(descriptor) => inherited.push(InheritedFd { key: stream.key.clone(), descriptor }),
            Err(error) => problems.push(ContainerProblem::Stream {
                number: stream.number,
                target: stream.target.clone(),
                why: error.to_string(),
            }),
        }
    }
    inherited
}

/// Streams that were opened before it was known which are needed.
#[derive(Debug, Default)]
pub(super) struct Ready([Option<OwnedFd>; 3]);

impl Ready {
    /// Those that do not depend on what they were.
    pub(super) fn open(stdio: Stdio) -> Self {
        Self([0, 1, 2].map(|number| match stdio {
            Stdio::Inherit => own(number).ok(),
            Stdio::Null => null().ok(),
            Stdio::Recorded => None,
        }))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter().flatten()
    }
}

fn null() -> io::Result<OwnedFd> {
    File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from)
}

/// A copy of a stream of this process, above the numbers of all of them.
fn own(number: u32) -> io::Result<OwnedFd> {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    let stream = match number {
        0 => input.as_fd(),
        1 => output.as_fd(),
        _ => errors.as_fd(),
    };
    // At least 3 by the standard library's word.
    stream.try_clone_to_owned()
}

/// The file with the access it was open for. What it is missing is not made: that would not be the file.
fn again(path: &std::path::Path, flags: u32) -> io::Result<OwnedFd> {
    let flags = i32::from_ne_bytes(flags.to_ne_bytes());
    let access = flags & libc::O_ACCMODE;
    let mut options = File::options();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags((flags & libc::O_APPEND) | libc::O_NOCTTY | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file any more"));
    }
    // Only against a fifo in its place.
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::from_bits_retain((flags & libc::O_APPEND).unsigned_abs()))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RecordedFile;

    fn descriptors(all: [&str; 3]) -> [String; 3] {
        all.map(str::to_owned)
    }

    #[test]
    fn pipes_come_from_outside_and_the_null_device_does_not() {
        let found = outside(&descriptors(["/dev/null", "pipe:[7]", "pipe:[7]"]), None);
        assert_eq!(
            found.iter().map(|stream| (stream.number, stream.key.as_str())).collect::<Vec<_>>(),
            [(1, "pipe:[7]")]
        );
    }

    #[test]
    fn a_plain_file_is_known_by_the_record_only() {
        let file = RecordedFile { key: "file[3f:1a]".into(), path: "/tmp/log".into(), flags: 0x401 };
        let recorded = RecordedContainer { stdio_files: [(1, file)].into(), ..RecordedContainer::default() };
        let all = descriptors(["/dev/null", "/tmp/log", "/dev/null"]);
        assert_eq!(outside(&all, None), []);
        assert_eq!(outside(&all, Some(&recorded))[0].key, "file[3f:1a]");
    }

    #[test]
    fn a_file_is_opened_again_at_its_end_and_not_made() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut problems = Vec::new();
        let stream = |target: &PathBuf| Outside {
            number: 1,
            key: "file[1:2]".into(),
            target: "log".into(),
            file: Some((target.clone(), (libc::O_WRONLY | libc::O_APPEND) as u32)),
        };
        assert!(open(&[stream(&path)], Stdio::Recorded, &mut Ready::default(), &mut problems).is_empty());
        assert_eq!(problems.len(), 1);
        std::fs::write(&path, "0\n").unwrap();
        let opened = open(&[stream(&path)], Stdio::Recorded, &mut Ready::default(), &mut problems).remove(0);
        nix::unistd::write(&opened.descriptor, b"1\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n1\n");
    }

    #[test]
    fn a_pipe_cannot_be_opened_again() {
        let mut problems = Vec::new();
        let pipes = outside(&descriptors(["/dev/null", "pipe:[7]", "/dev/null"]), None);
        assert!(open(&pipes, Stdio::Recorded, &mut Ready::default(), &mut problems).is_empty());
        assert!(problems[0].to_string().contains("pipe:[7]"), "{}", problems[0]);
        assert_eq!(open(&pipes, Stdio::Null, &mut Ready::default(), &mut problems).len(), 1);
    }
}
