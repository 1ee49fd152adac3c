//! Messages, each with the migration that it is about.

use protobuf::Message as _;

use super::Id;
use super::fault::{Fault, Wrong};
use super::fields::{Text, absent, enumeration, given, list, name};
use super::object::{Object, ObjectEnd};
use super::offer::{LIST_LIMIT, Offer, Ready, Refused};
use super::reason::{Failure, Phase, Reason};
use crate::images::parts_within;
use crate::proto::wire as proto;
use crate::proto::wire::envelope::Body;

/// More fields than this make no message: one takes up to a hundred times the memory of its encoding.
pub const FIELDS_LIMIT: usize = 1 << 16;

/// A message and the migration that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The migration.
    pub id: Id,
    /// What is said.
    pub message: Message,
}

/// What is said. Which side says what when: [`crate::migrate::machine`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Who speaks; the first message of both.
    Hello(Hello),
    /// Are you there? To be answered at once, whatever else is under way, with the same number.
    Ping(u64),
    /// I am.
    Pong(u64),
    /// Something for the user.
    Log(LogLine),
    /// How far it is.
    Progress(Progress),
    /// The conversation is over.
    Failure(Failure),
    /// Pre-checkpoint is through: this is to be migrated.
    Offer(Box<Offer>),
    /// Pre-restore is through: it can live here.
    Ready(Ready),
    /// It cannot.
    Refused(Refused),
    /// Everything is there and the address is off: restore.
    Go {
        /// How many objects must be there.
        objects: u32,
    },
    /// The copy is frozen and fenced.
    Prepared(Prepared),
    /// Decided: let it run.
    Commit,
    /// It runs.
    Running,
    /// Given up: kill the copy.
    Abort(Reason),
    /// There is no copy, nor will there be one.
    Aborted(Reason),
    /// The copy died before it was let go, and will never run.
    Returned(Reason),
    /// The committed copy went down with its host.
    Lost,
    /// There is no record of this migration here, or not any more.
    Unknown,
    /// How does it stand?
    Ask,
    /// The record may be removed.
    Forget,
    /// An object is about to be sent.
    Object(Object),
    /// All of it has been sent.
    ObjectEnd(ObjectEnd),
    /// All of it has been received, summed and copied.
    ObjectReceived(ObjectEnd),
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the program, for people.
    pub crr: String,
    /// The name of its host, for people.
    pub host: String,
    /// The identity of this boot of its kernel.
    pub boot_id: String,
    /// What it can do beyond the agreed version.
    pub abilities: Vec<String>,
}

enumeration! {
    /// How serious a line is.
    Level of proto::log_line::Level, "level":
    /// Something failed.
    Error = ERROR,
    /// Something is not as it should be.
    Warning = WARNING,
    /// Something happened.
    Info = INFO,
    /// For those who look for a fault.
    Debug = DEBUG,
}

/// Something for the user of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How serious it is.
    pub level: Level,
    /// The line.
    pub line: Text,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// In which phase.
    pub phase: Phase,
    /// Of the total.
    pub done_bytes: u64,
    /// 0 where it is not known.
    pub total_bytes: u64,
}

/// The copy is frozen and fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The PID of its root.
    pub root: i32,
    /// How many tasks it has.
    pub tasks: u32,
    /// How long the restore took, in microseconds.
    pub restore_us: u64,
}

impl Envelope {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Fault> {
        let Self { id, message } = self;
        let mut envelope = proto::Envelope::new();
        envelope.migration = id.to_bytes().to_vec();
        envelope.body = Some(message.to_proto());
        let bytes = envelope.write_to_bytes().map_err(|source| Fault::Undecodable { source })?;
        // What the other side would refuse is not sent.
        Self::of(envelope)?;
        Ok(bytes)
    }

    /// The message in the bytes of a frame.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        if !parts_within(bytes, FIELDS_LIMIT) {
            return Err(Fault::TooManyFields { limit: FIELDS_LIMIT });
        }
        Self::of(proto::Envelope::parse_from_bytes(bytes).map_err(|source| Fault::Undecodable { source })?)
    }

    fn of(envelope: proto::Envelope) -> Result<Self, Fault> {
        let length = envelope.migration.len();
        let bytes = <[u8; 16]>::try_from(envelope.migration)
            .map_err(|_| Fault::Invalid { field: "migration", reason: Wrong::Length(length) })?;
        Ok(Self {
            id: Id::from_bytes(bytes).ok_or_else(|| absent("migration"))?,
            message: Message::parse(envelope.body.ok_or_else(|| absent("body"))?)?,
        })
    }
}

