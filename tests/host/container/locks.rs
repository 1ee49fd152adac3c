//! CRIU's network lock in a container's own network namespace, when CRIU is killed.

use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::crr::Running;
use crate::kill::paused::{Kill, Paused};
use crate::need::Need::{self, Busybox, Cgroups, Criu, Iptables, Netns, Nft, Root};
use crate::{Outcome, ensure, test};

use super::bed::{Bed, LIMIT};
use super::dumps::{command, dump};
use super::output::Output;
use super::runtime::Runtime::Runc11;

const NEEDS: &[Need] = &[Root, Criu, Netns, Busybox, Cgroups, Iptables, Nft, Need::Runtime(Runc11)];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("a_criu_killed_in_a_dump_leaves_no_chain_of_iptables_in_a_containers_network", NEEDS, || {
            killed("iptables")
        }),
        test("a_criu_killed_in_a_dump_leaves_no_table_of_nftables_in_a_containers_network", NEEDS, || {
            killed("nftables")
        }),
    ]
}

/// The rules of both kinds in the network namespace of a process.
fn rules(pid: i32) -> Result<String, Failed> {
    let mut all = String::new();
    for words in [&["iptables-save"][..], &["ip6tables-save"], &["nft", "list", "tables"]] {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{pid}/ns/net")).args(words);
        all += &Running::start(&mut command)?.end(LIMIT)?.must_pass(words[0])?.stdout;
    }
    Ok(all)
}

fn killed(method: &str) -> Outcome {
    let bed = Bed::new(Runc11)?;
    let output = Output::new()?;
    let bundle = bed.bundle("bundle")?;
    let container = bed.run_on("one", &bundle, &output)?;
    output.await_numbers(1)?;
    let (pid, images) = (container.pid()?, bed.path("images"));
    let more = ["--network-lock", method];
    for step in ["query-ext-files", "post-dump"] {
        let mut dump = command(&bed, container.id(), &images);
        let paused = Paused::start(dump.args(more), step)?;
        ensure!(rules(pid)?.contains("CRIU"), "nothing is locked at {step}: {}", rules(pid)?);
        paused.strike(Kill::Criu)?.must_exit(76, "a dump whose CRIU was killed")?;
        ensure!(!rules(pid)?.contains("CRIU"), "{step}: a lock is left: {}", rules(pid)?);
        output.await_numbers(2)?;
    }
    dump(&bed, &container, &images, &more)?.must_pass("the next dump").map(drop)
}
