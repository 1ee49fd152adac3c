//! What is to be migrated, and what the target says to that.

use std::net::IpAddr;
use std::path::PathBuf;

use super::fault::{Fault, Wrong};
use super::fields::{TREE_LIMIT, Text, absent, enumeration, given, limited, list, name, path, path_bytes, range};
use crate::proto::wire as proto;

/// More of anything in an offer or an answer than this are refused.
pub const LIST_LIMIT: usize = 4096;

enumeration! {
    /// How long the header of a page server's commands is.
    PageHeader of proto::PageHeader, "page header":
    /// Before CRIU 4.2.
    Bytes24 = BYTES_24,
    /// Since CRIU 4.2.
    Bytes32 = BYTES_32,
}

enumeration! {
    /// What becomes of files that the target lacks.
    Missing of proto::Missing, "choice for missing files":
    /// The migration is refused.
    Refuse = REFUSE,
    /// They are sent and created; what is there is never replaced.
    Send = SEND,
}

enumeration! {
    /// How payloads are packed.
    Compression of proto::Compression, "compression":
    /// They are not.
    None = NONE,
    /// Zstandard.
    Zstd = ZSTD,
    /// LZ4.
    Lz4 = LZ4,
}

/// A tree that is to be migrated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What [`Foreseen`](crate::restore::Foreseen) is as JSON: host, PIDs, connections, manifest of files. Limited to 3 MiB.
    pub tree: Vec<u8>,
    /// The PID of its root.
    pub root: i32,
    /// The name of its program.
    pub name: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// As whom they run.
    pub credentials: Vec<Credentials>,
    /// The CRIU that dumps it.
    pub criu: Criu,
    /// What the kernel must be able to do, by the names of `crr check`.
    pub kernel_features: Vec<String>,
    /// Types of the file systems that it uses.
    pub file_systems: Vec<String>,
    /// The addresses that come with it.
    pub moves: Vec<Move>,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// What the images will take, in bytes.
    pub images_bytes: u64,
    /// The cgroups that its tasks are in.
    pub cgroups: Vec<Cgroup>,
    /// Options of the restore, by the names of the command line, and their values.
    pub options: Vec<(String, String)>,
    /// What becomes of files that the target lacks.
    pub missing: Missing,
    /// What the source can pack with, the best first.
    pub compressions: Vec<Compression>,
}

/// As whom a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permitted capabilities, a bit each.
    pub capabilities: u64,
}

/// A CRIU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criu {
    /// Its version: major, minor, sublevel.
    pub version: (u32, u32, u32),
    /// How it talks to page servers.
    pub page_header: PageHeader,
}

/// An address that goes with the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are the network's.
    pub prefix: u8,
    /// The device on the source.
    pub device: String,
    /// The device on the target.
    pub target_device: String,
}

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// As in /proc/PID/cgroup; empty for version 2.
    pub controllers: String,
    /// Below the mount points.
    pub path: PathBuf,
}

impl Offer {
    pub(super) fn to_proto(&self) -> proto::Offer {
        let Self {
            tree,
            root,
            name,
            tasks,
            credentials,
            criu,
            kernel_features,
            file_systems,
            moves,
            memory_bytes,
            images_bytes,
            cgroups,
            options,
            missing,
            compressions,
        } = self;
        let mut offer = proto::Offer::new();
        offer.tree.clone_from(tree);
        offer.root = *root;
        offer.name.clone_from(name);
        offer.tasks = *tasks;
        offer.credentials = credentials.iter().map(|one| one.to_proto()).collect();
        offer.criu = Some(criu.to_proto()).into();
        offer.kernel_features.clone_from(kernel_features);
        offer.file_systems.clone_from(file_systems);
        offer.moves = moves.iter().map(Move::to_proto).collect();
        offer.memory_bytes = *memory_bytes;
        offer.images_bytes = *images_bytes;
        offer.cgroups = cgroups.iter().map(Cgroup::to_proto).collect();
        offer.options = options.iter().map(option).collect();
        offer.missing = missing.to_proto();
        offer.compressions = compressions.iter().map(|one| one.to_proto()).collect();
        offer
    }