impl Message {
    fn to_proto(&self) -> Body {
        let empty = proto::Empty::new;
        match self {
            Self::Hello(hello) => Body::Hello(hello.to_proto()),
            Self::Ping(nonce) => Body::Ping(ping(*nonce)),
            Self::Pong(nonce) => Body::Pong(ping(*nonce)),
            Self::Log(line) => Body::Log(line.to_proto()),
            Self::Progress(progress) => Body::Progress(progress.to_proto()),
            Self::Failure(failure) => Body::Failure(failure.to_proto()),
            Self::Offer(offer) => Body::Offer(offer.to_proto()),
            Self::Ready(ready) => Body::Ready(ready.to_proto()),
            Self::Refused(refused) => Body::Refused(refused.to_proto()),
            Self::Go { objects } => {
                let mut go = proto::Go::new();
                go.objects = *objects;
                Body::Go(go)
            }
            Self::Prepared(prepared) => Body::Prepared(prepared.to_proto()),
            Self::Commit => Body::Commit(empty()),
            Self::Running => Body::Running(empty()),
            Self::Abort(reason) => Body::Abort(reason.to_proto()),
            Self::Aborted(reason) => Body::Aborted(reason.to_proto()),
            Self::Returned(reason) => Body::Returned(reason.to_proto()),
            Self::Lost => Body::Lost(empty()),
            Self::Unknown => Body::Unknown(empty()),
            Self::Ask => Body::Ask(empty()),
            Self::Forget => Body::Forget(empty()),
            Self::Object(object) => Body::Object(object.to_proto()),
            Self::ObjectEnd(end) => Body::ObjectEnd(end.to_proto()),
            Self::ObjectReceived(end) => Body::ObjectReceived(end.to_proto()),
        }
    }

    fn parse(body: Body) -> Result<Self, Fault> {
        Ok(match body {
            Body::Hello(hello) => Self::Hello(Hello::parse(hello)?),
            Body::Ping(ping) => Self::Ping(ping.nonce),
            Body::Pong(ping) => Self::Pong(ping.nonce),
            Body::Log(line) => Self::Log(LogLine::parse(line)?),
            Body::Progress(progress) => Self::Progress(Progress::parse(&progress)?),
            Body::Failure(failure) => Self::Failure(Failure::parse(failure)?),
            Body::Offer(offer) => Self::Offer(Box::new(Offer::parse(offer)?)),
            Body::Ready(ready) => Self::Ready(Ready::parse(ready)?),
            Body::Refused(refused) => Self::Refused(Refused::parse(refused)?),
            Body::Go(go) => Self::Go { objects: go.objects },
            Body::Prepared(prepared) => Self::Prepared(Prepared::parse(&prepared)?),
            Body::Commit(_) => Self::Commit,
            Body::Running(_) => Self::Running,
            Body::Abort(reason) => Self::Abort(Reason::parse(reason)?),
            Body::Aborted(reason) => Self::Aborted(Reason::parse(reason)?),
            Body::Returned(reason) => Self::Returned(Reason::parse(reason)?),
            Body::Lost(_) => Self::Lost,
            Body::Unknown(_) => Self::Unknown,
            Body::Ask(_) => Self::Ask,
            Body::Forget(_) => Self::Forget,
            Body::Object(object) => Self::Object(Object::parse(object)?),
            Body::ObjectEnd(end) => Self::ObjectEnd(ObjectEnd::parse(end)?),
            Body::ObjectReceived(end) => Self::ObjectReceived(ObjectEnd::parse(end)?),
        })
    }
}

fn ping(nonce: u64) -> proto::Ping {
    let mut ping = proto::Ping::new();
    ping.nonce = nonce;
    ping
}

impl Hello {
    fn to_proto(&self) -> proto::Hello {
        let Self { crr, host, boot_id, abilities } = self;
        let mut hello = proto::Hello::new();
        hello.crr.clone_from(crr);
        hello.host.clone_from(host);
        hello.boot_id.clone_from(boot_id);
        hello.abilities.clone_from(abilities);
        hello
    }

    fn parse(hello: proto::Hello) -> Result<Self, Fault> {
        Ok(Self {
            crr: given("version of crr", hello.crr)?,
            host: name("name of a host", hello.host)?,
            boot_id: given("boot id", hello.boot_id)?,
            abilities: list("list of abilities", LIST_LIMIT, hello.abilities, |one| given("ability", one))?,
        })
    }
}

impl LogLine {
    fn to_proto(&self) -> proto::LogLine {
        let Self { level, line } = self;
        let mut log = proto::LogLine::new();
        log.level = level.to_proto();
        log.line = line.as_raw().into();
        log
    }

    fn parse(log: proto::LogLine) -> Result<Self, Fault> {
        Ok(Self { level: Level::parse(log.level)?, line: Text::parse("line", log.line)? })
    }
}

impl Progress {
    fn to_proto(self) -> proto::Progress {
        let Self { phase, done_bytes, total_bytes } = self;
        let mut progress = proto::Progress::new();
        progress.phase = phase.to_proto();
        progress.done_bytes = done_bytes;
        progress.total_bytes = total_bytes;
        progress
    }

    fn parse(progress: &proto::Progress) -> Result<Self, Fault> {
        let phase = Phase::parse(progress.phase)?;
        Ok(Self { phase, done_bytes: progress.done_bytes, total_bytes: progress.total_bytes })
    }
}

impl Prepared {
    fn to_proto(self) -> proto::Prepared {
        let Self { root, tasks, restore_us } = self;
        let mut prepared = proto::Prepared::new();
        (prepared.root, prepared.tasks, prepared.restore_us) = (root, tasks, restore_us);
        prepared
    }

    fn parse(prepared: &proto::Prepared) -> Result<Self, Fault> {
        if prepared.root <= 0 || prepared.tasks == 0 {
            return Err(absent("restored tree"));
        }
        Ok(Self { root: prepared.root, tasks: prepared.tasks, restore_us: prepared.restore_us })
    }
}
