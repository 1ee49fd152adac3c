//! Process memory on its way to another host: CRIU's page server in two halves.
//!
//! CRIU writes memory to a socket that it inherits, in the protocol of its page server. A [`Relay`] is at the other end of that
//! socket and passes everything over a [`Link`] to a [`Store`], which writes `pagemap-*.img` and `pages-N.img` as CRIU's own
//! page server would have, byte for byte:
//!
//! ```text
//!   CRIU ──unix socket──> Relay ══════════════ link ═══════════════> Store ──> pages-N.img
//!     <── stored (0) ──────── <────────────── Stored ───────────────────
//! ```
//!
//! Where the link carries bytes as they are ([`Plain`]: sockets, pipes) pages are spliced from socket to socket to file, and
//! copied once, at the end. Elsewhere ([`Sealed`]: TLS) they are copied through memory in blocks of 256 KiB, and pages of zeros only told.
//! The files can be touched beforehand ([`Store::touch`]), which takes half of the time off: what a dump waits for is mostly
//! the kernel finding memory for them. Neither end holds more than a few blocks, whatever the size of the tree.
//!
//! All of it blocks: both ends run in a thread of their own, and a link is used by nothing else meanwhile. Afterwards it can be
//! used on, also where one of the ends failed. What two ends say to each other is in `record.rs`; there is no other version
//! of it yet than 1.
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//!
//! use crr::images::PagemapOf;
//! use crr::operation::Session;
//! use crr::pages::{Expected, Plain, Relay, Store};
//! use crr::request::{DumpOptions, ImageDirectory, PagesTo};
//! use crr::swrk::Launch;
//!
//! /// On the source.
//! async fn dump(pid: i32, images: std::os::fd::OwnedFd, link: UnixStream) -> crr::Result<()> {
//!     let (relay, socket) = Relay::pair()?;
//!     let session = Session::start_inheriting(&Launch::new("criu"), &[socket.as_fd()])?;
//!     let (link, stop) = (Plain::socket(link)?, relay.stop());
//!     let relaying = std::thread::spawn(move || relay.run(link));
//!     let mut options = DumpOptions::new(pid);
//!     options.pages_to = Some(PagesTo::Socket(socket));
//!     let mut dump = session.dump(ImageDirectory::new(images), options).await?;
//!     while let Some(event) = dump.next().await? {
//!         // At `post-dump` the store has everything.
//!         event.proceed().await?;
//!     }
//!     let dumped = dump.finish().await;
//!     stop.stop();
//!     let Ok((_link, sent)) = relaying.join() else { return Ok(()) };
//!     // Where both failed, the relay knows why.
//!     println!("{} pages", sent?.pages);
//!     dumped.map(drop)
//! }
//!
//! /// On the target.
//! fn store(pid: u32, anonymous_bytes: u64, link: UnixStream) -> crr::Result<()> {
//!     let mut store = Store::new("/dev/shm/images")?;
//!     store.touch(&[Expected { of: Some(PagemapOf::Task(pid)), bytes: anonymous_bytes }])?;
//!     let (_link, stored) = store.run(Plain::socket(link)?);
//!     println!("{} pages", stored?.pages);
//!     Ok(())
//! }
//! ```

mod answer;
mod block;
mod fuzzed;
mod link;
mod pipe;
mod problem;
mod protocol;
mod record;
mod relay;
mod run;
mod sealed;
mod stop;
mod store;
#[cfg(test)]
mod tests;
mod transfer;

pub(crate) use self::fuzzed::fuzz;
pub use self::link::{Link, Plain};
pub use self::problem::Problem;
pub use self::relay::{Relay, Sent};
pub use self::sealed::Sealed;
pub use self::stop::{Patience, Stop};
pub use self::store::{Expected, Store, Stored};
