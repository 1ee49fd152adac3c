//! Commit and abort of a move with live connections, on the real CRIU, and the death of CRIU at both holds.

use std::fs;

use libtest_mimic::{Failed, Trial};

use super::hand::Hand;
use super::hold::{cgroups, sockets, versions};
use super::{PORT, SERVICE, TAG};
use crate::bed::{Bed, Clients, Host, Process, copy, echo_server};
use crate::need::Need::{self, Cgroups, Criu, Netns, Python3, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Root, Netns, Criu, Python3, Cgroups];

/// Thirty TCP connections and a UDP socket.
const LOAD: [&str; 5] = ["busy=20", "large=4", "idle=5", "half=1", "datagrams=1"];
const CONNECTIONS: i64 = 30;

const IMAGES: &str = "/tmp/images";

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in versions() {
        let mut add = |fact: &str, run: fn(&str) -> Outcome| {
            trials.push(test(format!("held::{fact}_v{version}"), NEEDS, move || run(version)));
        };
        add("a_held_source_outlives_criu_and_loses_no_connection", source_outlives);
        add("a_source_whose_crr_died_stands_still_until_it_is_put_right", source_without_crr);
        add("a_commit_loses_no_connection_and_leaves_nothing", commit);
        add("an_abort_loses_no_connection_and_the_next_move_works", abort);
        add("a_commit_without_criu_on_the_target_loses_no_connection", commit_without_criu);
        add("an_abort_without_criu_on_either_side_loses_no_connection", abort_without_criu);
    }
    trials
}

/// A server with clients, and a hand on each host.
struct Scene<'a> {
    a: &'a Host,
    b: &'a Host,
    client: &'a Host,
    server: Process,
    clients: Clients<'a>,
    source: Hand,
    target: Hand,
}

impl<'a> Scene<'a> {
    fn new(bed: &'a Bed, version: &str) -> Result<Self, Failed> {
        let (a, b, client) = (bed.host("a"), bed.host("b"), bed.host("client"));
        a.add_address(&format!("{SERVICE}/32"))?;
        let server = echo_server(a, SERVICE, PORT)?;
        let clients = Clients::start(client, SERVICE, PORT, &LOAD)?;
        let (source, target) = (Hand::start(a, version)?, Hand::start(b, version)?);
        Ok(Self { a, b, client, server, clients, source, target })
    }

    /// Dumps, and holds the source at `post-dump`. CRIU's PID.
    fn hold_source(&mut self) -> Result<i32, Failed> {
        self.clients.forget_gap()?;
        // What is in the way of a second move.
        self.a.sh(&format!("rm -rf {IMAGES}"))?;
        let event = self.source.ask(&format!("dump {} {IMAGES}", self.server.pid))?;
        ensure!(event["event"] == "query-ext-files", "held at {event}");
        self.source.ask(&format!("fence source {SERVICE}"))?;
        self.source.ask("yes")?;
        let event = self.source.hear("post-dump")?;
        ensure!(event["event"] == "post-dump", "held at {event}");
        self.source.ask(&format!("plan {TAG}"))?;
        self.source.ask("gather")?;
        self.source.ask("freeze")?;
        ensure!(self.source.ask("frozen")? == true, "the source is not frozen");
        Ok(i32::try_from(event["criu"].as_i64().ok_or("no PID")?)?)
    }

    /// Moves the address, restores, and holds the target at `pre-resume`. CRIU's PID.
    fn hold_target(&mut self) -> Result<i32, Failed> {
        self.b.sh(&format!("rm -rf {IMAGES}"))?;
        copy(self.a, self.b, IMAGES)?;
        fs::copy(self.a.path(&self.server.output), self.b.path(&self.server.output))?;
        self.source.ask(&format!("withdraw {SERVICE}"))?;
        self.target.ask(&format!("fence target {SERVICE}"))?;
        self.target.ask(&format!("raise {SERVICE}"))?;
        let event = self.target.ask(&format!("restore {IMAGES}"))?;
        ensure!(event["event"] == "post-restore", "held at {event}");
        self.target.ask(&format!("plan {TAG}"))?;
        self.target.ask("gather")?;
        self.target.ask("guard")?;
        self.target.ask("yes")?;
        let event = self.target.hear("pre-resume")?;
        ensure!(event["event"] == "pre-resume", "held at {event}");
        self.target.ask("freeze")?;
        ensure!(self.target.ask("frozen")? == true, "the target is not frozen");
        ensure!(self.target.ask("dismiss")? == true, "the guard was gone");
        Ok(i32::try_from(event["criu"].as_i64().ok_or("no PID")?)?)
    }

