//! Standard streams of a container that are plain files of the host: CRIU cannot see where they are, and is told to leave them
//! to whoever restores the container.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use crate::checkpoint::RecordedFile;
use crate::process::Mount;

/// Those among descriptors 0 to 2 of process `init` that lie on none of its `mounts`.
pub(super) fn files(init: i32, mounts: &[Mount]) -> BTreeMap<u32, RecordedFile> {
    (0..3).filter_map(|fd| Some((fd, file(init, fd, mounts)?))).collect()
}

fn file(init: i32, fd: u32, mounts: &[Mount]) -> Option<RecordedFile> {
    let link = format!("/proc/{init}/fd/{fd}");
    let metadata = fs::metadata(&link).ok()?;
    if !metadata.is_file() || metadata.file_type().is_fifo() {
        return None;
    }
    let info = fs::read_to_string(format!("/proc/{init}/fdinfo/{fd}")).ok()?;
    let (mount, flags) = (number(&info, "mnt_id:", 10)?, number(&info, "flags:", 8)?);
    if mounts.iter().any(|known| i64::from(known.id) == i64::from(mount)) {
        return None;
    }
    let key = format!("file[{mount:x}:{:x}]", metadata.ino());
    Some(RecordedFile { key, path: fs::read_link(&link).ok()?, flags })
}

/// The number behind `name` in the lines of a fdinfo.
fn number(info: &str, name: &str, radix: u32) -> Option<u32> {
    let text = info.lines().find_map(|line| line.strip_prefix(name))?;
    u32::from_str_radix(text.trim(), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_a_fdinfo() {
        let info = "pos:\t0\nflags:\t0102001\nmnt_id:\t27\nino:\t9\n";
        assert_eq!((number(info, "mnt_id:", 10), number(info, "flags:", 8)), (Some(27), Some(0o102_001)));
        assert_eq!(number(info, "lock:", 10), None);
    }
}
