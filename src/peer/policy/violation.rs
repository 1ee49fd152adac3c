//! What a policy does not allow.

use std::fmt;

use super::super::Name;
use crate::escape::escape;

/// Whose policy it is: a section of serve.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// `[peer.NAME]`
    Peer(Name),
    /// `[stdio]`
    Stdio,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A name with a dot is quoted, as TOML has it.
            Self::Peer(name) if name.as_str().contains('.') => write!(f, "[peer.\"{name}\"]"),
            Self::Peer(name) => write!(f, "[peer.{name}]"),
            Self::Stdio => f.write_str("[stdio]"),
        }
    }
}

macro_rules! lines {
    ($($(#[$doc:meta])* $line:ident $key:literal,)*) => {
        /// A line of a policy, by which something is allowed or limited.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Line { $($(#[$doc])* $line,)* }

        impl Line {
            /// Every line.
            pub const ALL: &'static [Line] = &[$(Line::$line,)*];

            /// Its key in serve.toml.
            pub const fn key(self) -> &'static str {
                match self { $(Line::$line => $key,)* }
            }
        }
    };
}

lines! {
    /// Only a peer that nothing restricts may do it.
    Unrestricted "unrestricted",
    /// User ids.
    Uids "uids",
    /// Group ids.
    Gids "gids",
    /// Capabilities, and what the kernel gives only to who has one.
    Capabilities "capabilities",
    /// Paths opened for reading, and current directories.
    Open "open",
    /// Paths opened for writing.
    Write "write",
    /// Paths mapped, executables and libraries.
    Map "map",
    /// Directories in which names are made.
    Create "create",
    /// Cgroups.
    Cgroups "cgroups",
    /// Local addresses of sockets.
    Addresses "addresses",
    /// Local ports of sockets.
    Ports "ports",
    /// The other ends of connections.
    Remotes "remotes",
    /// Namespaces of the tree's own.
    Namespaces "namespaces",
    /// Pseudo terminals.
    Terminals "terminals",
    /// inotify(7).
    Watches "watches",
    /// Security labels.
    Profiles "profiles",
    /// That execve(2) can give nothing new.
    NoNewPrivileges "no-new-privileges",
    /// Tasks and threads.
    MaxTasks "max-tasks",
    /// Bytes of images.
    MaxBytes "max-bytes",
    /// How long a migration may take.
    MaxSeconds "max-seconds",
}

/// One thing that a policy does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The image that asks for it.
    pub image: String,
    /// The task or thread that would have it, where the image tells.
    pub task: Option<u32>,
    /// What is asked for, with the value.
    pub what: String,
    /// The line that would have to allow it.
    pub line: Line,
    /// The section of that line.
    pub section: Section,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", escape(&self.image))?;
        if let Some(task) = self.task {
            write!(f, ": task {task}")?;
        }
        write!(f, ": {} ({} {})", escape(&self.what), self.section, self.line.key())
    }
}
