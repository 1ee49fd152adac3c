//! Trees that are held, put back and ended, without CRIU.

use libtest_mimic::{Failed, Trial};

use super::hand::Hand;
use super::{PORT, SERVICE, TAG};
use crate::bed::{Bed, Clients, Host, await_steps, echo_server, selfcheck};
use crate::need::Need::{self, Cc, Cgroups, Netns, Python3, Root};
use crate::until::until;
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Root, Netns, Cc, Cgroups];
const TALKING: &[Need] = &[Root, Netns, Python3, Cgroups];

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in versions() {
        trials.extend([
            test(format!("held::a_tree_is_held_and_put_back_v{version}"), NEEDS, move || put_back(version)),
            test(format!("held::a_tree_with_a_cgroup_for_itself_stays_there_v{version}"), NEEDS, move || own(version)),
            test(format!("held::a_hold_without_its_plan_is_found_and_ended_v{version}"), NEEDS, move || found(version)),
            test(format!("held::the_end_of_a_held_tree_is_silent_v{version}"), TALKING, move || silent(version)),
        ]);
    }
    trials.push(test("held::orphans_of_a_killed_tree_are_ended", TALKING, orphans));
    trials
}

/// The versions of cgroups by which this machine can freeze.
pub(super) fn versions() -> Vec<&'static str> {
    let layout = ::crr::host::cgroup::Layout::read().unwrap_or_default();
    let has = |wanted: &str| match wanted {
        "1" => layout.hierarchies.iter().any(|hierarchy| hierarchy.name.split(',').any(|name| name == "freezer")),
        _ => layout.hierarchies.iter().any(::crr::host::cgroup::Hierarchy::is_unified),
    };
    ["1", "2"].into_iter().filter(|version| has(version)).collect()
}

/// The cgroups below the host's own.
pub(super) fn cgroups(host: &Host) -> Result<Vec<String>, Failed> {
    let listed = host.sh("find /sys/fs/cgroup -mindepth 1 -type d")?;
    // Where hierarchies are mounted beside each other, their mount points are no cgroups.
    let is_mount = |path: &str| host.read("/proc/1/mountinfo").contains(&format!(" {path} "));
    Ok(listed.lines().filter(|path| !is_mount(path)).map(str::to_owned).collect())
}

/// The cgroups that a process is in.
fn membership(host: &Host, pid: i32) -> String {
    host.read(format!("/proc/{pid}/cgroup"))
}

fn lines(host: &Host, output: &str) -> usize {
    host.read(output).lines().count()
}

/// Fails if anything is written to a file for a while.
fn must_stand_still(host: &Host, output: &str) -> Outcome {
    let before = lines(host, output);
    let moved = until("a step of a held tree", std::time::Duration::from_millis(200), || {
        (lines(host, output) > before).then_some(())
    });
    ensure!(moved.is_err(), "the held tree runs");
    Ok(())
}

fn put_back(version: &'static str) -> Outcome {
    let bed = Bed::new(&["a"], &["selfcheck"])?;
    let a = bed.host("a");
    let process = selfcheck(a, "/tmp/out", 1)?;
    // A cgroup with somebody else in it.
    let other = a.spawn("/tmp/other", ["sleep", "1000"])?;
    let place = if version == "1" { "freezer" } else { "unified" };
    a.sh(&format!(
        "cd /sys/fs/cgroup; [ ! -d {place} ] || cd {place}; mkdir x; echo {} >x/cgroup.procs; echo {} >x/cgroup.procs",
        process.pid, other.pid
    ))?;
    let before = membership(a, process.pid);
    ensure!(before.contains("/x\n"), "the process is not in its cgroup: {before}");
    let mut hand = Hand::start(a, version)?;
    ensure!(hand.count(&format!("tree {}", process.pid))? == 1, "not one task");
    for _ in 0..2 {
        let at = hand.ask(&format!("plan {TAG}"))?;
        ensure!(at.as_str().is_some_and(|at| at.ends_with(&format!("/crr/migration-{TAG}"))), "held at {at}");
        for _ in 0..2 {
            hand.ask("gather")?;
            hand.ask("freeze")?;
        }
        ensure!(hand.ask("frozen")? == true, "it is not frozen");
        must_stand_still(a, "/tmp/out")?;
        ensure!(a.is_alive(other.pid) && membership(a, other.pid) == before, "the neighbour was moved");
        ensure!(hand.count("release")? == 1, "not one task was put back");
        ensure!(hand.count("release")? == 0, "put back twice");
        ensure!(membership(a, process.pid) == before, "it is in {}", membership(a, process.pid));
        await_steps(a, &process, 1)?;
        let left = cgroups(a)?;
        ensure!(!left.iter().any(|path| path.contains("/crr")), "left: {left:?}");
    }
    Ok(())
}

