//! Which names in a directory are a checkpoint's.

use std::ffi::OsStr;
use std::path::Path;

/// The image without which a directory is no checkpoint.
pub(super) const INVENTORY: &str = "inventory.img";
/// Where `--with-files` keeps executables, libraries and open files.
pub(super) const FILES: &str = "files";
/// Where the content of files with a link remap is kept.
pub(super) const REMAPS: &str = "remaps";

/// What is kept with the checkpoint of a container: its bundle's configuration, its runtime's note about it (runc's state.json
/// or crun's status), and where its standard streams led, as both write it.
pub const CONTAINER_FILES: [&str; 4] = ["config.json", "state.json", "status", "descriptors.json"];

/// Names of CRIU, runc and crr that do not end in `.img` or `.log`.
const OTHERS: [&str; 15] = [
    super::record::RECORD_NAME,
    "crr.json.new",
    FILES,
    REMAPS,
    "stats-dump",
    "stats-restore",
    "irmap-cache",
    "parent",
    "config.json",
    "state.json",
    "status",
    "descriptors.json",
    "lazy-pages.socket",
    "streamer-capture.sock",
    "streamer-serve.sock",
];

/// Whether CRIU or crr gives this name to a file of a checkpoint.
pub(super) fn is_checkpoint_name(name: &OsStr) -> bool {
    let ends = |extension: &str| Path::new(name).extension().is_some_and(|found| found == extension);
    ends("img") || ends("log") || OTHERS.iter().any(|other| name == *other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_logs_and_records_are_a_checkpoints_and_a_users_file_is_not() {
        for name in ["inventory.img", "tmpfs-dev-60.tar.gz.img", "dump.log", "crr.json", "stats-dump", "parent"] {
            assert!(is_checkpoint_name(OsStr::new(name)), "{name}");
        }
        for name in ["notes.txt", "img", "crr.jso", ".img", "thesis.docx"] {
            assert!(!is_checkpoint_name(OsStr::new(name)), "{name}");
        }
    }
}
