//! What fails while memory is on its way: the tree runs on, and everyone knows why.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;

use ::crr::error::Error;
use ::crr::pages::{Plain, Problem, Relay, Store};
use ::crr::request::Afterwards;
use libtest_mimic::{Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NEEDS;
use super::run::{directory, dump, said, tree, unix};
use crate::crr::Running;
use crate::kill::paused::children;
use crate::kill::{await_end, goes_on, runs_on};
use crate::until::{SOON, until};
use crate::victim::{Victim, state};
use crate::{Outcome, ensure, test, world};

/// Where the helper finds the link and the tree, and where it dumps to.
const LINK: &str = "CRR_HOST_PAGES_LINK";
const TREE: &str = "CRR_HOST_PAGES_TREE";
const DIR: &str = "CRR_HOST_PAGES_DIR";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("a_full_tmpfs_at_the_far_end_fails_the_dump_with_its_reason_and_the_tree_runs_on", NEEDS, full),
        test("a_link_cut_in_mid_transfer_fails_the_dump_and_the_tree_runs_on", NEEDS, cut),
        test("a_transfer_stopped_in_the_middle_fails_the_dump_and_the_tree_runs_on", NEEDS, stopped),
        test("a_crr_killed_in_mid_transfer_leaves_a_tree_that_runs_on", NEEDS, crr_killed),
        test("a_criu_killed_in_mid_transfer_is_seen_by_both_ends_and_the_tree_runs_on", NEEDS, criu_killed),
    ]
}

/// The dump failed, and for the relay's reason.
fn must_fail<S>(dumped: &::crr::Result<()>, sent: ::crr::Result<S>) -> Result<Error, Failed> {
    ensure!(matches!(dumped, Err(Error::Refused { .. })), "the dump came to {dumped:?}");
    match sent {
        Ok(_) => Err("the relay is content".into()),
        Err(error) => Ok(error),
    }
}

fn full() -> Outcome {
    let victim = tree(8)?;
    let (tree, place) = (victim.tree(), victim.directory().join("full"));
    fs::create_dir(&place)?;
    let (sender, receiver) = mpsc::channel();
    let path = place.clone();
    world::alone(move || {
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=4m"))?;
        sender.send(OwnedFd::from(File::open(&path)?)).map_err(|error| error.to_string().into())
    })?;
    let store = Store::in_directory(receiver.recv()?, &place)?;
    let (near, far) = unix()?;
    let storing = thread::spawn(move || store.run(far).1);
    let images = directory(&victim.images())?;
    let (dumped, sent) = dump(victim.pid(), images, Afterwards::Kill, Relay::pair()?, near)?;
    let error = said(must_fail(&dumped, sent)?);
    ensure!(error.contains("the other end says") && error.contains("No space left on device"), "{error}");
    let stored = storing.join().map_err(|_| "the store panicked")?;
    ensure!(matches!(stored, Err(Error::Io { .. })), "the store came to {stored:?}");
    runs_on(&victim, &tree)?;
    victim.end()
}

/// Takes so much that CRIU is in the middle, and leaves the rest where it is.
fn take_some(link: &mut UnixStream) -> Outcome {
    link.set_read_timeout(Some(SOON))?;
    Ok(link.read_exact(&mut vec![0; 4 << 20])?)
}

fn cut() -> Outcome {
    let victim = tree(16)?;
    let tree = victim.tree();
    let (near, mut far) = UnixStream::pair()?;
    let cutting = thread::spawn(move || take_some(&mut far).map_err(|failed| format!("{failed:?}")));
    let images = directory(&victim.images())?;
    let (dumped, sent) = dump(victim.pid(), images, Afterwards::Kill, Relay::pair()?, Plain::socket(near)?)?;
    cutting.join().map_err(|_| "the far end panicked")??;
    let error = must_fail(&dumped, sent)?;
    let is_cut = matches!(&error, Error::Pages { source: Problem::Cut | Problem::Link { .. } });
    ensure!(is_cut, "{}", said(error));
    runs_on(&victim, &tree)?;
    victim.end()
}

