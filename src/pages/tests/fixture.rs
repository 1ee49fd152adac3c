//! A CRIU, links, and what came of a transfer.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;

use crate::images::{Images, PageRange, PagemapOf, Place};
use crate::pages::protocol::{Width, header};
use crate::pages::run::{number_of, page_size};
use crate::pages::{Link, Patience, Plain, Relay, Sealed, Sent, Store, Stored};
use crate::{Error, Result};

pub(super) const OPEN2: u16 = 4;
pub(super) const PARENT: u16 = 5;
pub(super) const ADD: u16 = 6;
pub(super) const CLOSE: u16 = 0x1024;

pub(super) const QUICK: Patience = Patience { silence: Duration::from_millis(400), idle: Duration::from_millis(50) };

/// A CRIU that dumps.
pub(super) struct Criu {
    pub(super) socket: UnixStream,
    width: Width,
    of: PagemapOf,
}

impl Criu {
    pub(super) fn pair(width: Width) -> (Relay, Self) {
        let (relay, socket) = Relay::pair().unwrap();
        (relay, Self { socket: socket.into(), width, of: PagemapOf::Task(0) })
    }

    pub(super) fn say(&mut self, command: u16, flags: u32, pages: u64, address: u64) -> std::io::Result<()> {
        let number = if command == CLOSE { 0 } else { number_of(self.of) };
        self.socket.write_all(&header(self.width, command, flags, pages, address, number))
    }

    pub(super) fn open(&mut self, of: PagemapOf) -> std::io::Result<()> {
        self.of = of;
        self.say(OPEN2, 0, 0, 0)?;
        let mut has_parent = [9];
        self.socket.read_exact(&mut has_parent)?;
        assert_eq!(has_parent, [0]);
        Ok(())
    }

    pub(super) fn add(&mut self, address: u64, content: &[u8]) -> std::io::Result<()> {
        self.say(ADD, 4, content.len() as u64 / page_size(), address)?;
        self.socket.write_all(content)
    }

    /// What the page server says to a close or to the question for a parent.
    pub(super) fn status(&mut self) -> std::io::Result<i32> {
        let mut status = [0; 4];
        self.socket.read_exact(&mut status)?;
        Ok(i32::from_ne_bytes(status))
    }

    pub(super) fn close(&mut self) -> std::io::Result<i32> {
        self.say(CLOSE, 0, 0, 0)?;
        self.status()
    }
}

/// Pages of different bytes, but for those named, which are zeros.
pub(super) fn content(pages: usize, seed: u8, zeros: &[usize]) -> Vec<u8> {
    let page = page_size() as usize;
    let mut content: Vec<u8> = (0..pages * page).map(|at| (at / 7) as u8 ^ seed ^ (at / page) as u8 | 1).collect();
    for at in zeros {
        content[at * page..][..page].fill(0);
    }
    content
}

/// Both ends of a link.
pub(super) type Ends = (Box<dyn Link>, Box<dyn Link>);

/// One of every kind.
pub(super) fn links() -> Vec<(&'static str, Ends)> {
    vec![("unix", unix()), ("pipes", pipes()), ("tcp", tcp()), ("tls", tls())]
}

pub(super) fn unix() -> Ends {
    let (near, far) = UnixStream::pair().unwrap();
    (Box::new(Plain::socket(near).unwrap()), Box::new(Plain::socket(far).unwrap()))
}

fn pipes() -> Ends {
    let ((near_in, far_out), (far_in, near_out)) = (nix::unistd::pipe().unwrap(), nix::unistd::pipe().unwrap());
    let near = Plain::pipes(near_in, near_out).unwrap();
    (Box::new(near), Box::new(Plain::pipes(far_in, far_out).unwrap()))
}

fn tcp_pair() -> (OwnedFd, OwnedFd) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near.into(), listener.accept().unwrap().0.into())
}

fn tcp() -> Ends {
    let (near, far) = tcp_pair();
    (Box::new(Plain::socket(near).unwrap()), Box::new(Plain::socket(far).unwrap()))
}

fn tls() -> Ends {
    let made = rcgen::generate_simple_self_signed(["far".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let server =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let near = rustls::ClientConnection::new(Arc::new(client), "far".try_into().unwrap()).unwrap();
    let far = rustls::ServerConnection::new(Arc::new(server)).unwrap();
    let sockets = tcp_pair();
    let far = thread::spawn(move || shaken(far.into(), sockets.1));
    (Box::new(shaken(near.into(), sockets.0)), Box::new(far.join().unwrap()))
}

/// A link whose handshake is over.
fn shaken(mut connection: rustls::Connection, socket: OwnedFd) -> Sealed {
    let mut stream = std::net::TcpStream::from(socket);
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    Sealed::new(connection, stream).unwrap()
}

/// What came of a transfer, and both ends of its link.
pub(super) struct Outcome<C> {
    pub(super) criu: C,
    pub(super) sent: Result<Sent>,
    pub(super) stored: Result<Stored>,
    pub(super) ends: Ends,
}

/// Runs a relay and a store, with a CRIU in a thread of its own.
pub(super) fn transfer<C: Send>(
    (relay, mut criu): (Relay, Criu),
    store: Store,
    (near, far): Ends,
    says: impl FnOnce(&mut Criu) -> C + Send,
) -> Outcome<C> {
    thread::scope(|scope| {
        let criu = scope.spawn(move || says(&mut criu));
        let source = scope.spawn(move || relay.run(near));
        let (far, stored) = store.run(far);
        let (near, sent) = source.join().unwrap();
        Outcome { criu: criu.join().unwrap(), sent, stored, ends: (near, far) }
    })
}

pub(super) fn place() -> TempDir {
    tempfile::Builder::new().prefix("crr-pages.").tempdir().unwrap()
}

/// The ranges of a pagemap, and all its pages.
pub(super) fn read(directory: &Path, of: PagemapOf) -> (Vec<(u64, u64, Place)>, Vec<u8>) {
    let map = Images::open(directory).unwrap().pagemap(of).unwrap();
    let content = std::fs::read(directory.join(format!("pages-{}.img", map.pages_id()))).unwrap();
    let ranges = map.map(|range| range.map(|PageRange { address, pages, place, .. }| (address, pages, place)));
    (ranges.collect::<Result<_>>().unwrap(), content)
}

/// The names in a directory.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An error and its causes.
pub(super) fn chain(error: &Error) -> String {
    crate::pages::transfer::chain(error)
}

/// What one end writes arrives at the other, in both directions, and nothing else does.
pub(super) fn is_of_use((near, far): &mut Ends) -> bool {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    // None of a link's operations waits.
    let waits = |error: &std::io::Error| {
        thread::yield_now();
        error.kind() == std::io::ErrorKind::WouldBlock && std::time::Instant::now() < deadline
    };
    let passes = |from: &mut dyn Link, to: &mut dyn Link| {
        let sent = b"and now to something else";
        let mut left = &sent[..];
        while !left.is_empty() {
            match from.write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if waits(&error) => {}
                Err(_) => return false,
            }
        }
        while let Err(error) = from.flush() {
            if !waits(&error) {
                return false;
            }
        }
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let mut part = [0; 40];
            match to.read(&mut part) {
                Ok(0) => return false,
                Ok(count) => got.extend_from_slice(&part[..count]),
                Err(error) if waits(&error) => {}
                Err(_) => return false,
            }
        }
        got == sent
    };
    passes(near.as_mut(), far.as_mut()) && passes(far.as_mut(), near.as_mut())
}
