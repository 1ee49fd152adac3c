//! crr's part on a host, step by step: a process in the host that does what it is told with the library.
//!
//! What it is told comes as lines of words, what it says are lines of JSON: `{"done": …}` or `{"failed": "why"}`. A dump or a
//! restore stops at the event that it is held at and answers; from there on all words but another operation are obeyed, until
//! `yes` or `no` answers the event. The reply of the operation is the answer to `reply`.

use std::error::Error as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::time::Duration;

use ::crr::event::{Event, EventKind};
use ::crr::host::address::{Address, Held, announce};
use ::crr::host::cgroup::Layout;
use ::crr::host::cgroup::hold::{Hold, KillGuard};
use ::crr::host::fence::{Fence, Kind};
use ::crr::operation::Session;
use ::crr::process::{Connections, Expected, silence};
use ::crr::request::{DumpOptions, ImageDirectory, NetworkLock, RestoreOptions, Tcp};
use ::crr::swrk::Launch;
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::bed::Host;
use crate::need;

/// The first word of its command line.
const ROLE: &str = "held-hand";

/// How long a tree may take to stand still, or to end.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn as_helper() -> Option<ExitCode> {
    if std::env::args().nth(1)? != ROLE {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(Work::default().obey(None));
    Some(ExitCode::SUCCESS)
}

/// An error and its causes.
pub(super) fn chain(error: &::crr::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    if let ::crr::Error::Refused { log: Some(log), .. } = error {
        text += &format!(" ({})", crate::crr::decisive(&String::from_utf8_lossy(log)));
    }
    text
}

/// A hand in a host. Dropping it ends its input, and so the process.
pub(super) struct Hand {
    child: Child,
    line: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Hand {
    /// Starts one. `version` of cgroups: "1", "2", or "" for what the library prefers.
    pub(super) fn start(host: &Host, version: &str) -> Result<Self, Failed> {
        let mut command = host.command(std::env::current_exe()?);
        command.arg(ROLE).env("CRR_HAND_CGROUPS", version).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { line: child.stdin.take(), child, answers })
    }

    /// Has it do something, and waits for the answer.
    pub(super) fn ask(&mut self, words: &str) -> Result<Value, Failed> {
        self.tell(words)?;
        self.hear(words)
    }

    /// Tells it what to do.
    pub(super) fn tell(&mut self, words: &str) -> Result<(), Failed> {
        Ok(writeln!(self.line.as_mut().ok_or("it was let go")?, "{words}")?)
    }

