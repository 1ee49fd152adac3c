//! Mounts of a container's configuration.

use std::path::{Path, PathBuf};

/// A mount that the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, as seen in the container: absolute, symbolic links of the root file system not followed.
    pub destination: PathBuf,
    /// What: an absolute path of the host for a bind mount, else the word of the configuration.
    pub source: PathBuf,
    /// What kind.
    pub kind: MountKind,
    /// The flags of mount(2), `MS_RDONLY` and so on, without those of propagation.
    pub flags: u64,
    /// The options of the file system, such as `mode=755,size=65536k`.
    pub data: String,
}

/// What a checkpoint has to tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind,
    /// The cgroup file system: bind mounts of each hierarchy under v1 without a cgroup namespace, else a mount of its own.
    Cgroup,
    /// A tmpfs, whose content lives and dies with the container.
    Tmpfs,
    /// Another file system, by its type.
    Other(String),
}

impl Mount {
    /// Whether it is read-only.
    pub fn read_only(&self) -> bool {
        self.flags & libc::MS_RDONLY != 0
    }
}

impl MountKind {
    pub(super) fn of(device: &str) -> Self {
        match device {
            "bind" => Self::Bind,
            "cgroup" | "cgroup2" => Self::Cgroup,
            "tmpfs" => Self::Tmpfs,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The options of a mount of config.json, sorted as runc sorts them (libcontainer/specconv `parseMountOptions`).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) flags: u64,
    /// Flags that an option takes away: those of the source otherwise stay on a bind mount.
    pub(super) cleared: u64,
    /// One mount(2) for each.
    pub(super) propagation: Vec<u64>,
    pub(super) data: String,
    /// Files of the root file system are copied into a new tmpfs.
    pub(super) copy_up: bool,
}

impl Options {
    pub(super) fn parse<'a>(options: impl Iterator<Item = &'a str>) -> Self {
        let mut parsed = Self::default();
        let mut data = Vec::new();
        for option in options {
            if let Some((set, flag)) = flag(option) {
                let (to, from) = match set {
                    true => (&mut parsed.flags, &mut parsed.cleared),
                    false => (&mut parsed.cleared, &mut parsed.flags),
                };
                *to |= flag;
                *from &= !flag;
            } else if let Some(flag) = propagation(option) {
                parsed.propagation.push(flag);
            } else if option == "tmpcopyup" {
                parsed.copy_up = true;
            } else if !is_recursive_attribute(option) {
                data.push(option);
            }
        }
        parsed.data = data.join(",");
        parsed
    }
}

/// A configuration's mount of type `kind` with these options, made absolute as runc makes it.
pub(super) fn from_config(destination: &Path, kind: &str, source: &Path, options: &Options, bundle: &Path) -> Mount {
    // The type of a bind mount means nothing.
    let kind = if options.flags & libc::MS_BIND != 0 { MountKind::Bind } else { MountKind::of(kind) };
    let source = match kind {
        MountKind::Bind => bundle.join(source),
        _ => source.to_path_buf(),
    };
    Mount {
        destination: Path::new("/").join(destination),
        source,
        kind,
        flags: options.flags,
        data: options.data.clone(),
    }
}