fn own(version: &'static str) -> Outcome {
    let bed = Bed::new(&["a"], &["selfcheck"])?;
    let a = bed.host("a");
    let process = selfcheck(a, "/tmp/out", 1)?;
    let place = if version == "1" { "freezer" } else { "unified" };
    a.sh(&format!(
        "cd /sys/fs/cgroup; [ ! -d {place} ] || cd {place}; mkdir -p x/y; echo {} >x/y/cgroup.procs",
        process.pid
    ))?;
    let before = membership(a, process.pid);
    let mut hand = Hand::start(a, version)?;
    hand.ask(&format!("tree {}", process.pid))?;
    let at = hand.ask(&format!("plan {TAG}"))?;
    ensure!(at.as_str().is_some_and(|at| at.ends_with("/x/y")), "held at {at}");
    hand.ask("gather")?;
    hand.ask("freeze")?;
    must_stand_still(a, "/tmp/out")?;
    ensure!(membership(a, process.pid) == before, "it was moved");
    hand.ask("release")?;
    await_steps(a, &process, 1)?;
    hand.ask("end")?;
    a.await_gone(process.pid)?;
    ensure!(
        a.path("/sys/fs/cgroup").exists() && cgroups(a)?.iter().any(|path| path.ends_with("/x/y")),
        "it took a cgroup along"
    );
    Ok(())
}

fn found(version: &'static str) -> Outcome {
    let bed = Bed::new(&["a"], &["selfcheck"])?;
    let a = bed.host("a");
    let processes = [selfcheck(a, "/tmp/one", 1)?, selfcheck(a, "/tmp/other", 1)?];
    for (process, ending) in processes.iter().zip(["release", "end"]) {
        let mut hand = Hand::start(a, version)?;
        hand.ask(&format!("tree {}", process.pid))?;
        hand.ask(&format!("plan {TAG}"))?;
        hand.ask("gather")?;
        hand.ask("freeze")?;
        let pid = i32::try_from(hand.count("pid")?)?;
        a.kill(pid, "KILL")?;
        drop(hand);
        must_stand_still(a, &process.output)?;
        let mut next = Hand::start(a, version)?;
        ensure!(next.ask(&format!("find {TAG}"))? == true, "the next does not find it");
        next.ask(ending)?;
        match ending {
            "release" => await_steps(a, process, 1)?,
            _ => a.await_gone(process.pid)?,
        }
        ensure!(next.ask(&format!("find {TAG}"))? == false, "it is still found");
        ensure!(cgroups(a)?.is_empty(), "left: {:?}", cgroups(a));
    }
    Ok(())
}

/// The TCP sockets of the host at the moving address, but listening ones and those that wait for late packets.
pub(super) fn sockets(host: &Host) -> Result<Vec<String>, Failed> {
    let listed = host.sh(&format!("ss -Htan exclude listening exclude time-wait src {SERVICE}"))?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn silent(version: &'static str) -> Outcome {
    let bed = Bed::new(&["a", "client"], &[])?;
    let (a, client) = (bed.host("a"), bed.host("client"));
    a.add_address(&format!("{SERVICE}/32"))?;
    let server = echo_server(a, SERVICE, PORT)?;
    let clients = Clients::start(client, SERVICE, PORT, &["busy=4", "large=2", "idle=2", "half=2"])?;
    let mut hand = Hand::start(a, version)?;
    hand.ask(&format!("tree {}", server.pid))?;
    hand.ask(&format!("plan {TAG}"))?;
    hand.ask("gather")?;
    hand.ask("freeze")?;
    ensure!(sockets(a)?.len() == 10, "not ten sockets: {:?}", sockets(a));
    // What comes to nobody's socket is answered with a reset: that is what the fence is for.
    hand.ask(&format!("fence target {SERVICE}"))?;
    hand.ask("end")?;
    hand.ask("end")?;
    a.await_gone(server.pid)?;
    ensure!(sockets(a)?.is_empty(), "sockets are left: {:?}", sockets(a));
    ensure!(
        clients.stand_still()? && clients.report()?.lost == 0,
        "the clients have heard of it: {:?}",
        clients.report()
    );
    ensure!(cgroups(a)?.is_empty(), "left: {:?}", cgroups(a));
    Ok(())
}

fn orphans() -> Outcome {
    let bed = Bed::new(&["a", "client"], &[])?;
    let (a, client) = (bed.host("a"), bed.host("client"));
    a.add_address(&format!("{SERVICE}/32"))?;
    let server = echo_server(a, SERVICE, PORT)?;
    let clients = Clients::start(client, SERVICE, PORT, &["busy=0", "idle=4", "half=2"])?;
    // Another server's connections, which are none of theirs.
    echo_server(a, "10.77.0.1", PORT)?;
    let others = Clients::start(client, "10.77.0.1", PORT, &["busy=2"])?;
    let mut hand = Hand::start(a, "")?;
    hand.ask(&format!("fence target {SERVICE}"))?;
    a.kill(server.pid, "KILL")?;
    a.await_gone(server.pid)?;
    ensure!(!sockets(a)?.is_empty(), "a plain kill leaves no orphans: there is nothing to be shown here");
    let ended = hand.count(&format!("orphans {SERVICE}"))?;
    ensure!(ended > 0 && sockets(a)?.is_empty(), "{ended} ended, left: {:?}", sockets(a));
    ensure!(hand.count(&format!("orphans {SERVICE}"))? == 0, "there were more");
    ensure!(clients.report()?.lost == 0, "the clients have heard of it: {:?}", clients.report());
    others.await_answers(5)?;
    others.end().map(drop)
}
