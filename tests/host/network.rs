//! TCP across the freeze: a server in the tree, a client outside of it that checks every byte.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::need::Need::{self, Cc, Criu, Iptables, Netns, Nft, RedisServer, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, programs, test};

const IPTABLES: &[Need] = &[Root, Criu, Cc, Netns, Iptables];
const NFT: &[Need] = &[Root, Criu, Cc, Netns, Nft];
const REDIS: &[Need] = &[Root, Criu, Netns, Iptables, RedisServer];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_tcp_client_loses_no_byte_over_criu", IPTABLES, || {
            established(by_criu, &["--tcp-established"], &["--tcp-established"])
        }),
        test("a_tcp_client_loses_no_byte", IPTABLES, || established(by_crr, &["--tcp-established"], &[])),
        test("a_tcp_client_loses_no_byte_with_nftables", NFT, || {
            established(by_crr, &["--tcp-established", "--network-lock", "nftables"], &[])
        }),
        test("tcp_connections_need_a_choice", IPTABLES, choice),
        test("closed_tcp_connections_end_and_the_listener_stays", IPTABLES, closed),
        test("a_listening_tcp_socket_needs_no_option", IPTABLES, listening),
        test("redis_keeps_its_data_and_its_connections", REDIS, redis),
    ]
}

/// A client that sends numbered bytes and checks that each comes back, for as long as it lives.
pub(crate) struct Client {
    stop: Arc<AtomicBool>,
    echoed: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> Result<Self, Failed> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(SOON))?;
        let (stop, echoed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&echoed));
        let thread = thread::spawn(move || {
            let mut next = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                // Varying lengths, so that the freeze falls into the middle of one now and then.
                let length = 1 + (next % 1999) as usize;
                let sent: Vec<u8> = (0..length).map(|i| (next as usize + i * 7) as u8).collect();
                let mut got = vec![0; length];
                stream.write_all(&sent).map_err(|error| format!("sending block {next}: {error}"))?;
                stream.read_exact(&mut got).map_err(|error| format!("receiving block {next}: {error}"))?;
                if got != sent {
                    return Err(format!("block {next} came back changed"));
                }
                next += 1;
                count.store(next, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { stop, echoed, thread: Some(thread) })
    }

    pub(crate) fn await_blocks(&self, count: u64) -> Result<(), Failed> {
        let from = self.echoed.load(Ordering::Relaxed);
        until(format_args!("{count} blocks after block {from}"), SOON, || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            (ended || self.echoed.load(Ordering::Relaxed) >= from + count).then_some(())
        })?;
        ensure!(self.echoed.load(Ordering::Relaxed) >= from + count, "the client ended after block {from}");
        Ok(())
    }

    /// Ends the client; what it found wrong is the error.
    pub(crate) fn end(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| "the client panicked")??;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread ends by itself: at the next block, or when its read times out.
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn server() -> Result<(Victim, u16), Failed> {
    let victim = Victim::start(&programs::program("echo")?, &[])?;
    let port = victim.said("port ").first().ok_or("the server named no port")?.parse()?;
    Ok((victim, port))
}

/// A dump with options, then a restore with options.
pub(crate) type RoundTrip = fn(&mut Victim, &[&str], &[&str]) -> Outcome;

fn by_criu(victim: &mut Victim, at_dump: &[&str], at_restore: &[&str]) -> Outcome {
    let (images, tree, pid) = (victim.images(), victim.tree(), victim.pid().to_string());
    std::fs::create_dir(&images)?;
    crr::criu("dump", &images, ["-t", pid.as_str()].iter().chain(at_dump), SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    crr::criu("restore", &images, ["-d"].iter().chain(at_restore), SOON)?.must_pass("criu restore")?;
    Ok(())
}

fn by_crr(victim: &mut Victim, at_dump: &[&str], at_restore: &[&str]) -> Outcome {
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, at_dump)?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    crr::restore(&images, at_restore)?.must_pass("crr restore")?;
    Ok(())
}

pub(crate) fn established(round_trip: RoundTrip, at_dump: &[&str], at_restore: &[&str]) -> Outcome {
    let (mut victim, port) = server()?;
    let clients = [Client::connect(port)?, Client::connect(port)?];
    for client in &clients {
        client.await_blocks(20)?;
    }
    round_trip(&mut victim, at_dump, at_restore)?;
    for client in clients {
        client.await_blocks(20)?;
        client.end()?;
    }
    // The listener is back too, and no lock was left behind.
    let late = Client::connect(port)?;
    late.await_blocks(3)?;
    late.end()?;
    victim.end()
}

fn choice() -> Outcome {
    let (victim, port) = server()?;
    let client = Client::connect(port)?;
    client.await_blocks(3)?;
    let refused = crr::dump(victim.pid(), &victim.images(), &[])?.must_exit(79, "a dump without a choice")?;
    for word in ["--tcp-established", "--tcp-close", &format!("127.0.0.1:{port}")] {
        ensure!(refused.stderr.contains(word), "the refusal does not name {word}: {}", refused.stderr);
    }
    ensure!(!victim.images().exists(), "a refused dump made its directory");
    client.await_blocks(3)?;
    client.end()?;
    victim.end()
}

fn closed() -> Outcome {
    let (mut victim, port) = server()?;
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.write_all(b"x")?;
    connection.read_exact(&mut [0])?;
    by_crr(&mut victim, &["--tcp-close"], &[])?;
    let late = Client::connect(port)?;
    late.await_blocks(3)?;
    late.end()?;
    victim.end()
}

fn listening() -> Outcome {
    let (mut victim, port) = server()?;
    by_crr(&mut victim, &[], &[])?;
    let late = Client::connect(port)?;
    late.await_blocks(3)?;
    late.end()?;
    victim.end()
}

/// Sends a command to redis and gives the first line of its answer, and for a bulk string the string.
fn ask(stream: &mut TcpStream, command: &str) -> Result<String, Failed> {
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let lines = |answer: &[u8]| answer.iter().filter(|byte| **byte == b'\n').count();
    let mut byte = [0];
    while lines(&answer) < if answer.first() == Some(&b'$') { 2 } else { 1 } {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).lines().last().unwrap_or_default().to_owned())
}

fn redis() -> Outcome {
    const KEYS: u32 = 500;
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let mut command = std::process::Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &free.to_string()]);
    let mut victim = Victim::spawn(&mut command)?;
    let mut stream = until("redis to listen", SOON, || TcpStream::connect((Ipv4Addr::LOCALHOST, free)).ok())?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    for key in 0..KEYS {
        let answer = ask(&mut stream, &format!("SET key{key} value{key}"))?;
        ensure!(answer == "+OK", "SET gave {answer}");
    }
    ask(&mut stream, "SELECT 3")?;
    ask(&mut stream, "SET own connection")?;
    by_crr(&mut victim, &["--tcp-established"], &[])?;
    // The connection is the same one: it is still in database 3.
    let own = ask(&mut stream, "GET own")?;
    ensure!(own == "connection", "the connection lost its database: {own}");
    ask(&mut stream, "SELECT 0")?;
    for key in 0..KEYS {
        let value = ask(&mut stream, &format!("GET key{key}"))?;
        ensure!(value == format!("value{key}"), "key{key} is {value}");
    }
    let size = ask(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, free))?, "DBSIZE")?;
    ensure!(size == format!(":{KEYS}"), "DBSIZE is {size}");
    ensure!(Path::new(&format!("/proc/{}", victim.pid())).exists(), "redis has another PID");
    Ok(())
}
