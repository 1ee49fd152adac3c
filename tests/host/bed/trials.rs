//! The bed itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::crr::Running;
use crate::need::Need::{self, Cc, Criu, Netns, Nft, Python3, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::load::{self, Clients};
use super::{Bed, Cut, Host};

pub(crate) const HOSTS: &[Need] = &[Root, Netns];
const MOVING: &[Need] = &[Root, Netns, Criu, Cc];
const TALKING: &[Need] = &[Root, Netns, Criu, Python3, Nft];

/// The first word of the helper that makes a bed and waits to be killed.
pub(super) const ABANDON: &str = "bed-abandon";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("bed::each_host_has_files_and_names_of_its_own", HOSTS, own_files),
        test("bed::pids_begin_at_the_hosts_number_and_orphans_are_reaped", HOSTS, pids),
        test("bed::a_cut_host_hears_nothing_until_it_is_healed", &[Root, Netns, Python3], cut),
        test("bed::a_limited_cable_is_slow", &[Root, Netns, Python3], limited),
        test("bed::two_beds_side_by_side_do_not_meet", &[Root, Netns, Python3], side_by_side),
        test("bed::criu_moves_a_process_from_host_to_host", MOVING, moved),
        test("bed::criu_moves_connections_from_host_to_host", TALKING, connected),
        test("bed::nothing_is_left_of_a_bed_that_was_dropped", HOSTS, dropped),
        test("bed::nothing_is_left_of_a_bed_whose_test_was_killed", HOSTS, abandoned),
    ]
}

fn own_files() -> Outcome {
    let bed = Bed::new(&["a", "b"], &[])?;
    let (a, b) = (bed.host("a"), bed.host("b"));
    ensure!(a.sh("hostname; cat /sys/class/net/eth0/ifindex")?.starts_with("a\n"), "{:?}", a.sh("hostname"));
    for place in ["/run", "/tmp", "/dev/shm", "/etc", "/root", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified"] {
        if !a.path(place).is_dir() {
            continue;
        }
        let made = format!("{place}/crr-bed-was-here");
        a.sh(&format!("mkdir {made}"))?;
        ensure!(a.path(&made).is_dir(), "{made} is not there");
        ensure!(!b.path(&made).exists() && !Path::new(&made).exists(), "{made} is not the host's own");
    }
    let version = Running::start_prepared(a.crr().arg("--version"))?.end(SOON)?.must_pass("crr --version")?.stdout;
    ensure!(version.starts_with("crr "), "crr said {version}");
    let cgroups = a.sh("cat /proc/self/cgroup")?;
    ensure!(cgroups.lines().all(|line| line.ends_with(":/")), "not all are roots: {cgroups}");
    Ok(())
}

fn pids() -> Outcome {
    let bed = Bed::new(&["a", "b"], &[])?;
    let b = bed.host("b");
    let first = b.spawn("/tmp/out", ["sleep", "1000"])?;
    ensure!((2000..2100).contains(&first.pid), "the first PID is {}", first.pid);
    let orphan: i32 = b.sh("sh -c 'sleep 0.05 & echo $!'")?.trim().parse()?;
    b.await_gone(orphan)?;
    b.kill(first.pid, "KILL")?;
    b.await_gone(first.pid)
}

/// Whether one host reaches another by TCP at this moment.
fn reaches(from: &Host, to: &Host, port: u16) -> Result<bool, Failed> {
    let line = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.3)";
    let to = to.address().to_string();
    Ok(from.run(["python3", "-c", line, &to, &port.to_string()])?.passed())
}

fn cut() -> Outcome {
    let bed = Bed::new(&["a", "b", "client"], &[])?;
    let (b, client) = (bed.host("b"), bed.host("client"));
    load::echo_server(b, "10.77.0.2", 7000)?;
    ensure!(reaches(client, b, 7000)?, "the client does not reach b");
    for way in [Cut::Cable, Cut::Silence] {
        b.cut(way)?;
        ensure!(!reaches(client, b, 7000)?, "the client reaches b, which is cut off ({way:?})");
        let carrier = b.read("/sys/class/net/eth0/carrier");
        ensure!((carrier.trim() == "1") == (way == Cut::Silence), "{way:?}: the carrier is {carrier}");
        b.heal()?;
        until("the client to reach b again", SOON, || reaches(client, b, 7000).unwrap_or(false).then_some(()))?;
    }
    Ok(())
}

