//! Containers as runc and crun write them down: bundles, state files, descriptors. Formats only: nothing here looks at /proc
//! or a cgroup, or needs root.
//!
//! | file | where | read by | written by |
//! |---|---|---|---|
//! | `config.json` | a bundle; crun's state directory | [`Bundle`], [`Spec`] | - |
//! | `state.json` | `/run/runc/ID` | [`State`] | [`State::restored`], [`State::build`] |
//! | `status` | `/run/crun/ID` | [`Status`] | [`Status::restored`] |
//! | `descriptors.json` | beside CRIU's images | [`Descriptors`] | [`Descriptors::write`] |
//!
//! [`Container::find`] says which runtime a container belongs to; [`Container::configuration`] is the same for both. Fields
//! that crr does not know are kept as they were, so that a state file survives a passage through a checkpoint.
//!
//! Every file is read up to [`FILE_LIMIT`] bytes, and whatever it holds, the answer is a value or an error with a cure.

mod build;
mod bundle;
mod configuration;
mod container;
mod descriptors;
mod device;
mod file;
mod hook;
mod id;
mod live;
mod mount;
mod namespace;
mod phase;
mod problem;
mod seccomp;
mod spec;
mod state;
mod status;
mod timestamp;

pub use bundle::Bundle;
pub use configuration::{Configuration, IdMapping};
pub use container::{Container, Listed, Record, Runtime, list};
pub use descriptors::Descriptors;
pub use file::FILE_LIMIT;
pub use hook::{Hook, Hooks};
pub use id::Id;
pub use live::{Init, Live};
pub use mount::{Mount, MountKind};
pub use namespace::{Namespace, NamespaceKind};
pub use phase::{Facts, Phase};
pub use problem::Problem;
pub use spec::Spec;
pub use state::State;
pub use status::Status;

#[cfg(test)]
mod tests;