    pub(super) fn parse(offer: proto::Offer) -> Result<Self, Fault> {
        limited("tree", offer.tree.len(), TREE_LIMIT)?;
        if offer.tree.is_empty() {
            return Err(absent("tree"));
        }
        if offer.root <= 0 {
            return Err(absent("root"));
        }
        if offer.tasks == 0 {
            return Err(absent("number of tasks"));
        }
        let option = |option: proto::Option| Ok((given("option", option.name)?, value(option.value)?));
        Ok(Self {
            tree: offer.tree,
            root: offer.root,
            name: name("program", offer.name)?,
            tasks: offer.tasks,
            credentials: list("list of credentials", LIST_LIMIT, offer.credentials, |one| {
                Ok(Credentials::parse(&one))
            })?,
            criu: Criu::parse(offer.criu.into_option().ok_or_else(|| absent("CRIU"))?)?,
            kernel_features: list("list of features", LIST_LIMIT, offer.kernel_features, |one| given("feature", one))?,
            file_systems: list("list of file systems", LIST_LIMIT, offer.file_systems, |one| {
                given("file system", one)
            })?,
            moves: list("list of addresses", LIST_LIMIT, offer.moves, Move::parse)?,
            memory_bytes: offer.memory_bytes,
            images_bytes: offer.images_bytes,
            cgroups: list("list of cgroups", LIST_LIMIT, offer.cgroups, Cgroup::parse)?,
            options: list("list of options", LIST_LIMIT, offer.options, option)?,
            missing: Missing::parse(offer.missing)?,
            compressions: list("list of compressions", LIST_LIMIT, offer.compressions, Compression::parse)?,
        })
    }
}

fn option((name, value): &(String, String)) -> proto::Option {
    let mut option = proto::Option::new();
    option.name.clone_from(name);
    option.value.clone_from(value);
    option
}

fn value(value: String) -> Result<String, Fault> {
    limited("option", value.len(), super::fields::PATH_LIMIT)?;
    Ok(value)
}

impl Credentials {
    fn to_proto(self) -> proto::Credentials {
        let Self { uid, gid, capabilities } = self;
        let mut credentials = proto::Credentials::new();
        (credentials.uid, credentials.gid, credentials.capabilities) = (uid, gid, capabilities);
        credentials
    }

    fn parse(credentials: &proto::Credentials) -> Self {
        Self { uid: credentials.uid, gid: credentials.gid, capabilities: credentials.capabilities }
    }
}

impl Criu {
    fn to_proto(self) -> proto::Criu {
        let Self { version, page_header } = self;
        let mut criu = proto::Criu::new();
        (criu.major, criu.minor, criu.sublevel) = version;
        criu.page_header = page_header.to_proto();
        criu
    }

    fn parse(criu: proto::Criu) -> Result<Self, Fault> {
        if criu.major == 0 {
            return Err(absent("version of CRIU"));
        }
        let version = (criu.major, criu.minor, criu.sublevel);
        Ok(Self { version, page_header: PageHeader::parse(criu.page_header)? })
    }
}

impl Move {
    fn to_proto(&self) -> proto::Move {
        let Self { address, prefix, device, target_device } = self;
        let mut moved = proto::Move::new();
        moved.address = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        moved.prefix = u32::from(*prefix);
        moved.device.clone_from(device);
        moved.target_device.clone_from(target_device);
        moved
    }

