//! What a checkpoint holds outside its directory, and giving it up: `crr rm`, `crr unlock`, and the locks that `crr check` lists.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::crr::crr as run;
use crate::dumped::{Dumped, start};
use crate::need::Need::{self, Cc, Criu, Netns, Nft, Root};
use crate::until::{SOON, until};
use crate::victim::Victim;
use crate::words::object;
use crate::{Outcome, crr, ensure, network, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const TCP: &[Need] = &[Root, Criu, Cc, Netns, Nft];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("rm_removes_a_checkpoint_and_its_lock", TCP, rm),
        test("rm_removes_a_checkpoint_that_criu_dumped_and_its_lock_and_tells_its_names", TCP, rm_of_criu),
        test("rm_leaves_what_is_no_checkpoint", NEEDS, rm_refuses),
        test("unlock_lets_the_peers_of_a_lost_tree_end", TCP, unlock),
        test("check_names_a_lock_whose_checkpoint_is_not_known", TCP, unknown_lock),
    ]
}

/// The table of nftables that a dump left, by its checkpoint's run ID.
fn table(images: &Path) -> Result<String, Failed> {
    let run_id = ::crr::images::Images::open(images)?.inventory()?.run_id.ok_or("the dump has no run ID")?;
    let mut name = format!("CRIU-{run_id}");
    // The kernel's limit for CRIU, with the family before it.
    name.truncate(31 - "inet ".len());
    Ok(name)
}