fn limited() -> Outcome {
    let bed = Bed::new(&["a", "b"], &[])?;
    let (a, b) = (bed.host("a"), bed.host("b"));
    load::echo_server(a, "fd77::1", 7000)?;
    let clients = Clients::start(b, "fd77::1", 7000, &["busy=0", "large=1"])?;
    b.limit(Some("8mbit"))?;
    let start = Instant::now();
    clients.await_answers(6)?;
    // 600 kB each way at 1 MB/s, less what the burst and the buffers take.
    ensure!(start.elapsed() > Duration::from_millis(300), "six messages took {:?}", start.elapsed());
    b.limit(None)?;
    let start = Instant::now();
    clients.await_answers(30)?;
    ensure!(start.elapsed() < SOON, "thirty messages took {:?}", start.elapsed());
    clients.end().map(drop)
}

fn side_by_side() -> Outcome {
    let (one, other) = (Bed::new(&["a", "b"], &[])?, Bed::new(&["a", "b"], &[])?);
    load::echo_server(one.host("a"), "10.77.0.1", 7000)?;
    ensure!(reaches(one.host("b"), one.host("a"), 7000)?, "b does not reach a");
    ensure!(!reaches(other.host("b"), other.host("a"), 7000)?, "b reaches the other bed's a");
    drop(one);
    ensure!(other.host("a").sh("hostname")? == "a\n", "the other bed went with the first");
    Ok(())
}

/// Copies a directory from one host to another.
pub(crate) fn copy(from: &Host, to: &Host, directory: &str) -> Outcome {
    fs::create_dir_all(to.path(directory))?;
    for entry in fs::read_dir(from.path(directory))? {
        let entry = entry?;
        fs::copy(entry.path(), to.path(directory).join(entry.file_name()))?;
    }
    Ok(())
}

fn moved() -> Outcome {
    let bed = Bed::new(&["a", "b"], &["selfcheck"])?;
    let (a, b) = (bed.host("a"), bed.host("b"));
    let process = load::selfcheck(a, "/tmp/out", 8)?;
    let pid = process.pid.to_string();
    for (from, to) in [(a, b), (b, a)] {
        from.sh("mkdir -p /tmp/img")?;
        from.criu("dump", "/tmp/img", &["-t", &pid])?.must_pass("criu dump")?;
        from.await_gone(process.pid)?;
        copy(from, to, "/tmp/img")?;
        fs::copy(from.path("/tmp/out"), to.path("/tmp/out"))?;
        to.criu("restore", "/tmp/img", &["-d"])?.must_pass("criu restore")?;
        load::await_steps(to, &process, 2)?;
        from.sh("rm -r /tmp/img /tmp/out")?;
    }
    a.kill(process.pid, "KILL")
}

fn connected() -> Outcome {
    let bed = Bed::new(&["a", "b", "client"], &[])?;
    let (a, b, client) = (bed.host("a"), bed.host("b"), bed.host("client"));
    a.add_address("10.77.0.100/32")?;
    let server = load::echo_server(a, "10.77.0.100", 7000)?;
    let clients =
        Clients::start(client, "10.77.0.100", 7000, &["busy=3", "large=1", "idle=2", "half=1", "datagrams=1"])?;
    a.sh("mkdir /tmp/img")?;
    let tcp = ["--tcp-established", "--network-lock", "nftables"];
    a.criu("dump", "/tmp/img", &[&["-t", &server.pid.to_string()], &tcp[..]].concat())?.must_pass("criu dump")?;
    let fence = "table inet fence { chain in { type filter hook input priority -10; ip daddr 10.77.0.100 meta l4proto tcp \
                 meta mark != 0xC114 drop; }; chain out { type filter hook output priority -10; ip saddr 10.77.0.100 \
                 meta l4proto tcp meta mark != 0xC114 drop; }; }";
    a.sh("ip addr del 10.77.0.100/32 dev eth0")?;
    b.sh(&format!("nft '{fence}'; ip addr add 10.77.0.100/32 dev eth0"))?;
    copy(a, b, "/tmp/img")?;
    fs::copy(a.path(&server.output), b.path(&server.output))?;
    b.criu("restore", "/tmp/img", &["-d", "--tcp-established"])?.must_pass("criu restore")?;
    b.sh("nft delete table inet fence; busybox arping -q -U -c 1 -I eth0 -s 10.77.0.100 10.77.0.100 || true")?;
    clients.await_answers(20)?;
    clients.end().map(drop)
}

