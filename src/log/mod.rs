//! CRIU's log: which of its lines says why an operation failed, what that means, and what can be done.
//!
//! ```
//! let log = b"(00.012345) Error (criu/file-lock.c:331): Some file locks are hold by dumping tasks! \
//!     You can try --file-locks to dump them.\n(00.012399) Error (criu/cr-dump.c:2128): Dumping FAILED.\n";
//! let explanation = crr::log::explain(log);
//! let known = explanation.known.expect("in the catalogue");
//! assert_eq!(known.id, "file-locks");
//! println!("{}\n{}", known.cause, known.cure);
//! ```
//!
//! CRIU's reply carries only the *first* error it logged, which often is a harmless one, and ends a log with lines that
//! say no more than that it failed. In between, the error that names the cause is followed by those that it led to. So:
//!
//! 1. Errors known to be harmless are passed over, and so are those that say only that something failed.
//! 2. The earliest line whose text names a cause, by the [catalogue](entries), is the decisive one.
//! 3. Without such a line it is the earliest error. Where that is a known *symptom* the catalogue's reading of it holds;
//!    else it is not known, and nothing is guessed.
//!
//! Everything here is a function of the log's bytes, which are taken for hostile: limits hold, and all text in the
//! results is [escaped](crate::escape).

mod catalogue;
mod explanation;
mod line;
mod pattern;
mod read;

pub use catalogue::{Entry, Rank, entries};
pub use explanation::{Explanation, Known, Outcome};
pub use line::{Level, Line};
pub use read::{LINE_LIMIT, LOG_LIMIT, explain, explain_file, explain_reader, logs_in};
