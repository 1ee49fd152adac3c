//! What can stand against a restore.

use std::fmt;
use std::net::IpAddr;

use super::container::ContainerProblem;
use super::copy::CopyProblem;
use crate::checkpoint::Difference;
use crate::error::WrongImage;
use crate::host::Taken;
use crate::host::netlock::Connection;
use crate::request::Version;

/// One thing that stands against a restore. Nothing has been touched when it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The set of images is not whole; what is wrong with it.
    Images(String),
    /// An image is not as it was written.
    Sum(WrongImage),
    /// A PID is not free.
    Pid(Taken),
    /// The images are of another kind of machine.
    Machine {
        /// Theirs, such as `x86_64`.
        recorded: String,
        /// This one.
        here: String,
    },
    /// The processor lacks what programs may have found and use.
    Cpu {
        /// Its features, as in /proc/cpuinfo.
        missing: Vec<String>,
    },
    /// This CRIU cannot read the images of the one that wrote them.
    Criu {
        /// The one that wrote them.
        recorded: Version,
        /// This one.
        running: Version,
    },
    /// The local address of a connection is not on this host.
    Address {
        /// The address.
        address: IpAddr,
        /// How many connections have it.
        connections: usize,
    },
    /// What shall become of TCP connections has not been said.
    Connections(Vec<Connection>),
    /// A file outside the images is not as it was.
    File(Difference),
    /// The tree is a job of a shell with a terminal, and standard input is none.
    NoTerminal,
    /// The cgroup that was asked for cannot be used.
    Cgroup(String),
    /// Something about a container.
    Container(ContainerProblem),
    /// Something about a copy.
    Copy(CopyProblem),
    /// There is too little room for a tree that is to come.
    Shortage(Shortage),
}

/// Too little of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of what: `memory`, or the path of a directory.
    pub of: String,
    /// How much is wanted, in bytes.
    pub needed_bytes: u64,
    /// How much there is, in bytes.
    pub free_bytes: u64,
}

impl Problem {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Images(_) => "copy the whole directory again, or restore another checkpoint",
            Self::Sum(_) => "copy the directory again; --no-verify restores it as it is",
            Self::Pid(_) => "end what has the PID, or wait until its parent has taken note of its end",
            Self::Machine { .. } => "restore it on a machine of the same kind",
            Self::Cpu { .. } => {
                "restore it on a host whose CPU has these; --cpu-cap none restores it all the same, and programs may crash"
            }
            Self::Criu { .. } => "use the CRIU that wrote the images, or a newer one (--criu)",
            Self::Address { .. } => {
                "add the address to this host (ip address add), or drop the connections with --tcp-close"
            }
            Self::Connections(_) => "say --tcp-established to keep them or --tcp-close to drop them",
            Self::File(_) => "bring the files as they were; `crr dump --with-files` takes them along",
            Self::NoTerminal => "run crr on a terminal",
            Self::Cgroup(_) => "make the cgroup, or name another",
            Self::Container(problem) => problem.hint(),
            Self::Copy(problem) => problem.hint(),
            Self::Shortage(_) => "free some, or choose another host",
        };
        Some(hint.to_owned())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images(what) => f.write_str(what),
            Self::Sum(wrong) => write!(f, "the image {wrong}"),
            Self::Pid(taken) => taken.fmt(f),
            Self::Machine { recorded, here } => write!(f, "the images are of a {recorded} machine, and this is {here}"),
            Self::Cpu { missing } => write!(f, "this CPU lacks what the dumped one had: {}", missing.join(" ")),
            Self::Criu { recorded, running } => {
                write!(f, "the images were written by CRIU {recorded}, which CRIU {running} cannot read")
            }
            Self::Address { address, connections } => {
                write!(f, "the local address {address} of {connections} TCP connection(s) is not on this host")
            }
            Self::Connections(connections) => {
                write!(f, "the images hold TCP connections:")?;
                for Connection { local, remote } in connections.iter().take(5) {
                    write!(f, " {local}-{remote}")?;
                }
                match connections.len().saturating_sub(5) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::File(difference) => difference.fmt(f),
            Self::NoTerminal => {
                f.write_str("the tree is a job of a shell on a terminal, and standard input is no terminal")
            }
            Self::Cgroup(why) => f.write_str(why),
            Self::Container(problem) => problem.fmt(f),
            Self::Copy(problem) => problem.fmt(f),
            Self::Shortage(Shortage { of, needed_bytes, free_bytes }) => {
                let of = crate::escape::escape(of);
                write!(f, "the tree needs {needed_bytes} bytes of {of}, and {free_bytes} are free")
            }
        }
    }
}

/// What a restore does beyond, or in spite of, what it was told; to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Remarks {
    /// What was decided without being asked, such as an option that was turned on.
    pub notes: Vec<String>,
    /// What may go wrong later.
    pub warnings: Vec<String>,
}

impl Remarks {
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.notes.append(&mut other.notes);
        self.warnings.append(&mut other.warnings);
    }
}