fn is_locked(table: &str) -> Result<bool, Failed> {
    let output = Command::new("nft").args(["list", "tables"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(table))
}

/// A server with a connection, and its client.
fn connected() -> Result<(Victim, TcpStream), Failed> {
    let (victim, port) = network::server()?;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_read_timeout(Some(Duration::from_millis(50)))?;
    client.write_all(b"x")?;
    until("the echo", SOON, || client.read_exact(&mut [0]).ok())?;
    Ok((victim, client))
}

fn rm() -> Outcome {
    let (victim, _client) = connected()?;
    let dumped = Dumped::of(victim, &["--tcp-established"])?;
    let table = table(&dumped.images)?;
    ensure!(is_locked(&table)?, "the dump left no table {table}");
    let ran = run([OsStr::new("rm"), dumped.images.as_os_str()])?.must_pass("crr rm")?;
    ensure!(ran.stdout.contains("removed"), "{}", ran.stdout);
    ensure!(!is_locked(&table)?, "the table {table} is left");
    let left: Vec<_> =
        fs::read_dir(dumped.victim.directory())?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    ensure!(left.len() == 2, "left are {left:?}, and not only the output and the work directory");
    Ok(())
}

fn rm_of_criu() -> Outcome {
    let mut victim = start("unlinked_linked")?;
    let (images, tree, pid) = (victim.images(), victim.tree(), victim.pid().to_string());
    fs::create_dir(&images)?;
    crr::criu("dump", &images, ["-t", &pid, "--link-remap"], SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    let names = || -> Result<Vec<String>, Failed> {
        let entries = fs::read_dir(victim.directory().join("work"))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect())
    };
    ensure!(names()?.iter().any(|name| name.starts_with("link_remap.")), "criu made no name: {:?}", names()?);
    let ran = run([OsStr::new("rm"), images.as_os_str()])?.must_pass("crr rm")?;
    ensure!(!images.exists(), "the checkpoint is left");
    // Nothing tells it from a name of another checkpoint, which could not be restored without it.
    ensure!(ran.stderr.contains("work/link_remap."), "the name is not told: {}", ran.stderr);

    let (mut victim, _client) = connected()?;
    let (images, tree, pid) = (victim.images(), victim.tree(), victim.pid().to_string());
    fs::create_dir(&images)?;
    let words = ["-t", &pid, "--tcp-established", "--network-lock", "nftables"];
    crr::criu("dump", &images, words, SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    let table = table(&images)?;
    ensure!(is_locked(&table)?, "the dump left no table {table}");
    run([OsStr::new("rm"), images.as_os_str()])?.must_pass("crr rm")?;
    ensure!(!is_locked(&table)?, "the table {table} is left");
    Ok(())
}

fn rm_refuses() -> Outcome {
    let place = tempfile::tempdir()?;
    let other = place.path().join("other");
    fs::create_dir(&other)?;
    fs::write(other.join("letter.txt"), "x")?;
    let refused = run([OsStr::new("rm"), other.as_os_str()])?.must_exit(65, "crr rm of another directory")?;
    ensure!(refused.stderr.contains("no checkpoint"), "{}", refused.stderr);
    run([OsStr::new("rm"), place.path().join("none").as_os_str()])?.must_exit(66, "crr rm of nothing")?;
    run([OsStr::new("rm"), other.join("letter.txt").as_os_str()])?.must_exit(73, "crr rm of a file")?;
    ensure!(other.join("letter.txt").exists(), "the file is gone");

    let dumped = Dumped::pair()?;
    fs::write(dumped.images.join("letter.txt"), "x")?;
    let refused = run([OsStr::new("rm"), dumped.images.as_os_str()])?.must_exit(73, "crr rm of more")?;
    ensure!(refused.stderr.contains("letter.txt"), "{}", refused.stderr);
    ensure!(dumped.images.join("inventory.img").exists(), "the checkpoint is gone");
    Ok(())
}

/// Whether the peer learns within a second that its connection is no more.
fn ends(client: &mut TcpStream) -> bool {
    let ended = until("the end of the connection", Duration::from_secs(3), || {
        let sent = client.write_all(b"x");
        let got = client.read(&mut [0]);
        let waits = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        (sent.is_err_and(|error| !waits(&error)) || got.map_or_else(|error| !waits(&error), |count| count == 0))
            .then_some(())
    });
    ended.is_ok()
}

fn unlock() -> Outcome {
    let (victim, mut client) = connected()?;
    let dumped = Dumped::of(victim, &["--tcp-established"])?;
    let table = table(&dumped.images)?;
    ensure!(is_locked(&table)?, "the dump left no table {table}");
    ensure!(!ends(&mut client), "the lock does not hold the connection");
    let images = dumped.images.as_os_str();
    let ran = run([OsStr::new("unlock"), images])?.must_pass("crr unlock")?;
    ensure!(ran.stdout.contains(&table), "{}", ran.stdout);
    ensure!(!is_locked(&table)?, "the table {table} is left");
    ensure!(ends(&mut client), "the peer still waits");
    let again = run([OsStr::new("unlock"), images])?.must_pass("crr unlock again")?;
    ensure!(again.stdout.contains("no lock"), "{}", again.stdout);
    Ok(())
}

fn unknown_lock() -> Outcome {
    let listed = |table: &str| -> Result<bool, Failed> {
        let host = run(["check", "--json"])?;
        let host = object(&host, &["unknown_locks"])?;
        Ok(host["unknown_locks"].to_string().contains(table))
    };
    let (mut victim, _client) = connected()?;
    let (images, tree, pid) = (victim.images(), victim.tree(), victim.pid().to_string());
    fs::create_dir(&images)?;
    let words = ["-t", &pid, "--tcp-established", "--network-lock", "nftables"];
    crr::criu("dump", &images, words, SOON)?.must_pass("criu dump")?;
    victim.await_gone(&tree)?;
    let criu = table(&images)?;
    ensure!(listed(&criu)?, "the lock of the criu program is not listed");
    let text = run(["check"])?.stdout;
    ensure!(text.contains(&format!("nft delete table inet {criu}")), "no cure is named: {text}");
    // One whose checkpoint crr made is known, until the checkpoint is gone.
    let (victim, _client) = connected()?;
    let dumped = Dumped::of(victim, &["--tcp-established"])?;
    let own = table(&dumped.images)?;
    ensure!(!listed(&own)?, "the lock of a checkpoint that is there is listed");
    fs::remove_dir_all(&dumped.images)?;
    ensure!(listed(&own)?, "the lock of a checkpoint that is gone is not listed");
    Command::new("nft").args(["delete", "table", "inet", &own]).status()?;
    run([OsStr::new("unlock"), images.as_os_str()])?.must_pass("crr unlock")?;
    ensure!(!listed(&criu)?, "the lock is still listed");
    Ok(())
}
