//! What one has dumped, another restores: crr and the runtimes, of one kind and across.

use std::path::Path;

use libtest_mimic::Trial;

use crate::need::Need::{self, Busybox, Cgroup2, Cgroups, Criu, Netns, Root};
use crate::{Outcome, ensure, test};

use super::bed::Bed;
use super::output::Output;
use super::round_trip::{By, dump, restore};
use super::runtime::Runtime::{self, Crun121, Crun128, Runc11, Runc13};
use super::snapshot::Snapshot;
use super::unified::{CRUN_ROOT, unified};

use By::Crr;
use By::Runtime as Itself;

const NEEDS: &[Need] = &[
    Root,
    Criu,
    Netns,
    Busybox,
    Cgroups,
    Cgroup2,
    Need::Runtime(Runc11),
    Need::Runtime(Runc13),
    Need::Runtime(Crun121),
    Need::Runtime(Crun128),
];

/// A runtime, and who does the work.
type End = (Runtime, By);

/// Whose container is dumped and by whom, and whose it is after the restore and by whom. A runc and a crun cannot read each
/// other's: crr stands between them. What crr restores is runc's afterwards.
const TABLE: &[(End, End)] = &[
    ((Runc11, Crr), (Runc11, Crr)),
    ((Runc11, Crr), (Runc11, Itself)),
    ((Runc11, Crr), (Runc13, Itself)),
    ((Runc11, Itself), (Runc11, Crr)),
    ((Runc11, Itself), (Runc13, Crr)),
    ((Runc13, Crr), (Runc13, Crr)),
    ((Runc13, Crr), (Runc13, Itself)),
    ((Runc13, Itself), (Runc13, Crr)),
    ((Crun121, Crr), (Crun121, Itself)),
    ((Crun121, Itself), (Runc13, Crr)),
    ((Crun121, Crr), (Runc13, Crr)),
    ((Crun128, Crr), (Runc13, Crr)),
    ((Crun128, Crr), (Crun128, Itself)),
    ((Crun128, Itself), (Runc13, Crr)),
];

pub(crate) fn trials() -> Vec<Trial> {
    let rows = TABLE.iter().map(|(from, to)| {
        let who = |(runtime, by): End| match by {
            Crr => format!("crr_for_{}", runtime.name()),
            Itself => runtime.name().to_owned(),
        };
        test(format!("container_interop::{}_to_{}", who(*from), who(*to)), NEEDS, || {
            if from.0.is_crun() || to.0.is_crun() { unified(|| crosses(*from, *to)) } else { crosses(*from, *to) }
        })
    });
    rows.collect()
}

/// Where a runtime's containers are, if not below the bed: see [`super::runtimes`].
fn root(runtime: Runtime) -> Option<&'static Path> {
    (runtime == Crun128).then_some(Path::new(CRUN_ROOT))
}

fn crosses((from, dumper): End, (to, restorer): End) -> Outcome {
    let source = Bed::with_root(from, root(from))?;
    // Under the same name: a crun that leaves cgroups alone restores nothing into another one.
    let target = source.beside(to, root(to))?;
    let outside = Snapshot::take(source.tag());
    let output = Output::new()?;
    let bundle = source.bundle("bundle")?;
    let container = source.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    let images = source.path("images");
    dump(dumper, &source, &container, &images)?;
    ensure!(!container.exists(), "{} knows it after the dump", from.name());
    let restored = restore(restorer, &target, "one", &bundle, &images, &[], &output)?;
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    restored.obeys_its_runtime(&output)?;
    ensure!(source.mounts().is_empty(), "mounts are left: {:?}", source.mounts());
    outside.must_be_unchanged()
}
