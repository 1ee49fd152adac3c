//! What happens to containers, and to crr, while crr dumps them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::crr::{self, Ran, Running};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::rounds::rounds;
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test, victim};

use super::bed::{Bed, Container, LIMIT};
use super::bundle::counter;
use super::dumps::{command, dump, runs_on, state_of};
use super::network::{NetworkNamespace, ip};
use super::output::Output;
use super::runtime::Runtime::Runc11;
use super::snapshot::cgroups_of;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

/// Until the answer to `post-dump` the container runs on, whatever dies.
const BEFORE: [&str; 7] =
    ["pre-dump", "query-ext-files", "post-dump", "record-written", "flushed", "renamed", "place-flushed"];

/// Afterwards it is ended, and the next crr removes what is left of it.
const AFTER: [&str; 3] = ["released", "cgroups-removed", "state-removed"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("dump::a_process_executed_while_it_stands_still_is_found", NEEDS, executed),
        test("dump::a_connection_that_comes_while_it_stands_still_is_kept", NEEDS, connected),
        test("dump::no_client_is_reset_by_200_dumps", NEEDS, clients),
        test("dump::a_network_of_its_own_is_recorded_and_in_the_images", NEEDS, own_network),
        test("dump::a_network_namespace_with_a_path_is_external", NEEDS, given_network),
        test("dump::a_namespace_whose_path_is_gone_is_named_before_the_freeze", NEEDS, namespace_gone),
        test("dump::a_root_file_system_that_is_gone_is_named_before_the_freeze", NEEDS, rootfs_gone),
    ];
    for step in BEFORE {
        trials.push(test(format!("dump::killed_at_{}_the_container_runs_on", step.replace('-', "_")), NEEDS, || {
            killed_before(step)
        }));
    }
    for step in AFTER {
        trials.push(test(format!("dump::killed_at_{}_the_next_run_ends_it", step.replace('-', "_")), NEEDS, || {
            killed_after(step)
        }));
    }
    trials
}

/// A crr that stands still at a step.
struct Still(Running);

impl Still {
    fn at(command: &mut Command, step: &str) -> Result<Self, Failed> {
        let still = Self(Running::start(command.env("CRR_TEST_PAUSE_AT", step))?);
        still.again(step)?;
        Ok(still)
    }

    /// Waits until it stands still (again).
    fn again(&self, step: &str) -> Outcome {
        let pid = self.0.pid();
        let stands = until(format_args!("crr to stand still at {step}"), SOON, || match victim::state(pid) {
            Some('T') => Some(true),
            None | Some('Z' | 'X') => Some(false),
            _ => None,
        })?;
        ensure!(stands, "crr ended before {step}");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(self.0.pid()), signal)?)
    }

    fn criu(&self) -> Option<i32> {
        let pid = self.0.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().find_map(|child| child.parse().ok())
    }

    fn end(self) -> Result<Ran, Failed> {
        self.0.end(LIMIT)
    }
}

fn record(images: &Path) -> Result<Value, Failed> {
    let record: Value = serde_json::from_slice(&fs::read(images.join("crr.json"))?)?;
    Ok(record["checkpoint"].clone())
}

fn killed_before(step: &'static str) -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    let state = state_of(&bed, &container)?;
    for (number, of_criu) in [false, true].into_iter().enumerate() {
        let images = bed.path(&format!("images{number}"));
        let still = Still::at(&mut command(&bed, container.id(), &images), step)?;
        let counted = output.numbers().len();
        let killed = Instant::now();
        match (of_criu, still.criu()) {
            (true, Some(criu)) => {
                kill(Pid::from_raw(criu), Signal::SIGKILL)?;
                still.signal(Signal::SIGCONT)?;
            }
            _ => still.signal(Signal::SIGKILL)?,
        }
        until("a number", SOON, || (output.numbers().len() > counted).then_some(()))?;
        let took = killed.elapsed();
        ensure!(took < Duration::from_secs(1), "{step}: it stood still for {took:?} after the kill");
        let ran = still.end()?;
        ensure!(!ran.passed(), "{step}: crr passed all the same");
        output.await_numbers(2)?;
        ensure!(container.status()? == "running", "{step}: it is {}", container.status()?);
        ensure!(state_of(&bed, &container)? == state, "{step}: its state has changed");
    }
    output.counted_without_gap()?;
    // What is left stands in nobody's way.
    dump(&bed, &container, &bed.path("last"), &[])?.must_pass("the next dump")?;
    is_gone(&container)
}

