//! PID 1 of the namespaces: starts the specimen, has CRIU dump and restore it, and asks it before and after.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use super::super::search::chain;
use super::namespaces::own_path;
use super::{HELPER_ARGUMENT, VerdictStep, say};
use crate::error::Error;
use crate::host::netlink;
use crate::host::netlock::nf_tables_works;
use crate::operation::Session;
use crate::request::{DumpOptions, ImageDirectory, NetworkLock, RestoreOptions, Tcp, Version};
use crate::swrk::{Launch, Watch};

/// The step that ends a test which passed.
pub(super) const LAST_STEP: &str = "ask the restored process";

/// Each of CRIU's operations takes less than a second here.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a file system for the images can be mounted. In `/run` it is one for CRIU's own cache as well.
const PLACES: [&str; 3] = ["/run", "/mnt", "/tmp"];

/// The first version that locks the network by nftables.
const NFTABLES_SINCE: Version = Version::new(3, 16);

/// The process to be dumped, the far end of its connection, and where the images go.
struct Trial {
    images: PathBuf,
    binary: PathBuf,
    child: Child,
    connection: BufReader<TcpStream>,
}

pub(super) fn run(binary: &Path) -> ExitCode {
    // The end of standard input is the end of whoever wanted to know: as PID 1 we take everything with us.
    std::thread::spawn(|| {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(2);
    });
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed("start", Instant::now(), &error.to_string()),
    };
    match runtime.block_on(steps(binary)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

async fn steps(binary: &Path) -> Result<(), ExitCode> {
    let images = step("prepare the namespaces", async { prepare(binary).map_err(|error| error.to_string()) }).await?;
    let begin = async { Trial::begin(images, binary).map_err(|error| error.to_string()) };
    let mut trial = step("start a process", begin).await?;
    let pid = trial.child.id() as i32;
    step("dump", trial.dump(pid)).await?;
    step("look for what was dumped", async { trial.is_gone() }).await?;
    step("restore", trial.restore(pid)).await?;
    step(LAST_STEP, async { trial.ask(2) }).await
}

/// Runs one step and says what became of it.
async fn step<T>(name: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, ExitCode> {
    let begun = Instant::now();
    match work.await {
        Ok(value) => {
            say(&VerdictStep { name: name.into(), took_ms: millis(begun), failure: None });
            Ok(value)
        }
        Err(failure) => Err(failed(name, begun, &failure)),
    }
}

fn failed(name: &str, begun: Instant, failure: &str) -> ExitCode {
    say(&VerdictStep { name: name.into(), took_ms: millis(begun), failure: Some(failure.to_owned()) });
    ExitCode::FAILURE
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Makes the mount namespace fit for CRIU; returns an empty directory on a file system in memory.
fn prepare(binary: &Path) -> io::Result<PathBuf> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    let (criu, own) = (binary.canonicalize()?, own_path()?);
    let hides = |place: &Path| criu.starts_with(place) || own.starts_with(place) || binary.starts_with(place);
    let place = PLACES.iter().map(Path::new).find(|place| place.is_dir() && !hides(place));
    let place = place.ok_or_else(|| io::Error::other("CRIU is in each directory that could be mounted over"))?;
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?;
    netlink::loopback_up()?;
    std::env::set_current_dir("/")?;
    let images = place.join("images");
    fs::create_dir(&images)?;
    Ok(images)
}

impl Trial {
    fn begin(images: PathBuf, binary: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let child = Command::new(own_path()?)
            .args([HELPER_ARGUMENT, "specimen", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let (connection, _) = listener.accept()?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let connection = BufReader::new(connection);
        let mut trial = Self { images, binary: binary.to_path_buf(), child, connection };
        trial.ask(1).map_err(io::Error::other)?;
        Ok(trial)
    }

    /// Has the process look at what it holds; `times` is how often it was asked then.
    fn ask(&mut self, times: u32) -> Result<(), String> {
        let mut answer = String::new();
        let asked = self.connection.get_mut().write_all(b"?");
        let heard = asked.and_then(|()| self.connection.read_line(&mut answer));
        match (heard, answer.trim()) {
            (Err(error), _) => Err(format!("its TCP connection does not work: {error}")),
            (Ok(0), _) => Err("its TCP connection is closed".into()),
            (Ok(_), said) if said == format!("ok {times}") => Ok(()),
            (Ok(_), said) => Err(format!("it answers `{said}` instead of `ok {times}`")),
        }
    }

    async fn dump(&self, pid: i32) -> Result<(), String> {
        let mut session = self.session()?;
        let version = session.version().await.map_err(|error| explained(&error))?;
        let mut options = DumpOptions::new(pid);
        options.tcp = Tcp::Established;
        if version >= NFTABLES_SINCE && nf_tables_works().is_ok() {
            options.network_lock = Some(NetworkLock::Nftables);
        }
        let dump = session.dump(self.directory()?, options).await.map_err(|error| explained(&error))?;
        dump.finish().await.map(drop).map_err(|error| explained(&error))
    }

    fn is_gone(&mut self) -> Result<(), String> {
        // CRIU has killed it before it answered, so that this does not wait.
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match status.signal() {
            Some(libc::SIGKILL) => Ok(()),
            _ => Err(format!("the process should have been killed, but ended with {status}")),
        }
    }

    async fn restore(&self, pid: i32) -> Result<(), String> {
        let mut options = RestoreOptions::new();
        options.tcp = Tcp::Established;
        let restore = self.session()?.restore(self.directory()?, options).await.map_err(|error| explained(&error))?;
        let restored = restore.finish().await.map_err(|error| explained(&error))?;
        match restored.pid == pid {
            true => Ok(()),
            false => Err(format!("the process was PID {pid} and is PID {} now", restored.pid)),
        }
    }

    fn session(&self) -> Result<Session, String> {
        let mut session = Session::start(&Launch::new(&self.binary)).map_err(|error| chain(&error))?;
        session.watch(Watch { deadline: Some(Instant::now() + PATIENCE), silence: None });
        Ok(session)
    }

    fn directory(&self) -> Result<ImageDirectory, String> {
        let directory = File::open(&self.images).map_err(|error| error.to_string())?;
        Ok(ImageDirectory::new(OwnedFd::from(directory)))
    }
}

/// What went wrong, with the decisive line of CRIU's log.
fn explained(error: &Error) -> String {
    let log = match error {
        Error::Refused { log: Some(log), .. } => crate::log::explain(log).decisive,
        _ => None,
    };
    match log {
        Some(line) => format!("{}: {}", chain(error), line.text),
        None => chain(error),
    }
}
