//! Which network a restored container is in.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};

use crate::crr::{self, Running};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Netns, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, Container, LIMIT};
use super::bundle::Bundle;
use super::dumps::{dump, runs_on, state_of};
use super::network::{NetworkNamespace, ip};
use super::output::Output;
use super::round_trip::{By, dump_with, restore};
use super::runtime::Runtime::Runc11;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Need::Runtime(Runc11)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_network_by_path_is_the_same_again_or_another_that_the_bundle_names", NEEDS, by_path),
        test("a_network_of_its_own_comes_back_with_its_veth_up_and_in_a_bridge", NEEDS, veth),
        test("an_empty_network_comes_back_with_its_loopback_up", NEEDS, empty),
        test("a_clone_joins_the_network_of_a_running_container", NEEDS, joined),
        test("routes_over_a_link_without_a_carrier_are_named_with_the_cure", NEEDS, dead_routes),
        test("a_clone_has_a_network_of_its_own_where_the_original_has_one_by_path", NEEDS, private),
    ]
}

fn network(container: &Container) -> Result<PathBuf, Failed> {
    Ok(fs::read_link(format!("/proc/{}/ns/net", container.pid()?))?)
}

/// A container that counts, and where its images are to be.
fn counting<'a>(bed: &'a Bed, bundle: &Bundle, output: &Output) -> Result<(Container<'a>, PathBuf), Failed> {
    let container = bed.run_on("one", bundle, output)?;
    output.await_numbers(2)?;
    Ok((container, bed.path("images")))
}

fn by_path() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let namespaces = [NetworkNamespace::create(&bed, "first")?, NetworkNamespace::create(&bed, "second")?];
    let mut bundle = bed.bundle("bundle")?;
    bundle.namespace("network", Some(&namespaces[0].path()))?;
    let (container, images) = counting(&bed, &bundle, &output)?;
    let before = network(&container)?;
    dump_with(By::Crr, &bed, &container, &images, &[])?;
    let again = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    ensure!(network(&again)? == before, "it is in another network");
    again.delete()?;
    bundle.namespace("network", Some(&namespaces[1].path()))?;
    let moved = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    ensure!(network(&moved)? != before, "it is in the first network");
    output.await_numbers(2)?;
    moved.delete()
}

fn veth() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let (container, images) = counting(&bed, &bundle, &output)?;
    let pid = container.pid()?.to_string();
    let number = std::process::id() % 10_000;
    let [link, other, bridge] = [format!("bva{number}"), format!("bvb{number}"), format!("bbr{number}")];
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    // Routes over a link that is down are what iproute2 saves and does not restore.
    ip(&["link", "set", &link, "up"])?;
    let inside = ["netns", "attach", bed.tag(), &pid];
    ip(&inside)?;
    let removed = (|| {
        ip(&["-n", bed.tag(), "address", "add", "10.98.7.2/24", "dev", "eth0"])?;
        ip(&["-n", bed.tag(), "link", "set", "eth0", "up"])
    })();
    ip(&["netns", "del", bed.tag()])?;
    removed?;
    ip(&["link", "add", &bridge, "type", "bridge"])?;
    let restored = (|| {
        dump_with(By::Crr, &bed, &container, &images, &[])?;
        let veth = format!("eth0={other}@{bridge}");
        let again = restore(By::Crr, &bed, "one", &bundle, &images, &["--veth", &veth], &output)?;
        let seen = again.sh("ip address show eth0")?;
        ensure!(seen.contains("10.98.7.2/24"), "{seen}");
        let outside = ip(&["link", "show", &other])?;
        ensure!(outside.contains(&format!("master {bridge}")), "{outside}");
        ensure!(outside.contains(",UP"), "{outside}");
        again.delete()
    })();
    ip(&["link", "del", &bridge])?;
    restored
}

