//! `cgroup.img`: which cgroups tasks were in.

use std::ffi::OsString;
use std::path::PathBuf;

use super::name;
use super::record::Record;
use crate::proto::images::cgroup as proto;

/// The cgroups of one or more tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupSet {
    /// What [`TaskCore::cgroup_set`](super::TaskCore::cgroup_set) names.
    pub id: u32,
    /// One for each hierarchy.
    pub cgroups: Vec<Cgroup>,
}

/// A cgroup of one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cgroup {
    /// The controllers of the hierarchy, `name=...` for one without, empty for cgroup v2.
    pub controllers: OsString,
    /// Its path in the hierarchy, as /proc/PID/cgroup has it.
    pub path: PathBuf,
}

/// All sets: the image has one record.
pub(super) struct Cgroups(pub(super) Vec<CgroupSet>);

impl Record for Cgroups {
    type Message = proto::Cgroup_entry;

    fn from_message(message: Self::Message) -> Result<Self, String> {
        let cgroup =
            |member: proto::Cg_member_entry| Cgroup { controllers: name(member.name), path: name(member.path).into() };
        let set =
            |set: proto::Cg_set_entry| CgroupSet { id: set.id(), cgroups: set.ctls.into_iter().map(cgroup).collect() };
        Ok(Self(message.sets.into_iter().map(set).collect()))
    }
}