    /// The target's copy is let go; `criu`: it is there to be answered.
    fn let_go(&mut self, criu: Died) -> Outcome {
        self.target.ask("unfence target")?;
        if criu == Died::No {
            self.target.ask("yes")?;
        }
        ensure!(self.target.count("release")? == 1, "not one task was let go");
        self.target.ask(&format!("announce {SERVICE}"))?;
        if criu == Died::No {
            self.target.ask("reply")?;
        }
        Ok(())
    }

    /// The source's copy is ended.
    fn end_source(&mut self, criu: Died) -> Outcome {
        self.source.ask("end")?;
        if criu == Died::No {
            self.source.ask("yes")?;
            self.source.ask("reply")?;
        }
        self.source.ask("unlock")?;
        self.source.ask("unfence source").map(drop)
    }

    /// The target's copy is ended, and the address taken off.
    fn end_target(&mut self, criu: Died) -> Outcome {
        self.target.ask("end")?;
        if criu == Died::No {
            self.target.ask("yes")?;
            ensure!(self.target.ask("reply").is_err(), "CRIU says that what was killed was restored");
        }
        self.target.ask(&format!("orphans {SERVICE}"))?;
        self.target.ask(&format!("drop {SERVICE}"))?;
        self.target.ask("unfence target")?;
        ensure!(sockets(self.b)?.is_empty(), "sockets are left on the target: {:?}", sockets(self.b));
        Ok(())
    }

    /// The source is put right and runs on.
    fn resume_source(&mut self, criu: Died) -> Outcome {
        if criu == Died::No {
            self.source.ask("no")?;
            ensure!(self.source.ask("reply").is_err(), "CRIU says that the dump which was refused succeeded");
            ensure!(self.source.count("right")? == 0, "CRIU left sockets in repair mode");
        } else {
            let right = self.source.count("right")?;
            ensure!(right == CONNECTIONS, "{right} sockets were in repair mode, not {CONNECTIONS}");
            ensure!(self.source.count("unlock")? == 1, "CRIU left not one lock");
        }
        ensure!(self.source.count("right")? == 0, "sockets are still in repair mode");
        self.source.ask("unfence source")?;
        ensure!(self.source.count("release")? == 1, "not one task was put back");
        Ok(())
    }

    /// Nothing is left on either host but the server on one of them, which serves all of its clients.
    fn must_run_on(&self, host: &Host, other: &Host) -> Outcome {
        self.clients.await_answers(10)?;
        ensure!(other.state(self.server.pid).is_none(), "a copy is left on {}", other.name());
        ensure!(sockets(other)?.is_empty(), "sockets are left on {}: {:?}", other.name(), sockets(other));
        for (host, expected) in [(host, 1), (other, 0)] {
            ensure!(cgroups(host)?.is_empty(), "left on {}: {:?}", host.name(), cgroups(host));
            let fences = super::inside(host, ::crr::host::fence::Fence::all)?;
            let locks = ::crr::host::in_network(&super::network(host), ::crr::host::netlock::Locks::look)?.found;
            ensure!(fences.is_empty() && locks.is_empty(), "left on {}: {fences:?} {locks:?}", host.name());
            let here = host.programs();
            let servers = here.iter().filter(|name| *name == "python3").count();
            ensure!(servers == expected, "on {}: {here:?}", host.name());
            ensure!(!here.iter().any(|name| name == "criu" || name == "crr-guard"), "on {}: {here:?}", host.name());
        }
        Ok(())
    }

    fn stand_still(&self) -> Outcome {
        ensure!(self.clients.stand_still()?, "the tree runs: {:?}", self.clients.report());
        ensure!(self.clients.report()?.lost == 0, "connections were lost: {:?}", self.clients.report());
        Ok(())
    }

