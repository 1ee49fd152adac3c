//! CRIU's version, and the kernel features that it can be asked about.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::proto::rpc;

/// A version of CRIU, such as 4.2.1. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number, 0 where there is none.
    pub sublevel: u32,
}

impl Version {
    /// `Version::new(4, 2)` is 4.2.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, sublevel: 0 }
    }

    /// A build from git counts as the release that it leads to: CRIU's other clients do the same.
    pub(crate) fn from_proto(version: &rpc::Criu_version) -> Self {
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let mut minor = number(version.minor_number());
        if version.gitid.is_some() {
            minor += 1;
        }
        Self { major: number(version.major_number()), minor, sublevel: number(version.sublevel()) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, sublevel } = self;
        match sublevel {
            0 => write!(f, "{major}.{minor}"),
            _ => write!(f, "{major}.{minor}.{sublevel}"),
        }
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = text.trim().split('.').map(str::parse::<u32>);
        let bad = || format!("`{text}` is not a version such as 4.2.1");
        let mut next = |required: bool| match numbers.next() {
            Some(Ok(number)) => Ok(number),
            None if !required => Ok(0),
            _ => Err(bad()),
        };
        Ok(Self { major: next(true)?, minor: next(true)?, sublevel: next(false)? })
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The three kernel features that the RPC can tell about; the criu program knows more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// Dirty pages can be tracked: pre-dump works.
    pub mem_track: bool,
    /// Post-copy works.
    pub lazy_pages: bool,
    /// PIDs can be told from reused ones by pidfd between iterations.
    pub pidfd_store: bool,
}

impl Features {
    pub(crate) fn from_proto(features: &rpc::Criu_features) -> Self {
        Self { mem_track: features.mem_track(), lazy_pages: features.lazy_pages(), pidfd_store: features.pidfd_store() }
    }

    pub(crate) fn ask_all() -> rpc::Criu_features {
        let mut features = rpc::Criu_features::new();
        features.set_mem_track(true);
        features.set_lazy_pages(true);
        features.set_pidfd_store(true);
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_ordered_and_written() {
        let version = |text: &str| text.parse::<Version>().expect(text);
        assert!(version("3.17.1") < version("3.18"));
        assert!(version("4.2") < version("4.2.1"));
        assert_eq!(version("4.2").to_string(), "4.2");
        assert_eq!(version("4.2.1").to_string(), "4.2.1");
        for bad in ["", "4", "4.x", "four"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_build_from_git_counts_as_the_next_minor() {
        let mut proto = rpc::Criu_version::new();
        proto.set_major_number(4);
        proto.set_minor_number(1);
        assert_eq!(Version::from_proto(&proto), Version::new(4, 1));
        proto.set_gitid("v4.1-22".into());
        assert_eq!(Version::from_proto(&proto), Version::new(4, 2));
    }
}
