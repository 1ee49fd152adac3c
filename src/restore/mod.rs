//! A restore from its first check to the running tree.
//!
//! [`begin`] looks at everything that can be looked at without touching anything, and starts CRIU meanwhile. What stands
//! against the restore is one error that names all of it. Then the caller answers the events; the tree is complete and has
//! not run at [`EventKind::PreResume`](crate::event::EventKind::PreResume).
//!
//! ```no_run
//! use crr::event::EventKind;
//! use crr::restore::{self, Request};
//!
//! # async fn restore() -> crr::Result<()> {
//! let mut restoring = restore::begin(Request::new("/var/lib/checkpoints/web")).await?;
//! while let Some(event) = restoring.next().await? {
//!     if *event.kind() == EventKind::PreResume {
//!         println!("the tree is there, and runs as soon as this event is answered");
//!     }
//!     event.proceed().await?;
//! }
//! println!("restored as PID {}", restoring.finish().await?.pid);
//! # Ok(()) }
//! ```
//!
//! A restore whose images are not there yet is begun in two parts: [`prepare`] has all ready that does not depend on them, CRIU
//! included, and [`Prepared::begin`] goes on when they are. [`Arrival`] waits for them, as `crr restore --wait` does, and
//! [`Original::AwaitEnd`] for the end of what was dumped.
//!
//! A restore that is given up, by [`Restoring::cancel`] or by dropping it before the tree runs, leaves nothing: what CRIU has
//! made is killed, also where CRIU itself was killed and would have left tasks that hang for ever.

mod arrival;
mod attendant;
mod begin;
mod checks;
mod container;
mod copy;
mod departure;
mod foresee;
mod home;
mod judge;
mod network;
mod options;
mod prepared;
mod problem;
mod remains;
mod request;
mod restoring;
mod settling;
mod silence;
mod subject;
mod undo;
mod unlock;
mod work;
mod worker;

pub use arrival::Arrival;
pub(crate) use attendant::{Attendant, Shared, Surroundings};
pub use begin::begin;
pub use container::ContainerProblem;
pub use copy::CopyProblem;
pub use foresee::{Foreseen, Place};
pub use home::Home;
pub use prepared::{Prepared, prepare};
pub use problem::{Problem, Remarks, Shortage};
pub use request::{Files, Original, Request, Verify};
pub use restoring::{Finished, Restoring, releases};
pub use undo::Cancelled;
pub use unlock::{Unlocked, unlock};
pub(crate) use worker::Worker;