    fn end(self, what: &str) -> Outcome {
        let report = self.clients.end()?;
        let Some(gap) = Some(report.gap_ms).filter(|gap| *gap > 0.0) else { return Err("nothing was measured".into()) };
        ensure!(u64::from(report.connected) == CONNECTIONS as u64 + 1, "{report:?}");
        eprintln!("{what}: {} connections, {} messages, longest gap {gap} ms", report.connected, report.messages);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Died {
    No,
    Yes,
}

/// Kills CRIU, which holds a tree, and waits for its end.
fn kill_criu(host: &Host, criu: i32) -> Outcome {
    host.kill(criu, "KILL")?;
    until("the end of CRIU", SOON, || (!host.is_alive(criu)).then_some(()))
}

fn bed() -> Result<Bed, Failed> {
    Bed::new(&["a", "b", "client"], &[])
}

fn source_outlives(version: &str) -> Outcome {
    let bed = bed()?;
    let mut scene = Scene::new(&bed, version)?;
    let criu = scene.hold_source()?;
    scene.stand_still()?;
    kill_criu(scene.a, criu)?;
    scene.stand_still()?;
    ensure!(scene.a.is_alive(scene.server.pid), "the server died with CRIU");
    scene.resume_source(Died::Yes)?;
    scene.must_run_on(scene.a, scene.b)?;
    scene.end("CRIU killed at post-dump")
}

fn source_without_crr(version: &str) -> Outcome {
    let bed = bed()?;
    let mut scene = Scene::new(&bed, version)?;
    let criu = scene.hold_source()?;
    let pid = i32::try_from(scene.source.count("pid")?)?;
    scene.a.kill(pid, "KILL")?;
    until("the end of CRIU", SOON, || (!scene.a.is_alive(criu)).then_some(()))?;
    scene.stand_still()?;
    scene.source = Hand::start(scene.a, version)?;
    ensure!(scene.source.ask(&format!("find {TAG}"))? == true, "the next crr does not find what is held");
    ensure!(scene.source.count("right")? == 0, "CRIU left sockets in repair mode");
    scene.source.ask("unfence source")?;
    ensure!(scene.source.count("release")? == 1, "not one task was put back");
    scene.must_run_on(scene.a, scene.b)?;
    scene.end("crr killed at post-dump")
}

fn commit(version: &str) -> Outcome {
    let bed = bed()?;
    let mut scene = Scene::new(&bed, version)?;
    scene.hold_source()?;
    // Who connects now is served after the commit, by the target.
    let line = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 15); s.sendall(b'late'); \
                print('answered', s.recv(4))";
    let late = scene.client.spawn("/tmp/late", ["python3", "-c", line, SERVICE, &PORT.to_string()])?;
    until("the late client to try", SOON, || {
        let tried = scene.client.sh("ss -Htan state syn-sent").ok()?;
        (!tried.is_empty()).then_some(())
    })?;
    scene.hold_target()?;
    scene.let_go(Died::No)?;
    scene.end_source(Died::No)?;
    scene.must_run_on(scene.b, scene.a)?;
    until("an answer to the late client", SOON, || {
        (scene.client.read(&late.output) == "answered b'late'\n").then_some(())
    })
    .map_err(|failed| format!("{}: {}", failed.message().unwrap_or_default(), scene.client.read(&late.output)))?;
    scene.end("commit")
}

fn abort(version: &str) -> Outcome {
    let bed = bed()?;
    let mut scene = Scene::new(&bed, version)?;
    scene.hold_source()?;
    scene.hold_target()?;
    scene.stand_still()?;
    scene.end_target(Died::No)?;
    scene.source.ask("return")?;
    scene.source.ask(&format!("announce {SERVICE}"))?;
    scene.resume_source(Died::No)?;
    scene.must_run_on(scene.a, scene.b)?;
    // What an abort leaves would be in the way of the next move there.
    scene.hold_source()?;
    scene.hold_target()?;
    scene.let_go(Died::No)?;
    scene.end_source(Died::No)?;
    scene.must_run_on(scene.b, scene.a)?;
    scene.end("abort, and a commit after it")
}

fn commit_without_criu(version: &str) -> Outcome {
    let bed = bed()?;
    let mut scene = Scene::new(&bed, version)?;
    let criu = scene.hold_source()?;
    let other = scene.hold_target()?;
    kill_criu(scene.b, other)?;
    kill_criu(scene.a, criu)?;
    scene.stand_still()?;
    scene.let_go(Died::Yes)?;
    scene.end_source(Died::Yes)?;
    scene.must_run_on(scene.b, scene.a)?;
    scene.end("commit with both CRIUs killed")
}

fn abort_without_criu(version: &str) -> Outcome {
    let bed = bed()?;
    let mut scene = Scene::new(&bed, version)?;
    let criu = scene.hold_source()?;
    let other = scene.hold_target()?;
    kill_criu(scene.b, other)?;
    kill_criu(scene.a, criu)?;
    scene.stand_still()?;
    scene.end_target(Died::Yes)?;
    scene.source.ask("return")?;
    scene.source.ask(&format!("announce {SERVICE}"))?;
    scene.resume_source(Died::Yes)?;
    scene.must_run_on(scene.a, scene.b)?;
    scene.end("abort with both CRIUs killed")
}
