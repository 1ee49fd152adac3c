//! Containers of runc and crun. A test makes a [`bed::Bed`] for one runtime, a bundle in it, and runs it:
//!
//! ```ignore
//! let bed = Bed::new(Runtime::Runc11)?;
//! let output = Output::new()?;
//! let bundle = bed.bundle("bundle")?; // counts, ten numbers a second
//! let container = bed.run_on("counter", &bundle, &output)?;
//! output.await_numbers(3)?;
//! // crr dump --container container.id() --runtime-root bed.root() --dir bed.path("images"), then with `output.run`:
//! // crr restore --container bed.id("again") …
//! bed.container("again").obeys_its_runtime(&output)?;
//! ```
//!
//! Whatever is left of the containers goes when the bed is dropped.

mod bed;
mod bundle;
mod console;
mod driver;
mod dumped;
mod network;
mod output;
mod runtime;
mod situation;
mod snapshot;
mod unified;

mod bad_input;
mod both_killed;
mod cgroup_modes;
mod clones;
mod connections;
mod dump_events;
mod dumps;
mod foreground;
mod hooks;
mod interop;
mod kept;
mod locks;
mod namespaces;
mod podman;
mod restored_networks;
mod restores;
mod round_trip;
mod runtimes;
mod several;
mod tmpfs;
mod waiting;
mod wild;
mod written_states;

use libtest_mimic::Trial;

pub(crate) use bed::MARK;
pub(crate) use bundle::no_busybox;
pub(crate) use driver::as_helper;
pub(crate) use runtime::Runtime;
pub(crate) use unified::unmet as no_cgroup2;

pub(crate) fn trials() -> Vec<Trial> {
    snapshot::first();
    let mut trials = runtimes::trials();
    trials.extend(bad_input::trials());
    trials.extend(both_killed::trials());
    trials.extend(cgroup_modes::trials());
    trials.extend(clones::trials());
    trials.extend(connections::trials());
    trials.extend(dumps::trials());
    trials.extend(dump_events::trials());
    trials.extend(foreground::trials());
    trials.extend(hooks::trials());
    trials.extend(namespaces::trials());
    trials.extend(podman::trials());
    trials.extend(restored_networks::trials());
    trials.extend(restores::trials());
    trials.extend(several::trials());
    trials.extend(interop::trials());
    trials.extend(kept::trials());
    trials.extend(locks::trials());
    trials.extend(tmpfs::trials());
    trials.extend(waiting::trials());
    trials.extend(wild::trials());
    trials.extend(written_states::trials());
    trials
}
