//! One test a fact.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crr::Error;
use crr::event::EventKind;
use crr::operation::{Dumped, Operation, Session};
use crr::request::{Afterwards, DumpOptions, ImageDirectory, RestoreOptions};
use crr::swrk::{Launch, Watch};
use libtest_mimic::{Failed, Trial};

use crate::peer::hex;
use crate::wire;

type Outcome = Result<(), Failed>;

pub(crate) fn all() -> Vec<Trial> {
    macro_rules! trials {
        ($($name:ident),* $(,)?) => { vec![$(Trial::test(stringify!($name), || in_runtime($name))),*] };
    }
    trials![
        a_version_question_leaves_the_session_open_for_a_dump,
        events_come_in_order_and_each_is_answered,
        a_dropped_event_refuses,
        a_dropped_operation_is_seen_as_end_of_file_and_reaped,
        an_end_without_a_reply_tells_the_status_and_the_last_words,
        a_death_by_signal_is_told,
        garbage_is_nonsense_not_a_panic,
        a_reply_of_another_type_is_nonsense,
        a_notification_without_an_event_is_nonsense,
        success_without_a_pid_is_nonsense,
        a_failure_brings_the_errno_and_the_log,
        silence_is_a_hang,
        a_growing_image_is_no_hang,
        a_deadline_is_a_hang_however_lively_criu_is,
        a_hanging_criu_is_killed_after_its_grace_and_reaped,
        killing_does_not_wait_for_the_grace,
        an_option_that_an_old_criu_would_ignore_is_never_sent,
        the_child_has_one_descriptor_default_signals_and_no_environment,
        the_pid_of_a_dump_is_always_sent_and_events_always_asked_for,
        a_missing_program_is_a_spawn_error,
        a_program_that_is_no_criu_is_told,
    ]
}

fn in_runtime<F: Future<Output = Outcome>>(test: fn() -> F) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(test())
}

/// A fake CRIU with its script, its record of what it saw, and a directory for images.
struct Fake {
    home: tempfile::TempDir,
}