fn killed_after(step: &'static str) -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    let other = bed.run_on("other", &bundle, &Output::new()?)?;
    output.await_numbers(2)?;
    let images = bed.path("images");
    let still = Still::at(&mut command(&bed, container.id(), &images), step)?;
    still.signal(Signal::SIGKILL)?;
    still.end()?;
    ensure!(images.join("crr.json").exists(), "{step}: no checkpoint");
    // Reads only; the host itself may lack something.
    let told = crr::crr(["check"])?.stdout;
    ensure!(told.contains(container.id()) || is_gone(&container).is_ok(), "{step}: crr check does not list it: {told}");
    // A crr of another test may have found it first.
    dump(&bed, &other, &bed.path("other"), &["--leave-running"])?.must_pass("the next dump")?;
    until("the container to be gone", SOON, || is_gone(&container).is_ok().then_some(()))?;
    let restored = bed.restore("one", &bundle, &images, &[], &output)?;
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    restored.obeys_its_runtime(&output)
}

fn is_gone(container: &Container) -> Outcome {
    ensure!(!container.exists(), "the runtime still knows it");
    let left = cgroups_of(container.id());
    ensure!(left.is_empty(), "cgroups are left: {left:?}");
    Ok(())
}

fn executed() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(2)?;
    let state = state_of(&bed, &container)?;
    let images = bed.path("images");
    let still = Still::at(&mut command(&bed, container.id(), &images), "query-ext-files")?;
    let mut executed = bed.command();
    executed.args(["exec", "-d", container.id(), "/bin/sleep", "1000"]);
    crr::run_on_streams(&mut executed, output.streams()?, LIMIT)?.must_pass("exec -d")?;
    still.signal(Signal::SIGCONT)?;
    let ran = still.end()?.must_exit(79, "a dump that would lose a process")?;
    ensure!(ran.stderr.contains("(sleep)"), "{}", ran.stderr);
    ensure!(!images.exists(), "a directory is left");
    output.await_numbers(2)?;
    ensure!(container.status()? == "running", "it is {}", container.status()?);
    ensure!(state_of(&bed, &container)? == state, "its state has changed");
    Ok(())
}

/// A server in a container with a network of its own, and a way to it.
const SERVER: &str = "nc -ll -p 7000 -e cat & ";

fn connected() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let mut namespace = NetworkNamespace::create(&bed, "net")?;
    let inside = namespace.connect()?.inside;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.namespace("network", Some(&namespace.path()))?;
    bundle.shell(&format!("{SERVER}{}", counter("0.1")));
    let container = bed.run_on("server", &bundle, &output)?;
    output.await_numbers(2)?;
    let images = bed.path("images");
    let quiet = bed.path("quiet");
    dump(&bed, &container, &quiet, &["--leave-running"])?.must_pass("a dump without clients")?;
    ensure!(record(&quiet)?["options"]["network_lock"] == "skip", "a listening socket alone made it lock the network");

    let more = ["--leave-running", "--tcp-established", "--skip-in-flight"];
    let still = Still::at(command(&bed, container.id(), &images).args(more), "query-ext-files")?;
    // The kernel accepts it for the server, which stands still.
    let mut client = TcpStream::connect((inside, 7000))?;
    still.signal(Signal::SIGCONT)?;
    still.again("query-ext-files, once more")?;
    still.signal(Signal::SIGCONT)?;
    still.end()?.must_pass("crr dump")?;
    let lock = record(&images)?["options"]["network_lock"].clone();
    ensure!(lock != "skip", "the network was not locked: {lock}");
    ensure!(!bed.path("images.failed.log").exists(), "the log of the first attempt is left");
    client.set_read_timeout(Some(SOON))?;
    client.write_all(b"hello")?;
    let mut back = [0; 5];
    client.read_exact(&mut back)?;
    ensure!(&back == b"hello", "{back:?}");
    output.await_numbers(2)
}