/// What of a bed can be seen from outside: its processes and cgroups.
struct Traces {
    processes: Vec<PathBuf>,
    cgroups: Vec<PathBuf>,
}

impl Traces {
    fn of(bed: &Bed) -> Self {
        let inits = bed.hosts.iter().map(|host| PathBuf::from(format!("/proc/{}", host.init)));
        let keeper = PathBuf::from(format!("/proc/{}", bed.keeper.id()));
        let cgroups = bed.hosts.iter().flat_map(|host| host.entries.iter());
        let directory = |entry: &std::ffi::CString| Some(Path::new(entry.to_str().ok()?).parent()?.to_owned());
        Self { processes: inits.chain([keeper]).collect(), cgroups: cgroups.filter_map(directory).collect() }
    }

    fn must_go(&self) -> Outcome {
        until("all of a bed to be gone", SOON, || {
            let mut all = self.processes.iter().chain(&self.cgroups);
            all.all(|path| !path.exists()).then_some(())
        })
        .map_err(|failed| {
            let left: Vec<_> = self.processes.iter().chain(&self.cgroups).filter(|path| path.exists()).collect();
            format!("{}: {left:?}", failed.message().unwrap_or_default()).into()
        })
    }
}

/// A host with what is hard to end: a frozen task, and a cgroup below its own.
fn with_frozen_task() -> Result<(Bed, Traces), Failed> {
    let bed = Bed::new(&["a", "b"], &[])?;
    let a = bed.host("a");
    let process = a.spawn("/tmp/out", ["sleep", "1000"])?;
    a.sh(&format!(
        "cd /sys/fs/cgroup; for f in freezer/x:freezer.state:FROZEN unified/x:cgroup.freeze:1; do d=${{f%%:*}}; r=${{f#*:}}; \
         [ -d ${{d%/x}} ] || continue; mkdir $d; echo {} >$d/cgroup.procs; echo ${{r#*:}} >$d/${{r%:*}}; done",
        process.pid
    ))?;
    let traces = Traces::of(&bed);
    ensure!(traces.processes.iter().chain(&traces.cgroups).all(|path| path.exists()), "the traces are wrong");
    Ok((bed, traces))
}

fn dropped() -> Outcome {
    let (bed, traces) = with_frozen_task()?;
    drop(bed);
    traces.must_go()
}

fn abandoned() -> Outcome {
    let mut command = Command::new(std::env::current_exe()?);
    let mut running = Running::start(command.arg(ABANDON))?;
    let said = until("a bed of another process", SOON, || {
        let said = running.stderr();
        said.contains("up\n").then_some(said)
    })?;
    let paths: Vec<PathBuf> = said.lines().filter(|line| line.starts_with('/')).map(PathBuf::from).collect();
    ensure!(paths.len() > 3 && paths.iter().all(|path| path.exists()), "the bed is not there: {paths:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(-running.pid()), nix::sys::signal::Signal::SIGKILL)?;
    drop(running);
    Traces { processes: paths, cgroups: Vec::new() }.must_go()
}

/// The helper of [`abandoned`]: makes a bed, and is killed with it.
pub(super) fn abandon() -> Outcome {
    let (_bed, traces) = with_frozen_task()?;
    traces.processes.iter().chain(&traces.cgroups).for_each(|path| eprintln!("{}", path.display()));
    eprintln!("up");
    loop {
        std::thread::park();
    }
}
