//! State files that crr has written, in the hands of the runtimes that read them. No CRIU is needed: the container runs on.

use std::fs;
use std::time::SystemTime;

use crr::oci::{Bundle, Container, Descriptors, Id, Init, Live, Record, State, Status};
use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::crr::Running;
use crate::need::Need::{self, Busybox, Cgroup2, Cgroups, Netns, Root};
use crate::{Outcome, ensure, test};

use super::bed::{self, Bed, LIMIT};
use super::output::Output;
use super::runtime::Runtime::{self, Crun121, Crun128, Runc11, Runc13};
use super::unified::unified;

const RUNCS: &[Need] = &[Root, Netns, Busybox, Cgroups, Need::Runtime(Runc11), Need::Runtime(Runc13)];
const CRUN_1_21: &[Need] = &[Root, Netns, Busybox, Cgroup2, Need::Runtime(Crun121)];
const CRUN_1_28: &[Need] = &[Root, Netns, Busybox, Cgroup2, Need::Runtime(Crun128)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("runc_1_1_obeys_with_a_state_built_from_the_bundle_alone", RUNCS, || built(Runc11)),
        test("runc_1_3_obeys_with_a_state_built_from_the_bundle_alone", RUNCS, || built(Runc13)),
        test("each_runc_reads_a_patched_state_of_the_other", RUNCS, || {
            patched(Runc11, Runc13)?;
            patched(Runc13, Runc11)
        }),
        test("crun_1_21_obeys_with_a_status_that_crr_built", CRUN_1_21, || unified(|| crun(Crun121))),
        test("crun_1_28_obeys_with_a_status_that_crr_built", CRUN_1_28, || unified(|| crun(Crun128))),
    ]
}

fn found(bed: &Bed, container: &bed::Container) -> Result<Container, Failed> {
    Ok(Container::find(Some(bed.root()), &container.id().parse::<Id>()?)?)
}

/// The container as it runs, to be told of in another file.
fn live(found: &Container, bundle: &Bundle) -> Live {
    Live {
        id: found.id().clone(),
        init: found.init(),
        created: SystemTime::now(),
        bundle: bundle.path().into(),
        rootfs: bundle.rootfs().into(),
        cgroup_paths: found.cgroup_paths().cloned().unwrap_or_default(),
        cgroup: match found.record() {
            Record::Crun(status, _) => status.cgroup().into(),
            _ => Default::default(),
        },
        time_namespace: true,
        descriptors: found.descriptors().unwrap_or_default(),
    }
}

fn built(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    // `exec` takes the filter from the state: without it, it would open the container.
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO" }]
    });
    bundle.resources("memory", json!({ "limit": 1 << 28 }));
    let container = bed.run_on("counter", &bundle, &output)?;
    output.await_numbers(1)?;
    let opened = Bundle::open(bundle.path())?;
    let found = found(&bed, &container)?;
    let (mut ours, mut its) = (opened.configuration(), found.configuration());
    ours.annotations.sort();
    its.annotations.sort();
    ensure!(ours == its, "the bundle says {ours:#?}, the state {its:#?}");
    let live = live(&found, &opened);
    let start = Init { pid: container.pid()?, ..live.init };
    ensure!(start == live.init, "the state has {:?}, `state` {start:?}", live.init);
    fs::remove_file(found.directory().join(State::NAME))?;
    State::build(&opened, &live)?.write(found.directory())?;
    let seen = container.sh("cat /proc/self/status")?;
    let filter = seen.lines().find(|line| line.starts_with("Seccomp:")).unwrap_or_default();
    ensure!(filter.ends_with('2'), "exec brings no filter: {filter}");
    container.obeys_its_runtime(&output)
}

fn patched(maker: Runtime, reader: Runtime) -> Outcome {
    let bed = Bed::new(maker)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("counter", &bundle, &output)?;
    let found = found(&bed, &container)?;
    let Record::Runc(state) = found.record() else { return Err("no state of runc's".into()) };
    let life = live(&found, &Bundle::open(bundle.path())?);
    state.restored(&life)?.write(found.directory())?;
    for words in [&["state"][..], &["exec"], &["pause"], &["resume"]] {
        let mut command = reader.command();
        command.arg("--root").arg(bed.root()).args(words).arg(container.id());
        if words == ["exec"] {
            command.arg("/bin/true");
        }
        Running::start(&mut command)?.end(LIMIT)?.must_pass(&format!("{} {words:?}", reader.name()))?;
    }
    container.obeys_its_runtime(&output)
}

fn crun(runtime: Runtime) -> Outcome {
    let bed = Bed::new(runtime)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("counter", &bundle, &output)?;
    output.await_numbers(1)?;
    let found = found(&bed, &container)?;
    let life = live(&found, &Bundle::open(bundle.path())?);
    ensure!(life.descriptors != Descriptors::default(), "its status has no descriptors");
    Status::build(&life)?.write(found.directory())?;
    container.obeys_its_runtime(&output)
}
