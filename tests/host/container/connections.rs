//! Connections of containers that have a network namespace by path: it is there before them, and after.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::need::Need::{self, Busybox, Cgroups, Criu, Iptables, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::Bed;
use super::bundle::counter;
use super::network::NetworkNamespace;
use super::output::Output;
use super::round_trip::{By, dump_with, restore};
use super::runtime::Runtime::{self, Runc11};

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Iptables, Need::Runtime(Runc11)];

pub(crate) fn trials() -> Vec<Trial> {
    let keeps = |name: &str, dumper, restorer| test(name, NEEDS, move || connection(Runc11, [dumper, restorer]));
    vec![
        keeps("runc_1_1_keeps_a_live_connection_in_a_named_namespace", By::Runtime, By::Runtime),
        keeps("crr_keeps_a_live_connection_in_a_named_namespace", By::Crr, By::Crr),
        keeps("runc_keeps_a_live_connection_that_crr_dumped", By::Crr, By::Runtime),
    ]
}

/// A client that the container must not notice, nor the client the container, but for a pause.
fn connection(runtime: Runtime, [dumper, restorer]: [By; 2]) -> Outcome {
    let bed = Bed::new(runtime)?;
    let mut namespace = NetworkNamespace::create(&bed, "net")?;
    let addresses = namespace.connect()?;
    let output = Output::new()?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.namespace("network", Some(&namespace.path()))?;
    bundle.shell(&format!("nc -l -p 7000 -e cat & {}", counter("0.1")));
    let container = bed.run_on("server", &bundle, &output)?;
    let mut client = until("a connection", SOON, || TcpStream::connect((addresses.inside, 7000)).ok())?;
    client.set_read_timeout(Some(SOON))?;
    echoes(&mut client, "before")?;
    let images = bed.path("images");
    dump_with(dumper, &bed, &container, &images, &["--tcp-established"])?;
    // What it sends now must be neither answered nor lost.
    client.write_all(b"while it is away")?;
    client.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut early = [0; 16];
    ensure!(client.read(&mut early).is_err(), "somebody answered for it");
    let restored = restore(restorer, &bed, "server", &bundle, &images, &["--tcp-established"], &output)?;
    client.set_read_timeout(Some(SOON))?;
    client.read_exact(&mut early)?;
    ensure!(&early == b"while it is away", "{early:?}");
    echoes(&mut client, "after")?;
    let seen = namespace.ip(&["-4", "addr", "show", "dev", "eth0"])?;
    ensure!(seen.contains(&addresses.inside.to_string()), "{seen}");
    output.await_numbers(2)?;
    output.counted_without_gap()?;
    restored.obeys_its_runtime(&output)
}

fn echoes(client: &mut TcpStream, text: &str) -> Result<(), Failed> {
    client.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    client.read_exact(&mut back)?;
    ensure!(back == text.as_bytes(), "{back:?} instead of {text}");
    Ok(())
}