fn clients() -> Outcome {
    let dumps = rounds(200);
    let bed = Bed::new(Runc11)?;
    let mut namespace = NetworkNamespace::create(&bed, "net")?;
    let inside = namespace.connect()?.inside;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.namespace("network", Some(&namespace.path()))?;
    bundle.shell(&format!("{SERVER}{}", counter("0.1")));
    let container = bed.run_on("server", &bundle, &output)?;
    output.await_numbers(2)?;
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let client = {
        let (done, answered) = (Arc::clone(&done), Arc::clone(&answered));
        thread::spawn(move || -> io::Result<()> {
            while !done.load(Ordering::SeqCst) {
                ask(inside)?;
                answered.fetch_add(1, Ordering::SeqCst);
                // Long enough for some dumps to find no connection.
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })
    };
    let all = (|| -> Outcome {
        let (mut passed, mut unlocked) = (0, 0);
        for _ in 0..dumps {
            let images = bed.path("images");
            let more = ["--leave-running", "--tcp-established", "--skip-in-flight", "--no-sync", "--no-hash"];
            let ran = dump(&bed, &container, &images, &more)?;
            if ran.passed() {
                passed += 1;
                unlocked += u32::from(record(&images)?["options"]["network_lock"] == "skip");
                fs::remove_dir_all(&images)?;
            } else {
                // A socket that is being closed is none that CRIU can dump.
                ensure!([78, 80].contains(&ran.code), "exit status {}: {}", ran.code, ran.stderr);
            }
            ensure!(!client.is_finished(), "the client has given up");
        }
        ensure!(passed > dumps / 2, "only {passed} dumps passed");
        ensure!(unlocked < passed, "no connection was ever there");
        Ok(())
    })();
    done.store(true, Ordering::SeqCst);
    let client = client.join().map_err(|_| "the client panicked")?;
    all?;
    client.map_err(|error| format!("after {} answers: {error}", answered.load(Ordering::SeqCst)))?;
    ensure!(answered.load(Ordering::SeqCst) > 100, "only {} answers", answered.load(Ordering::SeqCst));
    Ok(())
}

fn ask(inside: Ipv4Addr) -> io::Result<()> {
    let mut client = TcpStream::connect_timeout(&(inside, 7000).into(), Duration::from_secs(30))?;
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    client.write_all(b"ping")?;
    let mut back = [0; 4];
    client.read_exact(&mut back)?;
    if &back == b"ping" { Ok(()) } else { Err(io::Error::other("another answer")) }
}

fn own_network() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let alone = bed.path("alone");
    dump(&bed, &container, &alone, &["--leave-running"])?.must_pass("crr dump without a network")?;
    ensure!(record(&alone)?["container"]["network"] == "empty", "{}", record(&alone)?["container"]["network"]);
    let (bridge, outer) = (format!("cb{}", std::process::id()), format!("cv{}", std::process::id()));
    let pid = container.pid()?.to_string();
    let result = (|| -> Outcome {
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        ip(&["link", "set", &outer, "master", &bridge, "up"])?;
        container.sh("ip addr add 10.98.7.2/24 dev eth0; ip link set eth0 up").or_else(|_| {
            // A container without NET_ADMIN has it done from outside.
            let mut enter = Command::new("nsenter");
            enter.args(["-t", &pid, "-n", "sh", "-c", "ip addr add 10.98.7.2/24 dev eth0; ip link set eth0 up"]);
            Running::start(&mut enter)?.end(LIMIT)?.must_pass("nsenter").map(|ran| ran.stdout)
        })?;
        let images = bed.path("images");
        dump(&bed, &container, &images, &[])?.must_pass("crr dump with a network")?;
        let recorded = record(&images)?["container"].clone();
        ensure!(recorded["network"] == "dumped", "{}", recorded["network"]);
        let link = &recorded["interfaces"][0];
        ensure!(link["name"] == "eth0" && link["peer"] == *outer && link["bridge"] == *bridge, "{link}");
        ensure!(link["addresses"].to_string().contains("10.98.7.2/24"), "{link}");
        let has = |start: &str| {
            let names = fs::read_dir(&images).into_iter().flatten().flatten();
            names.filter(|entry| entry.file_name().to_string_lossy().starts_with(start)).count() > 0
        };
        ensure!(has("netdev-") && has("ifaddr-"), "the network is not in the images");
        is_gone(&container)
    })();
    let _ = ip(&["link", "del", &outer]);
    let _ = ip(&["link", "del", &bridge]);
    result
}

fn given_network() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let mut namespace = NetworkNamespace::create(&bed, "net")?;
    namespace.connect()?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.namespace("network", Some(&namespace.path()))?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let images = bed.path("images");
    dump(&bed, &container, &images, &[])?.must_pass("crr dump")?;
    let recorded = record(&images)?;
    ensure!(recorded["container"]["network"] == "external", "{}", recorded["container"]["network"]);
    ensure!(recorded["options"]["external"].to_string().contains(":extRootNetNS"), "{}", recorded["options"]);
    is_gone(&container)?;
    let restored = bed.restore("one", &bundle, &images, &[], &output)?;
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    restored.obeys_its_runtime(&output)
}

/// It is refused with the status of the preflight and the word, and runs on.
fn is_refused(bed: &Bed, container: &Container, output: &Output, word: &str) -> Outcome {
    let images = bed.path("refused");
    let state = state_of(bed, container)?;
    let ran = dump(bed, container, &images, &[])?.must_exit(78, "a dump that could not be restored")?;
    ensure!(ran.stderr.contains(word), "{} lacks {word}", ran.stderr);
    ensure!(!images.exists(), "a directory is left");
    runs_on(container, output, &state, bed)
}

fn namespace_gone() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let namespace = NetworkNamespace::create(&bed, "net")?;
    let path = namespace.path();
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.namespace("network", Some(&path))?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    drop(namespace);
    is_refused(&bed, &container, &output, path.to_str().ok_or("no UTF-8")?)
}

fn rootfs_gone() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let (rootfs, away) = (bundle.path().join("rootfs"), bundle.path().join("away"));
    fs::rename(&rootfs, &away)?;
    let refused = is_refused(&bed, &container, &output, "is no directory");
    fs::rename(&away, &rootfs)?;
    refused
}