/// The kernel marks them, and refuses to make what is marked: CRIU's dump passes, and its restore does not.
fn dead_routes() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let (container, images) = counting(&bed, &bundle, &output)?;
    let pid = container.pid()?.to_string();
    let outer = format!("bdr{}", std::process::id() % 10_000);
    ip(&["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    ip(&["netns", "attach", bed.tag(), &pid])?;
    let inside = (|| {
        ip(&["-n", bed.tag(), "address", "add", "10.98.6.2/24", "dev", "eth0"])?;
        ip(&["-n", bed.tag(), "link", "set", "eth0", "up"])?;
        until("the route to be marked", SOON, || {
            ip(&["-n", bed.tag(), "route"]).is_ok_and(|routes| routes.contains("linkdown")).then_some(())
        })
    })();
    ip(&["netns", "del", bed.tag()])?;
    let tried = (|| {
        inside?;
        let cure = format!("ip link set {outer} up");
        let mut check = crr::command();
        check.args(["check", "--container", container.id(), "--runtime-root"]).arg(bed.root());
        let ran = Running::start(&mut check)?.end(LIMIT)?.must_exit(78, "crr check of routes without a carrier")?;
        ensure!(ran.stdout.contains("eth0") && ran.stdout.contains(&cure), "{}", ran.stdout);
        let state = state_of(&bed, &container)?;
        let ran = dump(&bed, &container, &images, &[])?.must_exit(78, "crr dump of routes without a carrier")?;
        ensure!(ran.stderr.contains(&cure), "{}", ran.stderr);
        ensure!(!images.exists(), "a directory is left");
        runs_on(&container, &output, &state, &bed)?;
        // CRIU itself does dump it, and the restore shows that the refusal is right.
        dump_with(By::Crr, &bed, &container, &bed.path("doomed"), &["--leave-running", "--no-preflight"])?;
        let mut doomed = crr::command();
        doomed
            .args(["restore", "-d", "--stdio", "null", "--container", &bed.id("two"), "--runtime-root"])
            .arg(bed.root());
        let ran = Running::start(doomed.arg("--dir").arg(bed.path("doomed")))?.end(LIMIT)?;
        ensure!(!ran.passed(), "it was restored all the same: there is nothing to be refused");
        ip(&["link", "set", &outer, "up"])?;
        dump_with(By::Crr, &bed, &container, &images, &[])?;
        let again = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
        let seen = again.sh("ip route")?;
        ensure!(seen.contains("10.98.6.0/24"), "{seen}");
        output.await_numbers(1)?;
        again.delete()
    })();
    let _ = ip(&["link", "del", &outer]);
    tried
}

fn empty() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let (container, images) = counting(&bed, &bundle, &output)?;
    dump_with(By::Runtime, &bed, &container, &images, &[])?;
    let again = restore(By::Crr, &bed, "one", &bundle, &images, &[], &output)?;
    let seen = again.sh("ip address show lo")?;
    ensure!(seen.contains("127.0.0.1") && seen.contains("UP"), "{seen}");
    again.delete()
}

fn joined() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let (container, images) = counting(&bed, &bundle, &output)?;
    dump_with(By::Crr, &bed, &container, &images, &["--leave-running"])?;
    let copies = [Output::new()?, Output::new()?];
    let by_name = format!("net:{}", container.id());
    let by_file = format!("net:/proc/{}/ns/net", container.pid()?);
    for ((name, join), output) in [("two", by_name), ("three", by_file)].into_iter().zip(&copies) {
        let clone = restore(By::Crr, &bed, name, &bundle, &images, &["--join-ns", &join], output)?;
        ensure!(network(&clone)? == network(&container)?, "{join}: it is in another network");
        output.await_numbers(2)?;
        clone.delete()?;
    }
    output.await_numbers(2)?;
    container.delete()
}

fn private() -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let namespace = NetworkNamespace::create(&bed, "net")?;
    let mut bundle = bed.bundle("bundle")?;
    bundle.namespace("network", Some(&namespace.path()))?;
    let (container, images) = counting(&bed, &bundle, &output)?;
    dump_with(By::Crr, &bed, &container, &images, &["--leave-running"])?;
    let copy = Output::new()?;
    let clone = restore(By::Crr, &bed, "two", &bundle, &images, &[], &copy)?;
    ensure!(network(&clone)? != network(&container)?, "it is in the original's network");
    copy.await_numbers(2)?;
    clone.delete()?;
    container.delete()
}
