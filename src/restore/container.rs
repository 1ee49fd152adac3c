//! What can stand against a restore as a container.

use std::fmt;
use std::path::PathBuf;

use crate::host::Taken;

/// One thing that stands against a restore as a container. Nothing has been made when it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerProblem {
    /// The images are of plain processes.
    NotAContainer,
    /// The images are of a container, and a container was not asked for.
    IsAContainer {
        /// Its name, where it is known.
        id: Option<String>,
    },
    /// There is a container of this name.
    IdTaken {
        /// The name.
        id: String,
        /// Its directory in the runtime's root.
        state: PathBuf,
    },
    /// Another crr is restoring it at this moment.
    Busy(String),
    /// Nothing says which bundle it is.
    NoBundle,
    /// The bundle, or a file of it, is not there or cannot be read.
    Bundle {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The root file system is not there.
    Rootfs(PathBuf),
    /// The source of a mount is not there.
    Source {
        /// Where it was mounted in the container.
        destination: PathBuf,
        /// What is missing.
        source: PathBuf,
    },
    /// A mount came from outside, and the bundle does not say from where.
    Mount {
        /// Where it was mounted in the container.
        destination: PathBuf,
        /// Its name in the images.
        key: String,
    },
    /// A file that tasks have open or run is not as it was.
    File {
        /// The root file system.
        rootfs: PathBuf,
        /// What is different.
        difference: String,
    },
    /// A namespace that the bundle names by a path is not there.
    Namespace {
        /// Its type, in the words of config.json.
        kind: String,
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A PID is not free in the PID namespace that the bundle names by a path.
    Pid(Taken),
    /// Nothing stands for a standard stream.
    Stream {
        /// 0, 1 or 2.
        number: u32,
        /// Where it led at the dump.
        target: String,
        /// Why nothing does.
        why: String,
    },
    /// Its terminal has nobody at the other end.
    NoConsole,
    /// A cgroup that it is to be put into cannot be used.
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An option cannot be followed.
    Option {
        /// The option.
        option: &'static str,
        /// Why not.
        why: String,
    },
}

impl ContainerProblem {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAContainer => "leave out --container: `crr restore --dir DIR` restores processes",
            Self::IsAContainer { .. } => "give it a name: `crr restore --dir DIR --container ID`",
            Self::IdTaken { .. } => "take another name, or remove the container with its runtime's delete",
            Self::Busy(_) => "wait for it to end",
            Self::NoBundle => "name the bundle with --bundle",
            Self::Bundle { .. } => "name the bundle that the container was made from with --bundle",
            Self::Rootfs(_) => "unpack the root file system there, or name another bundle with --bundle",
            Self::Source { .. } => "bring back what is missing, or change the mount in the bundle's config.json",
            Self::Mount { .. } => {
                "name the bundle that the container was made from with --bundle, or give the mount with --external mnt[KEY]:PATH"
            }
            Self::File { .. } => {
                "bring the root file system as it was, or name the bundle of the same image with --bundle"
            }
            Self::Namespace { .. } => {
                "make the namespace, name another in the bundle's config.json, or give another with --join-ns"
            }
            Self::Pid(_) => "wait until it ends, or name another PID namespace in the bundle's config.json",
            Self::Stream { .. } => "say --stdio null or --stdio inherit",
            Self::NoConsole => "give the socket that takes the terminal with --console-socket",
            Self::Cgroup { .. } => "change linux.cgroupsPath in the bundle's config.json, or end what is in it",
            Self::Option { .. } => "leave the option out, or change it",
        }
    }
}

impl fmt::Display for ContainerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAContainer => f.write_str("the images are of plain processes, not of a container"),
            Self::IsAContainer { id: Some(id) } => write!(f, "the images are of the container `{id}`"),
            Self::IsAContainer { id: None } => f.write_str("the images are of a container"),
            Self::IdTaken { id, state } => write!(f, "there is a container `{id}` already (`{}`)", state.display()),
            Self::Busy(id) => write!(f, "another crr is restoring the container `{id}`"),
            Self::NoBundle => f.write_str("the checkpoint does not say which bundle it is of"),
            Self::Bundle { path, why } => write!(f, "the bundle cannot be used: `{}`: {why}", path.display()),
            Self::Rootfs(path) => write!(f, "there is no root file system at `{}`", path.display()),
            Self::Source { destination, source } => {
                write!(f, "`{}`, which was mounted at {}, is not there", source.display(), destination.display())
            }
            Self::Mount { destination, key } => write!(
                f,
                "the mount at {} came from outside as `{}`, and the bundle has no such mount",
                destination.display(),
                crate::escape::escape(key)
            ),
            Self::File { rootfs, difference } => write!(f, "in `{}`: {difference}", rootfs.display()),
            Self::Namespace { kind, path, why } => write!(f, "the {kind} namespace `{}`: {why}", path.display()),
            Self::Pid(taken) => write!(f, "in the PID namespace that the bundle names {taken}"),
            Self::Stream { number, target, why } => {
                write!(f, "descriptor {number} led to `{}`: {why}", crate::escape::escape(target))
            }
            Self::NoConsole => f.write_str("the container has a terminal, and nobody to take the other end of it"),
            Self::Cgroup { path, why } => write!(f, "the cgroup `{}`: {why}", path.display()),
            Self::Option { option, why } => write!(f, "{option}: {why}"),
        }
    }
}
