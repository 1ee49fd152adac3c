//! Whether this host is ready: a verdict for each purpose, from what [`host`](crate::host) and [`criu`](crate::criu) tell.
//!
//! ```no_run
//! # async fn check() -> crr::Result<()> {
//! use crr::criu::Search;
//! use crr::readiness::{Purpose, Readiness};
//!
//! let search = Search::new(None, std::env::var_os("PATH").as_deref());
//! let readiness = Readiness::look(&search).await?;
//! for problem in &readiness.of(Purpose::PreCopy).problems {
//!     println!("{}: {}", problem.what, problem.cure.as_deref().unwrap_or("no cure"));
//! }
//! # Ok(()) }
//! ```

mod facts;
mod purpose;

use serde::Serialize;

pub use facts::{Facts, ForeignLock, Note};
pub use purpose::{Fault, Problem, Purpose, PurposeVerdict};

use crate::criu::Search;
use crate::error::Result;

/// What was found out about this host, and what follows for each purpose.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// What was found out.
    #[serde(flatten)]
    pub facts: Facts,
    /// The verdicts, one for each [`Purpose`].
    pub purposes: Vec<PurposeVerdict>,
    /// What could be better, but keeps nothing from working.
    pub notes: Vec<Note>,
}

impl Readiness {
    /// Looks at the host. Changes nothing, but for what CRIU keeps of its own look in /run.
    ///
    /// Takes about a second, since the criu program is run for each feature.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::System`](crate::Error::System) if /proc or the capabilities cannot be read.
    /// What keeps dumps from working is no error.
    pub async fn look(search: &Search) -> Result<Self> {
        let facts = Facts::gather(search).await?;
        let purposes = Purpose::ALL.iter().map(|&purpose| purpose.judge(&facts)).collect();
        let notes = facts.notes();
        Ok(Self { facts, purposes, notes })
    }

    /// The verdict for `purpose`.
    pub fn of(&self, purpose: Purpose) -> PurposeVerdict {
        purpose.judge(&self.facts)
    }
}
