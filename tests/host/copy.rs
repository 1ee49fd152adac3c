//! `crr restore --new-pid-ns`: copies of a tree beside it, which take nothing from it and leave nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crr::{Ran, Running};
use crate::kill::paused::{KILLED, Paused, children};
use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::victim::{Victim, state};
use crate::{Outcome, crr, dumped, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("three_copies_run_beside_their_original_and_take_nothing_from_it", NEEDS, three),
        test("copies_of_a_program_that_forks_count_on_beside_it", NEEDS, forking),
        test("a_log_that_has_grown_is_as_long_as_it_was_in_a_copy", NEEDS, grown),
        test("a_copy_in_the_foreground_ends_as_its_root_does", NEEDS, foreground),
        test("a_copy_ends_with_its_last_process", NEEDS, last_process),
        test("a_copy_whose_foreground_crr_was_killed_runs_on_and_leaves_nothing_at_its_end", NEEDS, orphaned),
        test("a_copy_of_what_crr_run_started_writes_its_log_where_it_is_told", NEEDS, run),
        test("connections_of_the_original_are_closed_in_its_copy", NEEDS, || beside("tcp_inside", CLOSED)),
        test("a_copy_with_shared_files_says_what_it_takes", NEEDS, shared),
        test("what_contradicts_a_copy_is_refused", NEEDS, contradictions),
        test("a_copy_that_criu_refuses_leaves_nothing", NEEDS, refused),
    ];
    for situation in SITUATIONS {
        trials.push(test(format!("beside_a_copy::{situation}"), NEEDS, move || beside(situation, &[])));
    }
    for step in ["pre-restore", "post-restore", "pre-resume"] {
        for kill in ["crr", "criu", "ctrl-c"] {
            trials.push(test(format!("a_copy_leaves_nothing::{kill}_at_{step}"), NEEDS, move || killed(step, kill)));
        }
    }
    trials
}

/// What the kernel has but once on a host, or what overlays might change.
const SITUATIONS: [&str; 12] = [
    "controlling_terminal_inside",
    "deleted_directory",
    "file_on_overlay",
    "flock_exclusive",
    "inotify",
    "packet",
    "posix_timer",
    "pty_pair",
    "tcp_listen6",
    "udp_connected",
    "unix_listen_abstract",
    "unix_listen_relative",
];

/// A dump that keeps connections, without a lock on the network that would outlast the test.
const CLOSED: &[&str] = &["--tcp-established", "--network-lock", "skip"];

/// A copy under way, by its root. Dropping it ends all of it.
struct Copy {
    root: i32,
    namespace: PathBuf,
}

impl Copy {
    fn of(images: &Path, more: &[&str]) -> Result<(Self, Ran), Failed> {
        let place = tempfile::tempdir()?;
        let pidfile = place.path().join("pid");
        let mut command = crr::command();
        command.args(["restore", "--new-pid-ns", "-d", "--dir"]).arg(images).arg("--pidfile").arg(&pidfile).args(more);
        let ran = Running::start(&mut command)?.end(SOON)?.must_pass("crr restore --new-pid-ns")?;
        let root: i32 = fs::read_to_string(&pidfile)?.trim().parse()?;
        ensure!(ran.stdout == format!("{root}\n"), "crr said {:?}, and the pidfile {root}", ran.stdout);
        Ok((Self::with(root)?, ran))
    }

    fn with(root: i32) -> Result<Self, Failed> {
        let namespace = fs::read_link(format!("/proc/{root}/ns/pid"))?;
        ensure!(namespace != fs::read_link("/proc/self/ns/pid")?, "PID {root} is in the PID namespace of the host");
        Ok(Self { root, namespace })
    }

