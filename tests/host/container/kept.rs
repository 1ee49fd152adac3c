//! Each situation through a dump and a restore, by crr on both ends and on one.

use libtest_mimic::Trial;

use crate::need::Need::{self, Busybox, Cgroup2, Cgroups, Criu, Netns, Root};
use crate::{Outcome, test};

use super::round_trip::{By, keeps};
use super::runtime::Runtime::{self, Runc11, Runc13};
use super::situation;
use super::unified::{unified, v1};

use By::{Crr, Runtime as Itself};

const HYBRID: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];
const UNIFIED: &[Need] = &[Root, Criu, Netns, Busybox, Cgroup2, Need::Runtime(Runc13)];

/// What depends on the layout of cgroups.
const OF_CGROUPS: [&str; 4] = ["limits", "cgroup_path", "masked_paths", "devices"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for situation in situation::ALL {
        let mut add =
            |name: &str, needs, runtime: Runtime, by, within: fn(Box<dyn FnOnce() -> Outcome + Send>) -> Outcome| {
                let run = move || within(Box::new(move || keeps(*situation, runtime, by)));
                trials.push(test(format!("{name}::{}", situation.name), needs, run));
            };
        add("runc_alone", HYBRID, Runc11, [Itself, Itself], |run| run());
        add("crr_keeps", HYBRID, Runc11, [Crr, Crr], |run| run());
        add("runc_then_crr_keeps", HYBRID, Runc11, [Itself, Crr], |run| run());
        if OF_CGROUPS.contains(&situation.name) {
            add("crr_keeps_in_v1", HYBRID, Runc11, [Crr, Crr], v1);
            add("crr_keeps_in_unified", UNIFIED, Runc13, [Crr, Crr], unified);
        }
    }
    trials
}
