//! Against files that real runtimes wrote: runc 1.1.5 and 1.3.6, each for two bundles, and crun 1.21 and 1.28.

mod build;
mod damage;
mod find;
mod read;

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// What a runc wrote for a bundle.
struct Sample {
    what: &'static str,
    config: &'static str,
    state: &'static str,
    /// Its runc knows of time namespaces.
    time_namespace: bool,
}

const PLAIN: &str = include_str!("fixtures/plain.config.json");
const RICH: &str = include_str!("fixtures/rich.config.json");

const SAMPLES: [Sample; 4] = [
    Sample {
        what: "runc 1.1.5, plain",
        config: PLAIN,
        state: include_str!("fixtures/runc-1.1.5-plain.state.json"),
        time_namespace: false,
    },
    Sample {
        what: "runc 1.1.5, rich",
        config: RICH,
        state: include_str!("fixtures/runc-1.1.5-rich.state.json"),
        time_namespace: false,
    },
    Sample {
        what: "runc 1.3.6, plain",
        config: PLAIN,
        state: include_str!("fixtures/runc-1.3.6-plain.state.json"),
        time_namespace: true,
    },
    Sample {
        what: "runc 1.3.6, rich",
        config: RICH,
        state: include_str!("fixtures/runc-1.3.6-rich.state.json"),
        time_namespace: true,
    },
];

const CRUN: [(&str, &str); 2] = [
    ("crun 1.21", include_str!("fixtures/crun-1.21.status")),
    ("crun 1.28", include_str!("fixtures/crun-1.28.status")),
];

fn spec(config: &str) -> Spec {
    Spec::parse(config.into(), Path::new("config.json")).expect("a good config.json")
}

fn state(sample: &Sample) -> State {
    State::parse(sample.state.as_bytes(), Path::new("state.json")).expect(sample.what)
}

fn status(text: &str) -> Status {
    Status::parse(text.as_bytes(), Path::new("status")).expect("a good status")
}

/// Another life, of which every value differs from those in the files.
fn live() -> Live {
    Live {
        id: "again".parse().expect("an id"),
        init: Init { pid: 4242, start: 77 },
        created: UNIX_EPOCH + Duration::from_millis(1_500),
        bundle: PathBuf::from("/srv/copy"),
        rootfs: PathBuf::from("/srv/copy/rootfs"),
        cgroup_paths: [("freezer".to_owned(), PathBuf::from("/sys/fs/cgroup/freezer/again"))].into(),
        cgroup: PathBuf::from("/again"),
        time_namespace: true,
        descriptors: Descriptors(["/dev/null".into(), "pipe:[1]".into(), "pipe:[2]".into()]),
    }
}
