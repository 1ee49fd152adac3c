//! How a tmpfs is mounted, from what the mount table says.

use nix::mount::MsFlags;

use crate::arena::TmpfsOptions;
use crate::checkpoint::RecordedEntry;

/// The options of a tmpfs, all of which can be given again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    flags: MsFlags,
    /// Whether the file system can not be written to by any mount of it.
    pub(super) read_only: bool,
    data: Vec<String>,
}

impl Options {
    /// From the mount's options and the file system's, as in mountinfo; `None` if one is not known.
    pub(super) fn parse(mount: &str, filesystem: &str) -> Option<Self> {
        let mut flags = MsFlags::empty();
        for option in mount.split(',') {
            flags |= match option {
                // CRIU makes the container's mount read-only; ours has to be written first.
                "rw" | "ro" | "relatime" => MsFlags::empty(),
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                _ => return None,
            };
        }
        let mut options = Self { flags, read_only: false, data: Vec::new() };
        for option in filesystem.split(',') {
            match (option, option.split_once('=').map_or(option, |(name, _)| name)) {
                ("rw", _) => {}
                ("ro", _) => options.read_only = true,
                (
                    _,
                    "size" | "nr_blocks" | "nr_inodes" | "mode" | "uid" | "gid" | "huge" | "noswap" | "inode32"
                    | "inode64",
                ) => options.data.push(option.to_owned()),
                _ => return None,
            }
        }
        Some(options)
    }

    /// For the mount, with the root directory that it had if that cannot be changed later.
    pub(super) fn mounted(mut self, root: Option<&RecordedEntry>) -> TmpfsOptions {
        if self.read_only {
            self.flags |= MsFlags::MS_RDONLY;
            // The last one counts.
            let root = root
                .map(|RecordedEntry { mode, uid, gid, .. }| format!("mode={:o},uid={uid},gid={gid}", mode & 0o7777));
            self.data.extend(root);
        }
        TmpfsOptions { flags: self.flags, data: self.data.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(mode: u32) -> RecordedEntry {
        RecordedEntry { mode, uid: 0, gid: 5, ..RecordedEntry::default() }
    }

    #[test]
    fn a_mount_is_made_again_as_it_was() {
        let options = Options::parse("rw,nosuid,noexec,relatime", "rw,size=65536k,mode=755,inode64").expect("known");
        let mounted = options.mounted(Some(&root(0o41777)));
        assert_eq!(mounted.flags, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC);
        assert_eq!(mounted.data, "size=65536k,mode=755,inode64");
    }

    #[test]
    fn only_a_file_system_that_is_read_only_is_mounted_so() {
        let of = |mount, filesystem| Options::parse(mount, filesystem).expect("known").mounted(None).flags;
        assert_eq!(of("ro,relatime", "ro"), MsFlags::MS_RDONLY);
        assert_eq!(of("ro,relatime", "rw,size=1k"), MsFlags::empty());
        let options = Options::parse("ro", "ro,mode=755").expect("known").mounted(Some(&root(0o41777)));
        assert_eq!(options.data, "mode=755,mode=1777,uid=0,gid=5");
    }

    #[test]
    fn what_is_not_known_is_not_made_again() {
        assert_eq!(Options::parse("rw,novelty", "rw"), None);
        assert_eq!(Options::parse("rw", "rw,mpol=bind:0"), None);
        assert_eq!(Options::parse("rw,idmapped", "rw"), None);
        assert_eq!(Options::parse("", ""), None);
    }
}