    /// The next answer.
    pub(super) fn hear(&mut self, words: &str) -> Result<Value, Failed> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).map_err(|_| format!("`{words}`: the hand has gone"))?;
        match answer["failed"].as_str() {
            Some(why) => Err(format!("`{words}`: {why}").into()),
            None => Ok(answer["done"].clone()),
        }
    }

    /// A number in an answer.
    pub(super) fn count(&mut self, words: &str) -> Result<i64, Failed> {
        let answer = self.ask(words)?;
        answer.as_i64().ok_or_else(|| format!("`{words}`: no number but {answer}").into())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        drop(self.line.take());
        // What it holds is let go by its end; where it does not end, the bed sees to it.
        let _ = crate::until::until("the end of a hand", LIMIT, || self.child.try_wait().ok().flatten());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(answer: Result<Value, String>) {
    let line = match answer {
        Ok(done) => json!({ "done": done }),
        Err(why) => json!({ "failed": why }),
    };
    // A test that is gone hears nothing.
    let _ = writeln!(io::stdout(), "{line}");
}

/// What the process in the host knows.
#[derive(Default)]
struct Work {
    tasks: Vec<Expected>,
    connections: Connections,
    hold: Option<Hold>,
    guard: Option<KillGuard>,
    held: Option<Held>,
    reply: Option<Result<Value, String>>,
}

impl Work {
    /// Does what it is told until its input ends, or until the event is answered.
    async fn obey(&mut self, mut event: Option<Event<'_>>) {
        loop {
            let mut line = String::new();
            if io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match (words.as_slice(), event.take()) {
                (["yes"], Some(event)) => {
                    say(event.proceed().await.map(|()| Value::Null).map_err(|error| chain(&error)));
                    return;
                }
                (["no"], Some(event)) => {
                    say(event.refuse().await.map(|()| Value::Null).map_err(|error| chain(&error)));
                    return;
                }
                (["guard"], Some(here)) => {
                    let posted =
                        self.hold().and_then(|hold| KillGuard::post(hold, &here).map_err(|error| chain(&error)));
                    say(posted.map(|guard| {
                        self.guard = Some(guard);
                        Value::Null
                    }));
                    event = Some(here);
                }
                (["dump", pid, directory], None) => {
                    let reply = Box::pin(self.dump(pid, directory)).await;
                    self.reply = Some(reply.map_err(|error| chain(&error)));
                }
                (["restore", directory], None) => {
                    let reply = Box::pin(self.restore(directory)).await;
                    self.reply = Some(reply.map_err(|error| chain(&error)));
                }
                (words, held) => {
                    event = held;
                    say(self.simple(words));
                }
            }
        }
    }

    /// A dump that is held at `post-dump`.
    async fn dump(&mut self, pid: &str, directory: &str) -> ::crr::Result<Value> {
        let mut options = DumpOptions::new(pid.parse().unwrap_or(0));
        options.tcp = Tcp::Established;
        options.network_lock = Some(NetworkLock::Nftables);
        options.log.level = 4;
        self.tasks = Expected::tree(options.pid);
        self.connections = Connections::of(&self.tasks);
        let mut dump = session()?.dump(images(directory)?, options).await?;
        while let Some(event) = dump.next().await? {
            match event.kind() {
                EventKind::QueryExtFiles | EventKind::PostDump => self.obey_at(event).await,
                _ => event.proceed().await?,
            }
        }
        dump.finish().await.map(|_| Value::Null)
    }

    /// A restore that is held at `post-restore` and at `pre-resume`.
    async fn restore(&mut self, directory: &str) -> ::crr::Result<Value> {
        let mut options = RestoreOptions::new();
        options.tcp = Tcp::Established;
        options.log.level = 4;
        let mut restore = session()?.restore(images(directory)?, options).await?;
        while let Some(event) = restore.next().await? {
            match event.kind() {
                EventKind::PostRestore => {
                    self.tasks = Expected::tree(event.pid().unwrap_or(0));
                    self.obey_at(event).await;
                }
                EventKind::PreResume => self.obey_at(event).await,
                _ => event.proceed().await?,
            }
        }
        restore.finish().await.map(|restored| json!(restored.pid))
    }

    async fn obey_at(&mut self, event: Event<'_>) {
        say(Ok(json!({ "event": event.kind().name(), "criu": event.criu_pid(), "tasks": self.tasks.len() })));
        Box::pin(self.obey(Some(event))).await;
    }

    fn hold(&self) -> Result<&Hold, String> {
        self.hold.as_ref().ok_or_else(|| "nothing is held".into())
    }

    fn simple(&mut self, words: &[&str]) -> Result<Value, String> {
        let layout = layout().map_err(|error| chain(&error))?;
        let done = |done: ::crr::Result<()>| done.map(|()| Value::Null).map_err(|error| chain(&error));
        let address = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("{text} is no address"));
        match words {
            ["pid"] => Ok(json!(std::process::id())),
            ["tree", pid] => {
                self.tasks = Expected::tree(pid.parse().unwrap_or(0));
                self.connections = Connections::of(&self.tasks);
                Ok(json!(self.tasks.len()))
            }
            ["plan", tag] => {
                let hold = Hold::plan(&layout, tag, &self.tasks).map_err(|error| chain(&error))?;
                // As the journal keeps it.
                let text = serde_json::to_string(&hold).map_err(|error| error.to_string())?;
                self.hold = Some(serde_json::from_str(&text).map_err(|error| error.to_string())?);
                Ok(json!(hold.directory()))
            }
            ["find", tag] => {
                self.hold = Hold::all(&layout).into_iter().find(|hold| hold.tag() == *tag);
                self.tasks = self.hold.as_ref().map(Hold::tasks).unwrap_or_default();
                Ok(json!(self.hold.is_some()))
            }
            ["gather"] => done(self.hold()?.gather(&layout)),
            ["freeze"] => done(self.hold()?.freeze(LIMIT)),
            ["frozen"] => self.hold()?.is_frozen().map(Value::Bool).map_err(|error| chain(&error)),
            ["release"] => {
                let released = self.hold()?.release(&layout).map_err(|error| chain(&error))?;
                match released.failures.is_empty() {
                    true => Ok(json!(released.tasks)),
                    false => Err(released.failures.join("; ")),
                }
            }
            ["end"] => done(self.hold()?.end(LIMIT)),
            ["dismiss"] => Ok(json!(self.guard.take().is_some_and(KillGuard::dismiss))),
            ["silence"] => silence(&self.tasks).map(|count| json!(count)).map_err(|failures| failures.join("; ")),
            ["right"] => {
                let repaired = self.connections.end_repair(&self.tasks);
                match repaired.failures.is_empty() {
                    true => Ok(json!(repaired.ended)),
                    false => Err(repaired.failures.join("; ")),
                }
            }
            ["unlock"] => {
                let found = ::crr::host::netlock::Locks::look().found;
                found.iter().try_for_each(::crr::host::netlock::Lock::remove).map_err(|error| chain(&error))?;
                Ok(json!(found.len()))
            }
            ["fence", kind, text] => done(Fence::of(kind_of(kind), super::TAG).put_up(&[address(text)?])),
            ["unfence", kind] => done(Fence::of(kind_of(kind), super::TAG).take_down()),
            ["withdraw", text] => {
                self.held = Held::look(address(text)?).map_err(|error| chain(&error))?;
                done(self.held.as_ref().ok_or("it is not here")?.take_off())
            }
            ["return"] => done(self.held.as_ref().ok_or("nothing was withdrawn")?.put_back()),
            ["raise", text] => done(Address::new(address(text)?, 32, "eth0").put_on()),
            ["drop", text] => match Held::look(address(text)?).map_err(|error| chain(&error))? {
                Some(held) => done(held.take_off()),
                None => Ok(Value::Null),
            },
            ["announce", text] => done(announce(address(text)?, "eth0")),
            ["orphans", text] => {
                let ended = ::crr::host::abort_orphans(address(text)?);
                ended.map(|count| json!(count)).map_err(|error| error.to_string())
            }
            ["reply"] => self.reply.take().unwrap_or_else(|| Err("there is none".into())),
            other => Err(format!("what is {other:?}?")),
        }
    }
}

fn kind_of(word: &str) -> Kind {
    if word == "source" { Kind::Source } else { Kind::Target }
}

/// The hierarchies, only those of one version where the test says so.
fn layout() -> ::crr::Result<Layout> {
    let mut layout = Layout::read()?;
    match std::env::var("CRR_HAND_CGROUPS").as_deref() {
        Ok("1") => layout.hierarchies.retain(|hierarchy| !hierarchy.is_unified()),
        Ok("2") => layout.hierarchies.retain(::crr::host::cgroup::Hierarchy::is_unified),
        _ => {}
    }
    Ok(layout)
}

fn session() -> ::crr::Result<Session> {
    Session::start(&Launch::new(need::criu().unwrap_or_default()))
}

fn images(directory: &str) -> ::crr::Result<ImageDirectory> {
    let path = Path::new(directory);
    let open = || std::fs::create_dir_all(path).and_then(|()| std::fs::File::open(path));
    open().map(|file| ImageDirectory::new(file.into())).map_err(::crr::Error::io("open", path))
}
