//! What a peer may bring: `serve.toml`.
//!
//! **A peer that may migrate processes here is root here**, unless its section restricts it. Images are a request to root: run
//! this code, as this user, with these files open. By default nobody may bring anything. A section with `unrestricted = true`
//! makes the peer root. Every other section restricts, and what it does not allow is refused.
//!
//! # What restricting means
//! [`judge`] looks at the decoded images before CRIU is started. What it lets pass has the power of a login on this host with
//! the user ids, groups and capabilities of the section, and beyond that the open files, mappings and sockets that it lists. It
//! may not have more: a file of unknown name, a record with an unknown field and every kind of image that is not judged are
//! refused.
//!
//! # What it cannot promise
//! - CRIU reads the images as root. A fault in its reader is beyond any policy: restrict peers that you trust to be honest but
//!   not to be careful, and let strangers in nowhere.
//! - The path of a file is looked up beneath the allowed directory, without symbolic links, when it is judged. CRIU opens it a
//!   moment later and follows what is there then. Whoever may rename within an allowed directory can exchange a file in
//!   between: list directories that only root and the user in question may write. The same holds for hard links where
//!   `fs.protected_hardlinks` is off.
//! - Memory is not looked at. What a program does within its rights is its own affair.
//! - A program that is allowed to run may run others: without `no-new-privileges` it may call this host's setuid programs,
//!   as every login may.

mod document;
mod judge;
mod kinds;
mod path;
mod restrictions;
mod rules;
mod scene;
#[cfg(test)]
mod tests;
mod values;
mod violation;

pub use self::document::{Policies, Policy};
pub use self::judge::judge;
pub use self::restrictions::{Limits, Restrictions};
pub use self::violation::{Line, Section, Violation};
