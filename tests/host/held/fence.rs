//! Fences: what they drop, and what they let through.

use ::crr::host::fence::{Fence, Kind};
use libtest_mimic::{Failed, Trial};

use super::{PORT, TAG, inside};
use crate::bed::{Bed, Clients, Host, echo_server};
use crate::need::Need::{self, Netns, Nft, Python3, Root};
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Root, Netns, Python3, Nft];

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (family, address) in [("ipv4", "10.77.0.1"), ("ipv6", "fd77::1")] {
        trials.extend([
            test(format!("held::a_targets_fence_drops_all_tcp_but_criu_s_{family}"), NEEDS, move || target(address)),
            test(format!("held::a_source_s_fence_drops_new_connections_only_{family}"), NEEDS, move || source(address)),
        ]);
    }
    trials.push(test("held::a_fence_is_put_up_and_taken_down_twice_and_found", NEEDS, idempotent));
    trials
}

/// Whether a new connection to the address is answered within 300 ms, its packets marked as CRIU marks its own, or not.
fn connects(from: &Host, address: &str, is_marked: bool) -> Result<bool, Failed> {
    let line = "import socket, sys\n\
                s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)\n\
                s.setsockopt(socket.SOL_SOCKET, 36, int(sys.argv[3], 16))\n\
                s.settimeout(0.3)\n\
                s.connect((sys.argv[1], int(sys.argv[2])))";
    let mark = if is_marked { "C114" } else { "0" };
    Ok(from.run(["python3", "-c", line, address, &PORT.to_string(), mark])?.passed())
}

fn target(address: &str) -> Outcome {
    let bed = Bed::new(&["a", "client"], &[])?;
    let (a, client) = (bed.host("a"), bed.host("client"));
    echo_server(a, address, PORT)?;
    let clients = Clients::start(client, address, PORT, &["busy=3", "idle=2"])?;
    let fence = Fence::of(Kind::Target, TAG);
    inside(a, || fence.put_up(&[address.parse().map_err(|_| ::crr::Error::Bug { what: "no address" })?]))?;
    ensure!(!connects(client, address, false)?, "a client connects through the fence");
    ensure!(!connects(a, address, false)?, "the host itself connects through the fence");
    // Both directions of both ends are on this host: the answers carry no mark of the program's, but the kernel's own do.
    a.sh("sysctl -qw net.ipv4.fwmark_reflect=1 net.ipv6.fwmark_reflect=1 net.ipv4.tcp_fwmark_accept=1")?;
    ensure!(connects(a, address, true)?, "the fence drops what CRIU has marked");
    let before = clients.report()?;
    ensure!(clients.stand_still()?, "connections go on behind the fence: {before:?}");
    inside(a, || fence.take_down())?;
    clients.await_answers(5)?;
    clients.end().map(drop)
}

fn source(address: &str) -> Outcome {
    let bed = Bed::new(&["a", "client"], &[])?;
    let (a, client) = (bed.host("a"), bed.host("client"));
    echo_server(a, address, PORT)?;
    let clients = Clients::start(client, address, PORT, &["busy=3"])?;
    let fence = Fence::of(Kind::Source, TAG);
    inside(a, || fence.put_up(&[address.parse().map_err(|_| ::crr::Error::Bug { what: "no address" })?]))?;
    ensure!(!connects(client, address, false)?, "a client connects through the fence");
    clients.await_answers(20)?;
    inside(a, || fence.take_down())?;
    ensure!(connects(client, address, false)?, "nobody connects when the fence is gone");
    clients.end().map(drop)
}

fn idempotent() -> Outcome {
    let bed = Bed::new(&["a"], &[])?;
    let a = bed.host("a");
    let addresses = ["10.77.0.1".parse()?, "fd77::1".parse()?];
    let [target, source] = [Kind::Target, Kind::Source].map(|kind| Fence::of(kind, TAG));
    for fence in [&target, &source] {
        inside(a, || fence.take_down())?;
        ensure!(!inside(a, || fence.is_up())?, "{fence:?} is up");
        inside(a, || fence.put_up(&addresses))?;
        let once = a.sh(&format!("nft list table inet {}", fence.table()))?;
        inside(a, || fence.put_up(&addresses))?;
        let twice = a.sh(&format!("nft list table inet {}", fence.table()))?;
        ensure!(once == twice, "put up twice it is another one: {once}{twice}");
        ensure!(inside(a, || fence.is_up())?, "{fence:?} is not up");
    }
    let rules = a.sh(&format!("nft list table inet {}", target.table()))?;
    for rule in [
        "ip daddr 10.77.0.1 meta l4proto tcp meta mark != 0x0000c114 drop",
        "ip saddr 10.77.0.1 meta l4proto tcp meta mark != 0x0000c114 drop",
        "ip6 daddr fd77::1 meta l4proto tcp meta mark != 0x0000c114 drop",
        "ip6 saddr fd77::1 meta l4proto tcp meta mark != 0x0000c114 drop",
    ] {
        ensure!(rules.contains(rule), "there is no `{rule}` in {rules}");
    }
    let all = inside(a, Fence::all)?;
    ensure!(all.contains(&target) && all.contains(&source) && all.len() == 2, "found {all:?}");
    for fence in [&target, &source] {
        inside(a, || fence.take_down())?;
        inside(a, || fence.take_down())?;
    }
    ensure!(a.tables()?.is_empty(), "tables are left: {:?}", a.tables());
    Ok(())
}
