//! The network locks that CRIU leaves: found, told apart, removed. Each test in a network namespace of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

use ::crr::host::netlock::{Connection, Lock, Locks, Owner};
use libtest_mimic::{Failed, Trial};
use nix::sched::{CloneFlags, unshare};

use crate::need::Need::{self, Cc, Criu, Iptables, Netns, Root};
use crate::until::SOON;
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const NFTABLES: &[Need] = &[Root, Criu, Cc, Netns];
const IPTABLES: &[Need] = &[Root, Criu, Cc, Netns, Iptables];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("the_nftables_lock_of_a_dump_is_found_by_its_run_id_and_removed", NFTABLES, || {
            in_own_network(|| left_by("nftables"))
        }),
        test("the_iptables_lock_of_a_dump_is_found_by_its_connections_and_removed", IPTABLES, || {
            in_own_network(|| left_by("iptables"))
        }),
        test("a_network_without_locks_has_none", NFTABLES, || in_own_network(none)),
    ]
}

/// Runs a test on a thread with a network namespace of its own; what the thread starts is in it too.
pub(crate) fn in_own_network(run: fn() -> Outcome) -> Outcome {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        ::crr::host::netlink::loopback_up()?;
        run()
    });
    thread.join().map_err(|_| "the test panicked")?
}

fn look() -> Result<Vec<Lock>, Failed> {
    let Locks { found, unread } = Locks::look();
    ensure!(unread.is_empty(), "not looked at: {unread:?}");
    Ok(found)
}

fn none() -> Outcome {
    let found = look()?;
    ensure!(found.is_empty(), "found {found:?}");
    Ok(())
}

fn left_by(method: &str) -> Outcome {
    let mut victim = Victim::start(&programs::program("echo")?, &[])?;
    let port: u16 = victim.said("port ").first().ok_or("the server named no port")?.parse()?;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.write_all(b"x")?;
    client.read_exact(&mut [0])?;
    let connection = Connection { local: client.peer_addr()?, remote: client.local_addr()? };

    let (images, tree, pid) = (victim.images(), victim.tree(), victim.pid().to_string());
    fs::create_dir(&images)?;
    let words = ["-t", pid.as_str(), "--tcp-established", "--network-lock", method];
    crr::criu("dump", &images, words, SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;

    let found = look()?;
    ensure!(!found.is_empty(), "the dump left no lock");
    let inventory = ::crr::images::Images::open(&images)?.inventory()?;
    let (mut other, mut near) = (connection, connection);
    other.remote.set_port(connection.remote.port().wrapping_add(1));
    near.local.set_port(connection.local.port().wrapping_add(1));
    let owner = Owner { run_id: inventory.run_id.as_deref(), connections: &[connection] };
    let stranger = Owner { run_id: Some("00000000-0000-0000-0000-000000000000"), connections: &[other, near] };
    for lock in &found {
        ensure!(lock.belongs_to(owner), "{lock} is not held to be this dump's");
        ensure!(!lock.belongs_to(stranger), "{lock} is held to be another dump's");
    }
    let locks = Locks::look();
    ensure!(locks.release(stranger).removed.is_empty(), "another dump's locks were removed");
    // What is gone already is no failure.
    for again in [false, true] {
        let released = locks.release(owner);
        ensure!(released.failures.is_empty(), "{:?} {again}", released.failures);
        ensure!(released.removed == found, "removed {:?} of {found:?}", released.removed);
        none()?;
    }
    Ok(())
}
