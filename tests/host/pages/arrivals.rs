//! Memory that arrives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use ::crr::images::{Images, PagemapOf, Problem};
use ::crr::operation::Session;
use ::crr::pages::{Expected, Plain, Relay, Store};
use ::crr::request::{Afterwards, ImageDirectory, Listen, Log, PageServerOptions};
use libtest_mimic::{Failed, Trial};

use super::NEEDS;
use super::run::{directory, launch, must_arrive, pipes, runtime, said, tree, unix};
use crate::until::SOON;
use crate::{Outcome, crr, ensure, test};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("memory_spliced_through_a_socket_restores_with_criu", NEEDS, || restores(unix, Way::Spliced)),
        test("memory_spliced_through_pipes_restores_with_criu", NEEDS, || restores(pipes, Way::Spliced)),
        test("memory_spliced_into_touched_files_restores_with_criu", NEEDS, || restores(unix, Way::Touched)),
        test("memory_copied_with_hashes_and_without_zeros_restores_with_criu", NEEDS, || restores(unix, Way::Hashed)),
        test("a_store_writes_byte_for_byte_what_criu_s_page_server_writes", NEEDS, compared),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Spliced,
    Touched,
    Hashed,
}

fn restores(link: fn() -> Result<(Plain, Plain), Failed>, way: Way) -> Outcome {
    let mut victim = tree(8)?;
    let (images, processes) = (victim.images(), victim.tree());
    let open = directory(&images)?;
    let mut store = Store::new(&images)?;
    if way == Way::Touched {
        // One too large, one too small, one for shared memory, one for nothing.
        let expected = |of, megabytes: u64| Expected { of, bytes: megabytes << 20 };
        let of = |at: usize| processes.get(at).and_then(|pid| u32::try_from(*pid).ok()).map(PagemapOf::Task);
        store.touch(&[
            expected(of(0), 20),
            expected(of(1), 1),
            expected(None, 8),
            expected(Some(PagemapOf::Task(1)), 1),
        ])?;
    }
    let (relay, socket) = Relay::pair()?;
    let relay = if way == Way::Hashed { relay.with_hashes() } else { relay };
    let (sent, stored) = must_arrive(victim.pid(), open, Afterwards::Kill, (relay, socket), link()?, store)?;
    // Three tasks, shared memory and the memfd.
    ensure!(sent.pagemaps == 5 && stored.pagemaps == 5, "{sent:?} {stored:?}");
    ensure!(sent.pages == stored.pages && sent.pages > 3 * 2048, "{sent:?} {stored:?}");
    let has_zeros = sent.zero_pages > 512 && stored.zero_pages == sent.zero_pages;
    ensure!(has_zeros == (way == Way::Hashed), "{sent:?} {stored:?}");
    let problems: Vec<Problem> = Images::open(&images)?.check_set()?;
    ensure!(problems.is_empty(), "the set is not whole: {problems:?}");
    let names: Vec<_> =
        fs::read_dir(&images)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    ensure!(!names.iter().any(|name| name.starts_with("touched")), "left behind: {names:?}");

    victim.await_gone(&processes)?;
    crr::criu("restore", &images, ["-d"], SOON)?.must_pass("criu restore")?;
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    victim.end()
}

/// What CRIU says in one dump is recorded on its way to the relay, and then said to CRIU's own page server.
fn compared() -> Outcome {
    let victim = tree(4)?;
    let (store_at, server_at) = (victim.directory().join("store"), victim.directory().join("server"));
    drop(directory(&store_at)?);
    let (tap, socket) = UnixStream::pair()?;
    let (relay, to_relay) = UnixStream::pair()?;
    let recording = thread::spawn(move || record(tap, to_relay));
    let from = (Relay::on(relay.into())?, socket.into());
    let images = directory(&victim.images())?;
    must_arrive(victim.pid(), images, Afterwards::KeepRunning, from, unix()?, Store::new(&store_at)?)?;
    let said_by_criu = recording.join().map_err(|_| "the recorder panicked")??;
    victim.self_check()?;

    let directory = directory(&server_at)?;
    let (near, far) = UnixStream::pair()?;
    let launch = launch()?;
    let status = runtime()?.block_on(async {
        let mut session = Session::start_inheriting(&launch, &[far.as_fd()])?;
        let options = PageServerOptions {
            listen: Listen::Socket(far.into()),
            parent: None,
            auto_dedup: false,
            tls: None,
            log: Log::new("server.log"),
        };
        let server = session.page_server(&ImageDirectory::new(directory), &options).await?;
        // The replay ends when nobody has the socket.
        drop(options);
        let replay = thread::spawn(move || replay(near, &said_by_criu));
        let status = session.wait_pid(server.pid).await?;
        Ok::<_, ::crr::Error>((status, replay.join()))
    });
    let (status, replayed) = status.map_err(said)?;
    replayed.map_err(|_| "the replay panicked")??;
    ensure!(status.success(), "CRIU's page server ended with {status}");
    let (ours, theirs) = (memory_images(&store_at)?, memory_images(&server_at)?);
    ensure!(ours.len() == 10, "the store wrote {:?}", ours.keys());
    ensure!(ours.keys().eq(theirs.keys()), "we wrote {:?}, CRIU {:?}", ours.keys(), theirs.keys());
    for (name, bytes) in ours {
        ensure!(theirs.get(&name) == Some(&bytes), "{name} is not what CRIU writes");
    }
    victim.end()
}

/// Passes on all that goes by, both ways, until CRIU closes; what CRIU said.
fn record(criu: UnixStream, relay: UnixStream) -> std::io::Result<Vec<u8>> {
    let (mut answers, mut back) = (relay.try_clone()?, criu.try_clone()?);
    let answering = thread::spawn(move || {
        // CRIU's end may be closed already.
        let _ = std::io::copy(&mut answers, &mut back);
    });
    let (mut criu, mut relay, mut said) = (criu, relay, Vec::new());
    let mut block = vec![0; 1 << 16];
    loop {
        let count = criu.read(&mut block)?;
        if count == 0 {
            break;
        }
        said.extend_from_slice(&block[..count]);
        // The relay closes when it has answered the last.
        if relay.write_all(&block[..count]).is_err() {
            break;
        }
    }
    let _ = relay.shutdown(Shutdown::Both);
    let _ = answering.join();
    Ok(said)
}

/// Says it all at once, and takes the answers.
fn replay(mut server: UnixStream, said: &[u8]) -> std::io::Result<()> {
    server.write_all(said)?;
    server.shutdown(Shutdown::Write)?;
    server.read_to_end(&mut Vec::new()).map(drop)
}

fn memory_images(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, Failed> {
    let mut images = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().into_string().map_err(|_| "a name that is not UTF-8")?;
        if name.starts_with("page") {
            let mut bytes = Vec::new();
            File::open(directory.join(&name))?.read_to_end(&mut bytes)?;
            images.insert(name, bytes);
        }
    }
    Ok(images)
}
