//! Which CRIU: finding one that suits this kernel, and what it can do.
//!
//! A CRIU *suits* when it really dumps and restores here. That is tried by [`self_test()`] only, which its caller runs on
//! demand; everything else goes by the verdict kept of it, and without one by the rule of [`Suitability::judge`].

mod features;
mod kept;
mod programs;
mod search;
mod self_test;
mod suitability;

pub use features::{Feature, FeatureState, features};
pub use kept::{Identity, Kept, KeptFacts};
pub use programs::programs;
pub use search::{Candidate, Chosen, Origin, PREFIX_BINARY, Search};
pub use self_test::{HELPER_ARGUMENT, helper, self_test};
pub use suitability::{InetSockets, Suitability, Verdict, VerdictStep};