fn flag(option: &str) -> Option<(bool, u64)> {
    const SYMFOLLOW: u64 = 1 << 8;
    Some(match option {
        "defaults" => (true, 0),
        "async" => (false, libc::MS_SYNCHRONOUS),
        "atime" => (false, libc::MS_NOATIME),
        "bind" => (true, libc::MS_BIND),
        "dev" => (false, libc::MS_NODEV),
        "diratime" => (false, libc::MS_NODIRATIME),
        "dirsync" => (true, libc::MS_DIRSYNC),
        "exec" => (false, libc::MS_NOEXEC),
        "iversion" => (true, libc::MS_I_VERSION),
        "lazytime" => (true, libc::MS_LAZYTIME),
        "loud" => (false, libc::MS_SILENT),
        "mand" => (true, libc::MS_MANDLOCK),
        "noatime" => (true, libc::MS_NOATIME),
        "nodev" => (true, libc::MS_NODEV),
        "nodiratime" => (true, libc::MS_NODIRATIME),
        "noexec" => (true, libc::MS_NOEXEC),
        "noiversion" => (false, libc::MS_I_VERSION),
        "nolazytime" => (false, libc::MS_LAZYTIME),
        "nomand" => (false, libc::MS_MANDLOCK),
        "norelatime" => (false, libc::MS_RELATIME),
        "nostrictatime" => (false, libc::MS_STRICTATIME),
        "nosuid" => (true, libc::MS_NOSUID),
        "nosymfollow" => (true, SYMFOLLOW),
        "rbind" => (true, libc::MS_BIND | libc::MS_REC),
        "relatime" => (true, libc::MS_RELATIME),
        "remount" => (true, libc::MS_REMOUNT),
        "ro" => (true, libc::MS_RDONLY),
        "rw" => (false, libc::MS_RDONLY),
        "silent" => (true, libc::MS_SILENT),
        "strictatime" => (true, libc::MS_STRICTATIME),
        "suid" => (false, libc::MS_NOSUID),
        "symfollow" => (false, SYMFOLLOW),
        "sync" => (true, libc::MS_SYNCHRONOUS),
        _ => return None,
    })
}

/// The flag of a word of propagation, `rslave` and so on.
pub(super) fn propagation(word: &str) -> Option<u64> {
    let (recursive, word) = match word.strip_prefix('r') {
        Some(rest) => (libc::MS_REC, rest),
        None => (0, word),
    };
    let flag = match word {
        "private" => libc::MS_PRIVATE,
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(flag | recursive)
}

/// `rro` and its kind go to mount_setattr(2) when the container is made; nothing asks the state file for them.
fn is_recursive_attribute(option: &str) -> bool {
    let Some(plain) = option.strip_prefix('r') else { return false };
    matches!(
        plain,
        "ro" | "rw"
            | "nosuid"
            | "suid"
            | "nodev"
            | "dev"
            | "noexec"
            | "exec"
            | "nodiratime"
            | "diratime"
            | "relatime"
            | "norelatime"
            | "noatime"
            | "atime"
            | "strictatime"
            | "nostrictatime"
            | "nosymfollow"
            | "symfollow"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_as_runc_sorts_them() {
        // Flags as they stand in the state of runc 1.1.5 and 1.3.6.
        for (options, flags, cleared, propagation, data) in [
            ("nosuid strictatime mode=755 size=65536k", 16_777_218, 0, vec![], "mode=755,size=65536k"),
            ("nosuid noexec nodev relatime ro", 2_097_167, 0, vec![], ""),
            ("rbind rw nosuid", 20_482, 1, vec![], ""),
            ("size=1m nodev rprivate", 4, 0, vec![278_528], "size=1m"),
            ("bind ro rro", 4097, 0, vec![], ""),
            ("ro rw", 0, 1, vec![], ""),
            ("rw ro", 1, 0, vec![], ""),
        ] {
            let expected = Options { flags, cleared, propagation, data: data.into(), copy_up: false };
            assert_eq!(Options::parse(options.split(' ')), expected, "{options}");
        }
        assert!(Options::parse(["tmpcopyup"].into_iter()).copy_up);
    }

    #[test]
    fn a_bind_mount_is_one_by_its_options() {
        let bundle = Path::new("/b");
        let bind = Options::parse(["rbind"].into_iter());
        let mount = from_config(Path::new("data"), "none", Path::new("vol"), &bind, bundle);
        assert_eq!(mount.kind, MountKind::Bind);
        assert_eq!((mount.source.as_path(), mount.destination.as_path()), (Path::new("/b/vol"), Path::new("/data")));
        let mount = from_config(Path::new("/tmp"), "tmpfs", Path::new("tmpfs"), &Options::default(), bundle);
        assert_eq!((mount.kind, mount.source.as_path()), (MountKind::Tmpfs, Path::new("tmpfs")));
    }
}