impl Fake {
    fn new(steps: &[&str]) -> Result<Self, Failed> {
        let home = tempfile::tempdir()?;
        let fake = Self { home };
        fs::create_dir(fake.path("images"))?;
        fs::write(fake.path("script"), steps.join("\n"))?;
        fs::write(fake.path("seen"), "")?;
        let own = std::env::current_exe()?;
        let wrapper = format!(
            "#!/bin/sh\nCRR_FAKE_SCRIPT='{}' CRR_FAKE_SEEN='{}' exec '{}' \"$@\"\n",
            fake.path("script").display(),
            fake.path("seen").display(),
            own.display()
        );
        fs::write(fake.path("criu"), wrapper)?;
        fs::set_permissions(fake.path("criu"), fs::Permissions::from_mode(0o755))?;
        Ok(fake)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn session(&self) -> crr::Result<Session> {
        Session::start(&Launch::new(self.path("criu")))
    }

    fn images(&self) -> Result<ImageDirectory, Failed> {
        Ok(ImageDirectory::new(OwnedFd::from(fs::File::open(self.path("images"))?)))
    }

    /// A dump in progress, with the version known already.
    async fn dump(&self) -> Result<Operation<Dumped>, Failed> {
        let mut session = self.session()?;
        session.assume_version("4.2".parse()?);
        Ok(session.dump(self.images()?, DumpOptions::new(4711)).await?)
    }

    fn seen(&self) -> Vec<String> {
        fs::read_to_string(self.path("seen")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until the fake has written this down.
    fn saw(&self, line: &str) -> Outcome {
        until(&format!("the fake sees `{line}`"), || self.seen().iter().any(|seen| seen == line))
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() > deadline {
            return Err(format!("waited in vain until {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn send(packet: &[u8]) -> String {
    format!("send {}", hex(packet))
}

fn assert(condition: bool, what: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { Err(what.into().into()) }
}

/// Whether no process has this PID: it was reaped.
fn reaped(pid: i32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

async fn a_version_question_leaves_the_session_open_for_a_dump() -> Outcome {
    let fake = Fake::new(&["recv", &send(&wire::version(4, 2)), "recv", &send(&wire::dumped())])?;
    let mut session = fake.session()?;
    assert(session.version().await?.to_string() == "4.2", "the version")?;
    session.dump(fake.images()?, DumpOptions::new(4711)).await?.finish().await?;
    let got = fake.seen();
    // keep_open is field 4 of the request.
    let first = wire::fields(&unhex(&got[0]));
    assert(first == [(1, wire::Value::Number(wire::VERSION)), (4, wire::Value::Number(1))], format!("{first:?}"))?;
    let second = wire::fields(&unhex(&got[1]));
    assert(second[0] == (1, wire::Value::Number(wire::DUMP)), format!("{second:?}"))
}

fn unhex(line: &str) -> Vec<u8> {
    let text = line.strip_prefix("got ").unwrap_or_default();
    (0..text.len() / 2).filter_map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

async fn events_come_in_order_and_each_is_answered() -> Outcome {
    let steps = [
        "recv",
        &send(&wire::event("pre-dump")),
        "ack",
        &send(&wire::event("new-in-5.0")),
        "ack",
        &send(&wire::dumped()),
    ];
    let fake = Fake::new(&steps)?;
    let mut dump = fake.dump().await?;
    let mut kinds = Vec::new();
    while let Some(event) = dump.next().await? {
        kinds.push(event.kind().clone());
        event.proceed().await?;
    }
    dump.finish().await?;
    assert(kinds == [EventKind::PreDump, EventKind::Other("new-in-5.0".into())], format!("{kinds:?}"))?;
    assert(fake.seen()[1..] == ["ack true", "ack true"], format!("{:?}", fake.seen()))
}

async fn a_dropped_event_refuses() -> Outcome {
    let refused = wire::response(wire::DUMP, false, &[]);
    let fake = Fake::new(&["recv", &send(&wire::event("post-dump")), "ack", &send(&refused), "exit 1"])?;
    let mut dump = fake.dump().await?;
    drop(dump.next().await?);
    assert(matches!(dump.finish().await, Err(Error::Refused { attempt: "dump", .. })), "the refusal")?;
    assert(fake.seen()[1] == "ack false", format!("{:?}", fake.seen()))
}

async fn a_dropped_operation_is_seen_as_end_of_file_and_reaped() -> Outcome {
    let fake = Fake::new(&["recv", &send(&wire::event("pre-dump")), "ack", "recv", "exit 1"])?;
    let mut dump = fake.dump().await?;
    let pid = dump.criu_pid();
    if let Some(event) = dump.next().await? {
        event.proceed().await?;
    }
    drop(dump);
    fake.saw("eof")?;
    until("it is reaped", || reaped(pid))
}

async fn an_end_without_a_reply_tells_the_status_and_the_last_words() -> Outcome {
    let fake = Fake::new(&["recv", "stderr Error: Unexpected rt vDSO area bounds", "exit 3"])?;
    match fake.dump().await?.finish().await {
        Err(Error::Hangup { status, stderr, .. }) => {
            assert(status.code() == Some(3) && stderr.contains("vDSO"), format!("{status} {stderr}"))
        }
        other => Err(format!("{other:?}").into()),
    }
}

async fn a_death_by_signal_is_told() -> Outcome {
    let fake = Fake::new(&["recv", &send(&wire::event("post-dump")), "ack", "kill"])?;
    let error = fake.dump().await?.finish().await.err().ok_or("no error")?;
    assert(matches!(error, Error::Hangup { .. }) && error.to_string().contains("signal: 9"), error.to_string())
}

async fn garbage_is_nonsense_not_a_panic() -> Outcome {
    for garbage in ["ff", "0807", "00", &"61".repeat(100_000)] {
        let fake = Fake::new(&["recv", &format!("send {garbage}"), "hang"])?;
        let result = fake.dump().await?.finish().await;
        assert(matches!(result, Err(Error::Nonsense { .. })), format!("{result:?}"))?;
    }
    Ok(())
}

async fn a_reply_of_another_type_is_nonsense() -> Outcome {
    let fake = Fake::new(&["recv", &send(&wire::restored(4711)), "hang"])?;
    let result = fake.dump().await?.finish().await;
    assert(matches!(result, Err(Error::Nonsense { .. })), format!("{result:?}"))
}

async fn a_notification_without_an_event_is_nonsense() -> Outcome {
    let fake = Fake::new(&["recv", &send(&wire::response(wire::NOTIFY, true, &[])), "hang"])?;
    let result = fake.dump().await?.finish().await;
    assert(matches!(result, Err(Error::Nonsense { .. })), format!("{result:?}"))
}

async fn success_without_a_pid_is_nonsense() -> Outcome {
    for packet in [wire::restored(-1), wire::restored(0), wire::response(wire::RESTORE, true, &[])] {
        let fake = Fake::new(&["recv", &send(&packet)])?;
        let mut session = fake.session()?;
        session.assume_version("4.2".parse()?);
        let result = session.restore(fake.images()?, RestoreOptions::new()).await?.finish().await;
        assert(matches!(result, Err(Error::Nonsense { .. })), format!("{result:?}"))?;
    }
    Ok(())
}

async fn a_failure_brings_the_errno_and_the_log() -> Outcome {
    let refused = wire::response(wire::DUMP, false, &wire::number(7, 3));
    let line =
        "Error (criu/file-lock.c:1): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.";
    let fake = Fake::new(&["recv", &format!("log dump.log {line}"), &send(&refused), "exit 1"])?;
    match fake.dump().await?.finish().await {
        Err(Error::Refused { errno: Some(3), log: Some(log), .. }) => {
            let known = crr::log::explain(&log).known.ok_or("not explained")?;
            assert(known.id == "file-locks", known.id)
        }
        other => Err(format!("{other:?}").into()),
    }
}

async fn silence_is_a_hang() -> Outcome {
    let fake = Fake::new(&["recv", "hang"])?;
    let mut dump = fake.dump().await?;
    dump.watch(Watch { deadline: None, silence: Some(Duration::from_secs(2)) });
    let result = dump.next().await.map(drop);
    assert(matches!(result, Err(Error::Hang { .. })), format!("{result:?}"))
}

async fn a_growing_image_is_no_hang() -> Outcome {
    let fake = Fake::new(&["recv", "grow pages-1.img 5000", &send(&wire::dumped())])?;
    let mut dump = fake.dump().await?;
    dump.watch(Watch { deadline: None, silence: Some(Duration::from_secs(2)) });
    dump.finish().await.map(drop).map_err(Failed::from)
}

async fn a_deadline_is_a_hang_however_lively_criu_is() -> Outcome {
    let fake = Fake::new(&["recv", "grow pages-1.img 60000"])?;
    let mut dump = fake.dump().await?;
    dump.watch(Watch { deadline: Some(Instant::now() + Duration::from_secs(1)), silence: None });
    let result = dump.next().await.map(drop);
    assert(matches!(result, Err(Error::Hang { .. })), format!("{result:?}"))
}

async fn a_hanging_criu_is_killed_after_its_grace_and_reaped() -> Outcome {
    let fake = Fake::new(&["recv", "hang"])?;
    let dump = fake.dump().await?;
    let pid = dump.criu_pid();
    let mut reaping = dump.cancel(Duration::from_millis(200)).ok_or("it runs")?;
    let exit = reaping.ended().await.ok_or("a status")?;
    assert(exit.killed && reaped(pid), format!("{exit:?}"))
}

async fn killing_does_not_wait_for_the_grace() -> Outcome {
    let fake = Fake::new(&["recv", "hang"])?;
    let mut reaping = fake.dump().await?.cancel(Duration::from_secs(3600)).ok_or("it runs")?;
    reaping.kill();
    let exit = tokio::time::timeout(Duration::from_secs(10), reaping.ended()).await?.ok_or("a status")?;
    assert(exit.killed, format!("{exit:?}"))
}

async fn an_option_that_an_old_criu_would_ignore_is_never_sent() -> Outcome {
    let fake = Fake::new(&["recv", &send(&wire::version(3, 17)), "recv"])?;
    let mut options = DumpOptions::new(4711);
    options.afterwards = Afterwards::KeepStopped;
    let result = fake.session()?.dump(fake.images()?, options).await.map(drop);
    assert(matches!(result, Err(Error::NeedsNewerCriu { .. })), format!("{result:?}"))?;
    fake.saw("eof")
}

async fn the_child_has_one_descriptor_default_signals_and_no_environment() -> Outcome {
    // Something to leak: a descriptor without CLOEXEC, an ignored signal, a variable.
    let leak = fs::File::open("/dev/zero")?;
    nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    let fake = Fake::new(&["recv", "self", &send(&wire::version(4, 2))])?;
    fake.session()?.version().await?;
    let seen = fake.seen().join("\n");
    // The fake's own runtime ignores SIGPIPE (bit 12).
    for line in
        ["SigBlk: 0000000000000000", "SigIgn: 0000000000001000", "Umask: 0077", "group own", "environment PATH PWD"]
    {
        let found =
            seen.contains(line) || (line == "environment PATH PWD" && seen.contains("environment OLDPWD PATH PWD"));
        assert(found, format!("no `{line}` in:\n{seen}"))?;
    }
    // A memfd is always shown so.
    let fds = seen.lines().find(|line| line.starts_with("fds ")).unwrap_or_default().replace(" (deleted)", "");
    assert(fds.split(' ').count() == 5 && fds.contains("0=/dev/null 1=/dev/null 2=") && fds.contains("N=socket"), fds)
}

async fn the_pid_of_a_dump_is_always_sent_and_events_always_asked_for() -> Outcome {
    let fake = Fake::new(&["recv", &send(&wire::dumped())])?;
    fake.dump().await?.finish().await?;
    let request = wire::fields(&unhex(&fake.seen()[0]));
    let Some((_, wire::Value::Bytes(opts))) = request.iter().find(|(number, _)| *number == 2) else {
        return Err("no opts".into());
    };
    let opts = wire::fields(opts);
    assert(opts.contains(&(2, wire::Value::Number(4711))), "the PID")?;
    assert(opts.contains(&(12, wire::Value::Number(1))), "notify_scripts")?;
    // Without a PID CRIU would dump its client.
    let mut session = fake.session()?;
    session.assume_version("4.2".parse()?);
    let result = session.dump(fake.images()?, DumpOptions::new(0)).await.map(drop);
    assert(matches!(result, Err(Error::Option { .. })), format!("{result:?}"))
}

async fn a_missing_program_is_a_spawn_error() -> Outcome {
    let result = Session::start(&Launch::new("/nonexistent/criu")).map(drop);
    assert(matches!(result, Err(Error::Spawn { .. })), format!("{result:?}"))
}

async fn a_program_that_is_no_criu_is_told() -> Outcome {
    let result = Session::start(&Launch::new("/bin/true"))?.version().await;
    assert(matches!(result, Err(Error::Hangup { .. })), format!("{result:?}"))?;
    let fake = Fake::new(&["recv", &send(&wire::response(wire::FEATURE_CHECK, true, &[]))])?;
    let result = fake.session()?.version().await;
    assert(matches!(result, Err(Error::Nonsense { .. })), format!("{result:?}"))
}
