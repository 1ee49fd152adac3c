//! Telling a CRIU that works from one that hangs.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, statat};

/// How long CRIU may owe an answer. CRIU has no time-outs of its own beyond the freezing of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// When the whole operation must be over. `None`, the default: never.
    pub deadline: Option<Instant>,
    /// How long CRIU may show no sign of life: no event, no growth of an image, no processor time. Counted only while it owes
    /// an answer. `None`: for ever.
    pub silence: Option<Duration>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { deadline: None, silence: Some(Duration::from_secs(60)) }
    }
}

/// Why a CRIU is held to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// The deadline has passed.
    Deadline,
    /// No sign of life for this long.
    Silence(Duration),
}

impl std::fmt::Display for Hang {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deadline => f.write_str("the deadline has passed"),
            Self::Silence(time) => write!(f, "no sign of life for {} s", time.as_secs()),
        }
    }
}

/// Signs of life: sizes of images, and processor time of CRIU.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pulse {
    files: u64,
    bytes: u64,
    ticks: u64,
}

impl Pulse {
    /// Looks at the image directory and at CRIU with its children. What cannot be read counts as nothing.
    pub(super) fn of(images: Option<&OwnedFd>, criu: i32) -> Self {
        let (files, bytes) = images.map_or((0, 0), directory_size);
        Self { files, bytes, ticks: processor_ticks(criu, 3) }
    }
}

fn directory_size(directory: &OwnedFd) -> (u64, u64) {
    let Ok(entries) = Dir::read_from(directory) else { return (0, 0) };
    let (mut files, mut bytes) = (0, 0);
    for entry in entries.flatten() {
        if entry.file_type() == FileType::Directory {
            continue;
        }
        if let Ok(stat) = statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            files += 1;
            bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
    }
    (files, bytes)
}

/// User and system time of `pid` and, `depth` generations down, its children, in clock ticks.
pub(super) fn processor_ticks(pid: i32, depth: u32) -> u64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
    // The name is in parentheses and may hold anything; times are the 12th and 13th word behind it.
    let behind = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    let own: u64 = behind.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    if depth == 0 {
        return own;
    }
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    own + children.map(|child| processor_ticks(child, depth - 1)).sum::<u64>()
}