fn stopped() -> Outcome {
    let victim = tree(16)?;
    let tree = victim.tree();
    let (near, mut far) = UnixStream::pair()?;
    let (relay, socket) = Relay::pair()?;
    let stop = relay.stop();
    let stopping = thread::spawn(move || {
        let taken = take_some(&mut far).map_err(|failed| format!("{failed:?}"));
        stop.stop();
        // It goes to the end of what it has begun, and says that it is the end.
        let mut rest = vec![0; 1 << 20];
        while far.read(&mut rest).is_ok_and(|count| count > 0) {
            if rest.windows(14).any(|window| window == b"it was stopped") {
                break;
            }
        }
        taken
    });
    let images = directory(&victim.images())?;
    let (dumped, sent) = dump(victim.pid(), images, Afterwards::Kill, (relay, socket), Plain::socket(near)?)?;
    stopping.join().map_err(|_| "the far end panicked")??;
    let error = must_fail(&dumped, sent)?;
    // The far end did not answer that.
    let is_so = matches!(&error, Error::Pages { source: Problem::Stopped | Problem::Cut | Problem::Link { .. } });
    ensure!(is_so, "{}", said(error));
    runs_on(&victim, &tree)?;
    victim.end()
}

/// A helper that dumps and is in the middle of it, its CRIU, and its link.
fn in_the_middle(victim: &Victim) -> Result<(Running, i32, UnixStream), Failed> {
    let path = victim.directory().join("link");
    let listener = UnixListener::bind(&path)?;
    let images = victim.images();
    drop(directory(&images)?);
    let mut command = Command::new(std::env::current_exe()?);
    command.env(LINK, &path).env(TREE, victim.pid().to_string()).env(DIR, &images);
    let mut helper = Running::start(&mut command)?;
    listener.set_nonblocking(true)?;
    let accepted = until("the helper to call", SOON, || listener.accept().ok());
    let (mut link, _) = accepted.map_err(|failed| format!("{failed:?}: {}", helper.stderr()))?;
    link.set_nonblocking(false)?;
    take_some(&mut link).map_err(|failed| format!("{failed:?}: {}", helper.stderr()))?;
    let criu = *children(helper.pid()).first().ok_or("the helper has no CRIU")?;
    // It sends the memfd before it puts anything into the tree.
    ensure!(state(victim.pid()) == Some('t'), "CRIU is not in the middle");
    Ok((helper, criu, link))
}

fn crr_killed() -> Outcome {
    let victim = tree(16)?;
    let tree = victim.tree();
    let (helper, criu, mut link) = in_the_middle(&victim)?;
    kill(Pid::from_raw(helper.pid()), Signal::SIGKILL)?;
    helper.end(SOON)?.must_exit(128 + 9, "the helper")?;
    await_end(criu)?;
    runs_on(&victim, &tree)?;
    // What was on its way is there; it does not end as a transfer that is whole does.
    let mut rest = Vec::new();
    link.read_to_end(&mut rest)?;
    victim.end()
}

fn criu_killed() -> Outcome {
    let victim = tree(16)?;
    let tree = victim.tree();
    let (helper, criu, mut link) = in_the_middle(&victim)?;
    kill(Pid::from_raw(criu), Signal::SIGKILL)?;
    await_end(criu)?;
    // The far end is told, behind the rest of what was announced.
    let mut rest = Vec::new();
    let mut block = vec![0; 1 << 20];
    let told = b"CRIU ended the transfer before all of it was sent";
    while !rest.windows(told.len()).any(|window| window == told) {
        let count = link.read(&mut block)?;
        ensure!(count > 0, "the far end was not told");
        // The words may be cut.
        let keep = rest.len().saturating_sub(told.len());
        rest.drain(..keep);
        rest.extend_from_slice(&block[..count]);
    }
    drop(link);
    let ran = helper.end(SOON * 2)?;
    ensure!(!ran.passed(), "the helper's dump passed");
    goes_on(&victim, &tree)?;
    victim.end()
}

/// Dumps over a link, if this is what the program was started for.
pub(super) fn as_helper() -> Option<ExitCode> {
    let (link, tree) = (std::env::var_os(LINK)?, std::env::var(TREE).ok()?.parse().ok()?);
    let images = PathBuf::from(std::env::var_os(DIR)?);
    let dumped = || -> Result<(), Failed> {
        let near = Plain::socket(UnixStream::connect(link)?)?;
        let (dumped, sent) = dump(tree, File::open(&images)?.into(), Afterwards::Kill, Relay::pair()?, near)?;
        sent.map_err(said)?;
        Ok(dumped.map_err(said)?)
    };
    match dumped() {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or_default());
            Some(ExitCode::FAILURE)
        }
    }
}