    /// A path of the host as the copy sees it.
    fn path(&self, path: &Path) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.root)).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// All processes of the copy, the first of its namespace too.
    fn processes(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|namespace| namespace == self.namespace)
        })
        .collect()
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(self.root), signal)?)
    }

    /// Asks the root by SIGUSR1 to look at its own state.
    fn self_check(&self, output: &Path) -> Outcome {
        let output = self.path(output);
        let before = fs::read(&output)?.len();
        self.signal(Signal::SIGUSR1)?;
        let answer = until("an answer of the copy", SOON, || {
            let text = fs::read_to_string(&output).ok()?;
            text.get(before..)?.lines().find(|line| *line == "ok" || line.starts_with("BAD ")).map(str::to_owned)
        })?;
        ensure!(answer == "ok", "the copy says: {answer}");
        Ok(())
    }

    fn await_gone(&self) -> Outcome {
        until("the end of the copy", SOON, || self.processes().is_empty().then_some(()))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        for pid in self.processes() {
            // It may have ended with another.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// What the server at this socket says of itself: its number, and how many answers it has given.
fn ask(socket: &Path) -> Result<(u32, u32), Failed> {
    let mut stream = UnixStream::connect(socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    stream.set_read_timeout(Some(SOON))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let words: Vec<&str> = said.split_whitespace().collect();
    match words[..] {
        ["ok", seed, answers] => Ok((seed.parse()?, answers.parse()?)),
        _ => Err(format!("{} said {said:?}", socket.display()).into()),
    }
}

/// What is at each of these places.
fn snapshots(places: &[&Path]) -> Result<Vec<BTreeMap<PathBuf, String>>, Failed> {
    places.iter().map(|place| dumped::snapshot(place)).collect()
}

/// The overlays that the tests' own namespace has, and what is mounted below a directory. Tests beside this one mount, too.
fn mounts(directory: &Path) -> Result<Vec<String>, Failed> {
    let all = fs::read_to_string("/proc/self/mountinfo")?;
    let below = directory.display().to_string();
    let is_ours = |line: &&str| line.contains(&below) || line.contains(" - overlay ");
    Ok(all.lines().filter(is_ours).map(str::to_owned).collect())
}

fn start(program: &str, words: &[&str]) -> Result<Victim, Failed> {
    let victim = Victim::start(&programs::program(program)?, words)?;
    victim.await_ticks(2)?;
    Ok(victim)
}

fn dump_running(victim: &Victim, more: &[&str]) -> Outcome {
    crr::dump(victim.pid(), &victim.images(), &[&["--leave-running"], more].concat())?.must_pass("crr dump")?;
    Ok(())
}

fn three() -> Outcome {
    let mut victim = start("served", &[])?;
    let (images, work) = (victim.images(), victim.work());
    let socket = work.join("socket");
    let (seed, _) = ask(&socket)?;
    let tree = victim.tree();
    dump_running(&victim, &[])?;
    let mounted = mounts(victim.directory())?;
    let before = snapshots(&[&images, &work])?;
    let mut copies = Vec::new();
    for number in 1..=3 {
        let (copy, _) = Copy::of(&images, &[])?;
        ensure!(copy.root != victim.pid(), "crr gave the PID of the original");
        // Each goes on where the dump was, with the memory it had.
        ensure!(ask(&copy.path(&socket))? == (seed, 2), "copy {number} is another program, or was asked before");
        copies.push(copy);
    }
    for (number, copy) in (1..).zip(&copies) {
        ensure!(ask(&copy.path(&socket))? == (seed, 3), "copy {number} was asked in another's place");
        copy.self_check(&victim.directory().join("output"))?;
        ensure!(copy.processes().len() == tree.len() + 1, "copy {number} consists of {:?}", copy.processes());
    }
    // The original has not been asked so far: that changes the time of its named pipe.
    let after = snapshots(&[&images, &work])?;
    ensure!(before == after, "changed outside the copies:\n{before:#?}\n{after:#?}");
    ensure!(ask(&socket)? == (seed, 2), "the original lost count");
    victim.self_check()?;
    victim.ticks_without_gap()?;
    let before = snapshots(&[&images, &work])?;
    // One ends by itself, and the others at once.
    copies[0].signal(Signal::SIGTERM)?;
    copies[0].await_gone()?;
    ensure!(ask(&copies[1].path(&socket))?.0 == seed, "the end of one copy ended another");
    copies.clear();
    let (after, mounted_now) = (snapshots(&[&images, &work])?, mounts(victim.directory())?);
    ensure!(before == after, "changed outside the copies:\n{before:#?}\n{after:#?}");
    ensure!(mounted == mounted_now, "mounts are left:\n{mounted_now:#?}");
    ensure!(ask(&socket)? == (seed, 3), "the original lost count");
    victim.kill_all()?;
    victim.await_gone(&tree)?;
    crr::restore(&images, &[])?.must_pass("a plain restore after the copies")?;
    ensure!(ask(&socket)? == (seed, 2), "the plain restore is not of the dump");
    victim.self_check()?;
    victim.end()
}

fn forking() -> Outcome {
    let victim = start("tree", &["3"])?;
    let output = victim.directory().join("output");
    dump_running(&victim, &[])?;
    let copies = [Copy::of(&victim.images(), &[])?.0, Copy::of(&victim.images(), &[])?.0];
    for copy in &copies {
        copy.self_check(&output)?;
        ensure!(copy.processes().len() == 4, "the copy consists of {:?}", copy.processes());
    }
    victim.await_ticks(3)?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    for copy in &copies {
        copy.self_check(&output)?;
        copy.signal(Signal::SIGTERM)?;
        copy.await_gone()?;
    }
    ensure!(!victim.output().contains("end"), "a copy wrote to the original's output");
    victim.self_check()?;
    victim.end()
}

/// The numbers in a file, which must follow one another from 1 on; the last of them.
fn counted(path: &Path) -> Result<usize, Failed> {
    let text = fs::read_to_string(path)?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for (number, line) in (1..).zip(whole.lines()) {
        ensure!(line == number.to_string(), "line {number} of {} is {line:?}", path.display());
    }
    Ok(whole.lines().count())
}

fn grown() -> Outcome {
    let script = "exec > log; echo ready >&2; i=0; while :; do i=$((i + 1)); echo $i; sleep 0.01; done";
    let victim = Victim::start(Path::new("sh"), &["-c", script])?;
    let log = victim.work().join("log");
    let reaches = |path: &Path, wanted: usize| {
        until(format_args!("{wanted} lines in {}", path.display()), SOON, || match counted(path) {
            Ok(lines) => (lines >= wanted).then_some(Ok(())),
            Err(failed) => Some(Err(failed)),
        })?
    };
    reaches(&log, 5)?;
    dump_running(&victim, &[])?;
    let at_dump = counted(&log)?;
    reaches(&log, at_dump + 5)?;
    let (copy, ran) = Copy::of(&victim.images(), &[])?;
    ensure!(ran.stderr.contains("has grown since the dump"), "nothing was said: {}", ran.stderr);
    reaches(&copy.path(&log), at_dump + 5)?;
    reaches(&log, at_dump + 10)
}

fn foreground() -> Outcome {
    let victim = start("tree", &["3"])?;
    dump_running(&victim, &[])?;
    let output = victim.directory().join("output");
    for (signal, code) in [(Signal::SIGTERM, 7), (Signal::SIGKILL, 137)] {
        let (crr, copy) = in_foreground(&victim)?;
        copy.self_check(&output)?;
        if signal == Signal::SIGTERM {
            // By way of crr.
            kill(Pid::from_raw(crr.pid()), signal)?;
        } else {
            copy.signal(signal)?;
        }
        crr.end(SOON)?.must_exit(code, "crr restore --new-pid-ns in the foreground")?;
        // With the root's end its children are orphans, and run on, as they would on the host.
        let left = copy.processes();
        ensure!(left.is_empty() == (code == 7), "left behind: {left:?}");
    }
    victim.self_check()?;
    victim.end()
}

fn in_foreground(victim: &Victim) -> Result<(Running, Copy), Failed> {
    let pidfile = victim.directory().join("pid");
    let mut command = crr::command();
    command.args(["restore", "--new-pid-ns", "--dir"]).arg(victim.images()).arg("--pidfile").arg(&pidfile);
    let mut crr = Running::start(&mut command)?;
    let root = until("the pidfile", SOON, || fs::read_to_string(&pidfile).ok()?.trim().parse().ok());
    let root = root.map_err(|failed| format!("{}\n{}", failed.message().unwrap_or_default(), crr.stderr()))?;
    fs::remove_file(&pidfile)?;
    Ok((crr, Copy::with(root)?))
}

fn last_process() -> Outcome {
    let victim = start("tree", &["3"])?;
    dump_running(&victim, &[])?;
    let (copy, _) = Copy::of(&victim.images(), &[])?;
    let tree = children(copy.root);
    ensure!(tree.len() == 2, "the children of the copy's root: {tree:?}");
    copy.signal(Signal::SIGKILL)?;
    until("the orphans to have the first process as parent", SOON, || {
        (!copy.processes().contains(&copy.root)).then_some(())
    })?;
    let first = copy.processes().into_iter().find(|pid| !tree.contains(pid)).ok_or("the first process has ended")?;
    ensure!(BTreeSet::from_iter(children(first)) == BTreeSet::from_iter(tree.clone()), "the orphans were not taken");
    for pid in tree {
        ensure!(state(first).is_some(), "the first process ended before the last");
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    copy.await_gone()?;
    victim.self_check()?;
    victim.end()
}

fn orphaned() -> Outcome {
    let victim = start("tree", &["2"])?;
    dump_running(&victim, &[])?;
    let (crr, copy) = in_foreground(&victim)?;
    kill(Pid::from_raw(crr.pid()), Signal::SIGKILL)?;
    crr.end(SOON)?.must_exit(KILLED, "crr, which was killed")?;
    copy.self_check(&victim.directory().join("output"))?;
    copy.signal(Signal::SIGTERM)?;
    copy.await_gone()?;
    victim.self_check()?;
    victim.end()
}

/// A program in a cgroup of its own, for which CRIU mounts file systems below its working directory.
fn run() -> Outcome {
    let place = tempfile::tempdir()?;
    let at = |name: &str| place.path().join(name);
    let [log, pidfile, images] = ["log", "pid", "images"].map(at);
    let program = programs::program("tree")?;
    let mut command = crr::command();
    command.args(["run", "-d", "--log"]).arg(&log).arg("--pidfile").arg(&pidfile).arg("--").arg(&program).arg("3");
    Running::start(&mut command)?.end(SOON)?.must_pass("crr run")?;
    let pid: i32 = fs::read_to_string(&pidfile)?.trim().parse()?;
    let original = Original(pid);
    until("the program to be ready", SOON, || fs::read_to_string(&log).ok()?.contains("ready").then_some(()))?;
    crr::dump(pid, &images, &["--leave-running"])?.must_pass("crr dump")?;
    let (copy, _) = Copy::of(&images, &[])?;
    copy.self_check(&log)?;
    let work = at("work");
    fs::create_dir(&work)?;
    let words = ["--work-dir", work.to_str().ok_or("no UTF-8")?, "--log-file", "its.log", "-v4"];
    let (second, _) = Copy::of(&images, &words)?;
    second.self_check(&log)?;
    ensure!(fs::metadata(work.join("its.log"))?.len() > 0, "the log is not where it should be");
    drop((copy, second, original));
    Ok(())
}

/// A program that is no [`Victim`]; dropping it kills it and its children.
struct Original(i32);

impl Drop for Original {
    fn drop(&mut self) {
        for pid in children(self.0).into_iter().chain([self.0]) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A situation and a copy of it side by side.
fn beside(situation: &str, options: &[&str]) -> Outcome {
    let victim = dumped::start(situation)?;
    dump_running(&victim, options)?;
    let (copy, ran) = Copy::of(&victim.images(), &[])?;
    if options == CLOSED {
        ensure!(ran.stderr.contains("the copy finds them closed"), "nothing was said: {}", ran.stderr);
    } else {
        copy.self_check(&victim.directory().join("output"))?;
    }
    victim.self_check()?;
    drop(copy);
    victim.self_check()
}

fn shared() -> Outcome {
    let mut victim = start("served", &[])?;
    let (images, tree) = (victim.images(), victim.tree());
    let socket = victim.work().join("socket");
    dump_running(&victim, &[])?;
    let (copy, ran) = Copy::of(&images, &["--share-files"])?;
    for name in ["socket", "fifo", "deleted", "unlinked"] {
        let path = victim.work().join(name);
        ensure!(ran.stderr.contains(&format!("`{}`", path.display())), "{name} is not named:\n{}", ran.stderr);
    }
    // It is the copy that answers now, by the one path there is.
    let (seed, answers) = ask(&socket)?;
    ensure!(ask(&copy.path(&socket))? == (seed, answers + 1), "the copy did not take the socket");
    drop(copy);
    victim.kill_all()?;
    victim.await_gone(&tree)
}

fn contradictions() -> Outcome {
    let victim = start("tree", &["1"])?;
    dump_running(&victim, &[])?;
    let table: [&[&str]; 6] = [
        &["--new-pid-ns", "--tcp-established"],
        &["--new-pid-ns", "--shell-job"],
        &["--new-pid-ns", "--root", "/"],
        &["--new-pid-ns", "--join-ns", "net:1"],
        &["--new-pid-ns", "--container", "copy-of-a-process"],
        &["--share-files"],
    ];
    for words in table {
        crr::restore(&victim.images(), words)?.must_exit(64, &format!("crr restore {words:?}"))?;
    }
    ensure!(victim.processes() == [victim.pid()], "something was made: {:?}", victim.processes());
    victim.end()
}

fn refused() -> Outcome {
    let victim = start("tree", &["2"])?;
    dump_running(&victim, &[])?;
    let (before, mounted) = (victim.processes(), mounts(victim.directory())?);
    let words = ["--new-pid-ns", "--lsm-profile", "selinux:nobody:nobody:nobody"];
    let ran = crr::restore(&victim.images(), &words)?;
    ensure!(ran.code == 81, "crr restore {words:?}: {ran:?}");
    // The log is taken out of a mount namespace that goes with the copy.
    ensure!(ran.stderr.contains("security module"), "the cause is not told: {}", ran.stderr);
    ensure!(
        victim.processes() == before && mounts(victim.directory())? == mounted,
        "something is left: {:?}",
        victim.processes()
    );
    victim.self_check()?;
    victim.end()
}

/// Kills at a step of a copy's restore.
fn killed(step: &str, what: &str) -> Outcome {
    let victim = start("tree", &["2"])?;
    dump_running(&victim, &[])?;
    let before = BTreeSet::from_iter(victim.processes());
    let mut command: Command = crr::command();
    command.args(["restore", "--new-pid-ns", "-d", "--dir"]).arg(victim.images());
    let paused = Paused::start(&mut command, step)?;
    let made = children(paused.pid());
    ensure!(made.len() == 2, "crr has the children {made:?}, and not a first process and CRIU");
    let is_criu = |pid: &&i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name != "crr-init\n");
    let criu = *made.iter().find(is_criu).ok_or("no CRIU")?;
    match what {
        "crr" => {
            paused.signal(Signal::SIGKILL)?;
            paused.go_on()?.must_exit(KILLED, "crr, which was killed")?;
        }
        "criu" => {
            kill(Pid::from_raw(criu), Signal::SIGKILL)?;
            let ran = paused.go_on()?;
            ensure!(ran.code == 76 || (step == "pre-resume" && ran.passed()), "without its CRIU crr said {ran:?}");
        }
        _ => {
            paused.signal(Signal::SIGINT)?;
            paused.go_on()?.must_exit(82, "crr, after Ctrl-C")?;
        }
    }
    let is_gone = |pid: &i32| matches!(state(*pid), None | Some('Z' | 'X'));
    let may_run = what == "criu" && step == "pre-resume";
    until("the end of the copy", SOON, || {
        let left: Vec<i32> = victim.processes().into_iter().filter(|pid| !before.contains(pid)).collect();
        (may_run || (left.is_empty() && made.iter().all(is_gone))).then_some(())
    })?;
    victim.self_check()?;
    victim.ticks_without_gap()?;
    let (copy, _) = Copy::of(&victim.images(), &[])?;
    copy.self_check(&victim.directory().join("output"))
}