    fn parse(moved: proto::Move) -> Result<Self, Fault> {
        let length = moved.address.len();
        let address = match (<[u8; 4]>::try_from(&*moved.address), <[u8; 16]>::try_from(&*moved.address)) {
            (Ok(octets), _) => IpAddr::from(octets),
            (_, Ok(octets)) => IpAddr::from(octets),
            _ => return Err(Fault::Invalid { field: "address", reason: Wrong::Length(length) }),
        };
        if address.is_unspecified() {
            return Err(absent("address"));
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = u8::try_from(moved.prefix).ok().filter(|prefix| (1..=bits).contains(prefix));
        Ok(Self {
            address,
            prefix: prefix.ok_or_else(|| range("length of a network's prefix"))?,
            device: device(moved.device)?,
            target_device: device(moved.target_device)?,
        })
    }
}

/// A network device by its name, as the kernel allows it.
fn device(device: String) -> Result<String, Fault> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    let allowed = device.len() < 16 && device.chars().all(plain) && device != "." && device != "..";
    match allowed {
        true => given("device", device),
        false => Err(Fault::Invalid { field: "device", reason: Wrong::Name }),
    }
}

impl Cgroup {
    fn to_proto(&self) -> proto::Cgroup {
        let Self { controllers, path } = self;
        let mut cgroup = proto::Cgroup::new();
        cgroup.controllers.clone_from(controllers);
        cgroup.path = path_bytes(path);
        cgroup
    }

    fn parse(cgroup: proto::Cgroup) -> Result<Self, Fault> {
        Ok(Self { controllers: name("controllers", cgroup.controllers)?, path: path("cgroup", cgroup.path)? })
    }
}

/// The tree can live on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The files that are to be sent.
    pub wanted: Vec<PathBuf>,
    /// How the target's CRIU talks to page servers.
    pub page_header: PageHeader,
    /// How payloads are to be packed.
    pub compression: Compression,
    /// What the user should know.
    pub remarks: Vec<Finding>,
}

/// The tree cannot live on the target, for all of these reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// There is at least one.
    pub findings: Vec<Finding>,
}

/// Something that the target has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A word for programs, such as `pid-taken`.
    pub kind: String,
    /// What is so.
    pub what: Text,
    /// What can be done about it; may be empty.
    pub cure: Text,
}

impl Ready {
    pub(super) fn to_proto(&self) -> proto::Ready {
        let Self { wanted, page_header, compression, remarks } = self;
        let mut ready = proto::Ready::new();
        ready.wanted = wanted.iter().map(|path| path_bytes(path)).collect();
        ready.page_header = page_header.to_proto();
        ready.compression = compression.to_proto();
        ready.remarks = remarks.iter().map(Finding::to_proto).collect();
        ready
    }

    pub(super) fn parse(ready: proto::Ready) -> Result<Self, Fault> {
        Ok(Self {
            wanted: list("list of wanted files", LIST_LIMIT, ready.wanted, |one| path("wanted file", one))?,
            page_header: PageHeader::parse(ready.page_header)?,
            compression: Compression::parse(ready.compression)?,
            remarks: list("list of remarks", LIST_LIMIT, ready.remarks, Finding::parse)?,
        })
    }
}

impl Refused {
    pub(super) fn to_proto(&self) -> proto::Refused {
        let Self { findings } = self;
        let mut refused = proto::Refused::new();
        refused.findings = findings.iter().map(Finding::to_proto).collect();
        refused
    }

    pub(super) fn parse(refused: proto::Refused) -> Result<Self, Fault> {
        if refused.findings.is_empty() {
            return Err(absent("finding"));
        }
        Ok(Self { findings: list("list of findings", LIST_LIMIT, refused.findings, Finding::parse)? })
    }
}

impl Finding {
    fn to_proto(&self) -> proto::Finding {
        let Self { kind, what, cure } = self;
        let mut finding = proto::Finding::new();
        finding.kind.clone_from(kind);
        finding.what = what.as_raw().into();
        finding.cure = cure.as_raw().into();
        finding
    }

    fn parse(finding: proto::Finding) -> Result<Self, Fault> {
        Ok(Self {
            kind: given("kind of finding", finding.kind)?,
            what: Text::parse("finding", finding.what)?,
            cure: Text::parse("cure", finding.cure)?,
        })
    }
}
