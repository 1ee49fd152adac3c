//! A CRIU that is killed while it holds TCP connections: it leaves their sockets in repair mode, and its network lock.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use ::crr::host::netlock::Locks;
use libtest_mimic::{Failed, Trial};

use super::paused::{Kill, Paused};
use super::{directory_is_as_before, runs_on};
use crate::locks::in_own_network;
use crate::need::Need::{self, Cc, Criu, Iptables, Netns, Root};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const IPTABLES: &[Need] = &[Root, Criu, Cc, Netns, Iptables];

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("a_criu_killed_at_post_dump_leaves_no_connection_dead_and_no_nftables_lock", NEEDS, || {
            in_own_network(|| killed("nftables"))
        }),
        test("a_criu_killed_at_post_dump_leaves_no_connection_dead_and_no_iptables_lock", IPTABLES, || {
            in_own_network(|| killed("iptables"))
        }),
    ]
}

/// A connection that says nothing by itself: its server sleeps while it is held.
struct Quiet(TcpStream);

impl Quiet {
    fn connect(port: u16) -> Result<Self, Failed> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(stream))
    }

    /// Sends a word, which must come back.
    fn echo(&mut self, word: &[u8]) -> Outcome {
        self.0.write_all(word)?;
        let mut got = vec![0; word.len()];
        self.0.read_exact(&mut got).map_err(|error| format!("no answer to {word:?}: {error}"))?;
        ensure!(got == word, "{word:?} came back as {got:?}");
        Ok(())
    }
}

fn locks() -> Result<usize, Failed> {
    let Locks { found, unread } = Locks::look();
    ensure!(unread.is_empty(), "not looked at: {unread:?}");
    Ok(found.len())
}

fn killed(method: &str) -> Outcome {
    let mut victim = Victim::start(&programs::program("echo")?, &[])?;
    let port: u16 = victim.said("port ").first().ok_or("the server named no port")?.parse()?;
    let mut clients = [Quiet::connect(port)?, Quiet::connect(port)?];
    for client in &mut clients {
        client.echo(b"before")?;
    }
    let (tree, directory) = (victim.tree(), victim.images());
    let options = ["--tcp-established", "--network-lock", method];
    for step in ["query-ext-files", "post-dump", "flushed"] {
        for kill in [Kill::CtrlC, Kill::Criu] {
            let mut command = crr::command();
            command.args(["dump", "--pid", &victim.pid().to_string(), "--dir"]).arg(&directory).args(options);
            let paused = Paused::start(&mut command, step)?;
            ensure!(step == "query-ext-files" || locks()? > 0, "nothing is locked at {step}");
            let ran = paused.strike(kill)?;
            if kill == Kill::Criu {
                let ran = ran.must_exit(76, "a dump whose CRIU was killed")?;
                ensure!(step == "query-ext-files" || ran.stderr.contains("repair mode"), "not said:\n{}", ran.stderr);
            } else if ran.code == 0 {
                // At the last step the signal may come too late.
                return Err("the dump was not stopped".into());
            }
            ensure!(locks()? == 0, "{kill:?} at {step}: locks are left: {:?}", Locks::look());
            for client in &mut clients {
                client.echo(b"after").map_err(|failed| format!("{kill:?} at {step}: {failed:?}"))?;
            }
            runs_on(&victim, &tree)?;
            directory_is_as_before(&directory, false)?;
        }
    }
    crr::dump(victim.pid(), &directory, &options)?.must_pass("the next dump")?;
    victim.await_gone(&tree)?;
    crr::restore(&directory, &[])?.must_pass("the next restore")?;
    for client in &mut clients {
        client.echo(b"restored")?;
    }
    ensure!(locks()? == 0, "locks are left by the restore: {:?}", Locks::look());
    victim.end()
}
