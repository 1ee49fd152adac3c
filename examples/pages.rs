//! Sends the memory of a process tree to another process by way of CRIU, and says how long the tree stood still: what tools/bench
//! measures the data plane with, and an example of how its two ends are used.
//!
//! ```text
//! pages store LINK DIR [--expect PID:BYTES] [--tls CERTIFICATE]
//! pages dump LINK DIR --pid PID --criu PATH [--tls CERTIFICATE]
//! pages frozen DIR
//! ```
//!
//! LINK is the path of a unix socket, or an address and port of TCP. The store listens there, says `ready` and takes one
//! transfer; with --tls it writes the certificate that the other end then trusts. The tree runs on.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use crr::images::{Images, PagemapOf};
use crr::operation::Session;
use crr::pages::{Expected, Link, Plain, Relay, Sealed, Store};
use crr::request::{Afterwards, DumpOptions, ImageDirectory, PagesTo};
use crr::swrk::Launch;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The name in the certificate.
const NAME: &str = "store";

#[derive(Parser)]
enum Command {
    /// Stores one transfer.
    Store {
        link: String,
        dir: String,
        /// A task whose memory is to be expected, and how much that is.
        #[arg(long)]
        expect: Option<String>,
        #[arg(long)]
        tls: Option<String>,
    },
    /// Dumps a tree.
    Dump {
        link: String,
        dir: String,
        #[arg(long)]
        pid: i32,
        #[arg(long)]
        criu: String,
        #[arg(long)]
        tls: Option<String>,
    },
    /// Says how long the tree stood still in a dump, in microseconds.
    Frozen { dir: String },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Store { link, dir, expect, tls } => {
            let mut store = Store::new(&dir)?;
            if let Some((pid, bytes)) = expect.as_deref().and_then(|expected| expected.split_once(':')) {
                let of = Some(PagemapOf::Task(pid.parse()?));
                store.touch(&[Expected { of, bytes: bytes.parse()? }])?;
            }
            let link = answer(&link, tls.as_deref())?;
            let stored = store.run(link).1?;
            println!("{} pages", stored.pages);
        }
        Command::Dump { link, dir, pid, criu, tls } => {
            let link = call(&link, tls.as_deref())?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(dump(link, &dir, pid, &criu))?;
        }
        Command::Frozen { dir } => println!("{}", Images::open(dir)?.dump_statistics()?.frozen.as_micros()),
    }
    Ok(())
}

async fn dump(link: Box<dyn Link>, dir: &str, pid: i32, criu: &str) -> Result<(), Box<dyn Error>> {
    let (relay, socket) = Relay::pair()?;
    let session = Session::start_inheriting(&Launch::new(criu), &[socket.as_fd()])?;
    let relaying = thread::spawn(move || relay.run(link).1);
    let mut options = DumpOptions::new(pid);
    options.afterwards = Afterwards::KeepRunning;
    options.pages_to = Some(PagesTo::Socket(socket));
    let mut dump = session.dump(ImageDirectory::new(File::open(dir)?.into()), options).await?;
    while let Some(event) = dump.next().await? {
        event.proceed().await?;
    }
    let dumped = dump.finish().await;
    let sent = relaying.join().map_err(|_| "the relay panicked")?;
    println!("{} pages", sent?.pages);
    dumped?;
    Ok(())
}

/// The link of whoever calls.
fn answer(at: &str, tls: Option<&str>) -> Result<Box<dyn Link>, Box<dyn Error>> {
    let Some(certificate) = tls else { return Ok(Box::new(Plain::socket(accept(at)?)?)) };
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    fs::write(certificate, made.cert.der())?;
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    shaken(rustls::ServerConnection::new(Arc::new(server))?.into(), accept(at)?)
}

/// A link to whoever answers.
fn call(at: &str, tls: Option<&str>) -> Result<Box<dyn Link>, Box<dyn Error>> {
    let socket: OwnedFd = match at.starts_with('/') {
        true => UnixStream::connect(at)?.into(),
        false => TcpStream::connect(at)?.into(),
    };
    let Some(certificate) = tls else { return Ok(Box::new(Plain::socket(socket)?)) };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(fs::read(certificate)?))?;
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    shaken(rustls::ClientConnection::new(Arc::new(client), NAME.try_into()?)?.into(), socket)
}

fn accept(at: &str) -> Result<OwnedFd, Box<dyn Error>> {
    let say_so = || {
        println!("ready");
        std::io::stdout().flush()
    };
    if at.starts_with('/') {
        let listener = UnixListener::bind(at)?;
        say_so()?;
        return Ok(listener.accept()?.0.into());
    }
    let listener = TcpListener::bind(at)?;
    say_so()?;
    Ok(listener.accept()?.0.into())
}

/// A link whose handshake is over.
fn shaken(mut connection: rustls::Connection, socket: OwnedFd) -> Result<Box<dyn Link>, Box<dyn Error>> {
    let mut socket = File::from(socket);
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(Box::new(Sealed::new(connection, socket)?))
}
