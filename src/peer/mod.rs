//! Who may migrate processes here, and what.
//!
//! **A peer that may migrate processes here is root here** unless the policy restricts it: images say what runs,
//! as whom and with which files open.
//!
//! Each host has one [key](HostKey), made on it at first use and never leaving it. A peer is *enrolled* by the
//! [fingerprint](Fingerprint) of its public key, which a person carries from one host to the other as with ssh:
//!
//! ```text
//! a# crr peer key                             b# crr peer key
//! SHA256:AAAA…                                SHA256:BBBB…
//! a# crr peer add b SHA256:BBBB…              b# crr peer add a SHA256:AAAA…
//! ```
//!
//! All of it is below one [directory](Configuration), /etc/crr unless the caller names another:
//!
//! | file | what it is |
//! |---|---|
//! | `key.pem` | the private key, PKCS #8, mode 0600 |
//! | `peers/NAME.toml` | one enrolled peer: `fingerprint`, and `address` where it is known |
//! | `serve.toml` | the policy |
//!
//! Only root, or whoever crr runs as, may own or write any of these or a directory above them: else they are refused.
//! Every look-up reads the files anew, so that a removal takes effect with the next question asked.

mod configuration;
mod enrolled;
mod fingerprint;
mod key;
mod name;
pub mod policy;
mod problem;
pub mod tls;

pub use self::configuration::Configuration;
pub use self::enrolled::{Enrolled, Listing, Peer};
pub use self::fingerprint::Fingerprint;
pub use self::key::HostKey;
pub use self::name::{Address, Name};
pub use self::problem::Problem;
