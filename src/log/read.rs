//! Logs as bytes, streams, files and directories, with the limits that hold for each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::explanation::{Explanation, Reader};
use super::line::Line;
use crate::error::{Error, Result};

/// How many bytes of a line are looked at. CRIU's own lines are below 1 KiB, paths of 4 KiB apart.
pub const LINE_LIMIT: usize = 8 * 1024;

/// How many bytes of a log are read: half from its start and half from its end. A dump of 2,000 processes at log level 4
/// writes some 100 MiB.
pub const LOG_LIMIT: u64 = 256 * 1024 * 1024;

/// How many log files of a directory are named.
const LOGS_LIMIT: usize = 64;

/// Explains a log that is in memory.
pub fn explain(log: &[u8]) -> Explanation {
    let mut reader = Reader::default();
    for (at, line) in log.split(|byte| *byte == b'\n').enumerate() {
        take(&mut reader, &line[..line.len().min(LINE_LIMIT)], Some(at as u64 + 1));
    }
    reader.finish()
}

/// Explains a log as it is read, to its end or to [`LOG_LIMIT`]. Memory does not grow with the log.
///
/// # Errors
///
/// What `log` reports.
pub fn explain_reader(log: impl Read) -> io::Result<Explanation> {
    let mut reader = Reader::default();
    feed(&mut reader, log.take(LOG_LIMIT), Some(1))?;
    Ok(reader.finish())
}

/// Explains the log in the file `path`: of one above [`LOG_LIMIT`] its beginning and its end.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be opened or read, or is not a regular file.
pub fn explain_file(path: &Path) -> Result<Explanation> {
    let (mut file, size) = open(path).map_err(Error::io("open the log", path))?;
    let mut reader = Reader::default();
    let mut read = || {
        if size <= LOG_LIMIT {
            return feed(&mut reader, (&file).take(LOG_LIMIT), Some(1));
        }
        feed(&mut reader, (&file).take(LOG_LIMIT / 2), Some(1))?;
        file.seek(SeekFrom::Start(size - LOG_LIMIT / 2))?;
        feed(&mut reader, (&file).take(LOG_LIMIT / 2), None)
    };
    read().map_err(Error::io("read the log", path))?;
    Ok(reader.finish())
}

/// The logs in the directory `dir`, newest first: every regular file whose name ends in `.log`, up to 64.
///
/// # Errors
///
/// [`Error::Io`] if `dir` cannot be read.
pub fn logs_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list the directory", dir))? {
        let entry = entry.map_err(Error::io("list the directory", dir))?;
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        // One that vanished in between, or is not a file, is none.
        if let Ok(meta) = entry.metadata().and_then(|meta| Ok((meta.is_file(), meta.modified()?))) {
            if meta.0 {
                logs.push((meta.1, path));
            }
        }
    }
    logs.sort_by(|a, b| b.cmp(a));
    Ok(logs.into_iter().take(LOGS_LIMIT).map(|(_, path)| path).collect())
}

/// Opens a regular file; a pipe in its place would block, a device could be read for ever.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, meta.len()))
}

/// Feeds `reader` with the lines of `log`, numbered from `number` on if that is known.
fn feed(reader: &mut Reader, log: impl Read, mut number: Option<u64>) -> io::Result<()> {
    let mut log = BufReader::with_capacity(64 * 1024, log);
    let mut line = Vec::new();
    loop {
        let buffer = match log.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            if !line.is_empty() {
                take(reader, &line, number);
            }
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&part[..part.len().min(LINE_LIMIT - line.len())]);
        let used = part.len() + usize::from(end.is_some());
        log.consume(used);
        if end.is_some() {
            take(reader, &line, number);
            line.clear();
            number = number.map(|number| number + 1);
        }
    }
}

fn take(reader: &mut Reader, line: &[u8], number: Option<u64>) {
    if !line.is_empty() {
        reader.take(Line::parse(line, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &[u8] = b"(00.000042) Error (criu/rlimit.c:47): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
        (00.012345) Error (criu/file-lock.c:331): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.\n\
        (00.012399) Error (criu/cr-dump.c:2128): Dumping FAILED.\n";

    #[test]
    fn memory_stream_and_file_are_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump.log");
        std::fs::write(&path, LOCKS).unwrap();
        let expected = explain(LOCKS);
        assert_eq!(expected.known.as_ref().unwrap().id, "file-locks");
        assert_eq!(expected.decisive.as_ref().unwrap().number, Some(2));
        assert_eq!(explain_reader(LOCKS).unwrap(), expected);
        assert_eq!(explain_file(&path).unwrap(), expected);
    }

    #[test]
    fn the_end_of_a_log_above_the_limit_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge.log");
        let mut file = File::create(&path).unwrap();
        // A hole: nothing is written but the end.
        file.seek(SeekFrom::Start(LOG_LIMIT * 4)).unwrap();
        io::Write::write_all(&mut file, &[b"\n", LOCKS].concat()).unwrap();
        let explanation = explain_file(&path).unwrap();
        assert_eq!(explanation.known.unwrap().id, "file-locks");
        assert_eq!(explanation.decisive.unwrap().number, None);
    }

    #[test]
    fn an_endless_line_costs_no_more_than_the_limit() {
        let endless = io::repeat(b'x').take(8 * 1024 * 1024).chain(&b"\n"[..]).chain(LOCKS);
        let explanation = explain_reader(endless).unwrap();
        assert_eq!(explanation.decisive.unwrap().number, Some(3));
    }

    #[test]
    fn pipes_and_devices_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("a.log");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [fifo.as_path(), Path::new("/dev/zero"), dir.path(), Path::new("/nowhere/x.log")] {
            assert!(explain_file(path).is_err(), "{path:?}");
        }
        assert!(logs_in(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_directory_names_its_logs_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        for (name, age) in [("dump.log", 30), ("restore.log", 10), ("criu.log", 20), ("pages-1.img", 0)] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
        }
        let names: Vec<_> =
            logs_in(dir.path()).unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["restore.log", "criu.log", "dump.log"]);
    }
}
