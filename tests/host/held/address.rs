//! Addresses: taken off and put back with all that goes with them, and announced.

use ::crr::host::address::{Address, Held, announce};
use libtest_mimic::{Failed, Trial};

use super::inside;
use crate::bed::{Bed, Host};
use crate::need::Need::{self, Netns, Python3, Root};
use crate::until::{SOON, until};
use crate::{Outcome, ensure, test};

const NEEDS: &[Need] = &[Root, Netns];

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("held::an_ipv4_address_comes_back_with_its_routes_and_its_neighbours", NEEDS, ipv4),
        test("held::an_ipv6_address_comes_back_and_is_there_at_once", NEEDS, ipv6),
        test("held::an_address_that_is_announced_is_found_on_its_new_host", &[Root, Netns, Python3], announced),
    ]
}

/// All addresses and routes of a host, in an order of their own.
fn picture(host: &Host) -> Result<Vec<String>, Failed> {
    let text = host.sh("ip -o addr show dev eth0; ip route show table all; ip -6 route show table all")?;
    // A lifetime counts down, and IPv6 numbers its routes.
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    Ok(lines)
}

fn look(host: &Host, address: &str) -> Result<Option<Held>, Failed> {
    let address = address.parse()?;
    let held = inside(host, || Held::look(address))?;
    // As the journal keeps it.
    let text = serde_json::to_string(&held)?;
    let read: Option<Held> = serde_json::from_str(&text)?;
    ensure!(read == held, "{text} is not {held:?}");
    Ok(read)
}

fn ipv4() -> Outcome {
    let bed = Bed::new(&["a"], &[])?;
    let a = bed.host("a");
    a.sh("ip addr add 10.78.0.5/24 broadcast 10.78.0.255 label eth0:x dev eth0; ip addr add 10.78.0.6/24 dev eth0
          ip addr add 10.79.0.1/32 scope link dev eth0
          ip route add 192.0.2.0/24 via 10.78.0.1 src 10.78.0.5
          ip route add 198.51.100.0/24 dev eth0 src 10.78.0.5 table 100 metric 7
          ip route add default via 10.77.0.254")?;
    let before = picture(a)?;
    for address in ["10.78.0.5", "10.79.0.1"] {
        let held = look(a, address)?.ok_or("it is not found")?;
        inside(a, || held.take_off())?;
        inside(a, || held.take_off())?;
        ensure!(look(a, address)?.is_none(), "{address} is still there");
        let now = picture(a)?;
        ensure!(now.iter().any(|line| line.contains(" 10.78.0.6/24 ")), "the other address went along: {now:#?}");
        ensure!(
            now.iter().any(|line| line.starts_with("default via 10.77.0.254 ")),
            "the default route went: {now:#?}"
        );
        inside(a, || held.put_back())?;
        inside(a, || held.put_back())?;
        // Which of two addresses of one network came first is another now.
        let plain = |lines: &[String]| -> Vec<String> {
            let mut lines: Vec<_> = lines
                .iter()
                .map(|line| line.replace("secondary ", "").replace("src 10.78.0.6", "src 10.78.0.5"))
                .collect();
            lines.sort();
            lines
        };
        let after = picture(a)?;
        ensure!(plain(&after) == plain(&before), "{address}: before {before:#?}\nafter {after:#?}");
    }
    Ok(())
}

fn ipv6() -> Outcome {
    let bed = Bed::new(&["a"], &[])?;
    let a = bed.host("a");
    let address = Address::new("fd78::5".parse()?, 64, "eth0");
    inside(a, || address.put_on())?;
    let shown = a.sh("ip -6 addr show dev eth0")?;
    let line = shown.lines().find(|line| line.contains("fd78::5/64")).ok_or("it is not there")?;
    ensure!(!line.contains("tentative"), "{line}");
    inside(a, || address.put_on())?;
    a.sh("ip -6 route add 2001:db8::/32 via fd78::1; ip -6 route add 2001:db8:1::/48 dev eth0 src fd78::5")?;
    let before = picture(a)?;
    let held = look(a, "fd78::5")?.ok_or("it is not found")?;
    inside(a, || held.take_off())?;
    inside(a, || held.take_off())?;
    ensure!(look(a, "fd78::5")?.is_none(), "it is still there");
    inside(a, || held.put_back())?;
    inside(a, || held.put_back())?;
    let after = picture(a)?;
    ensure!(after == before, "before {before:#?}\nafter {after:#?}");
    let nowhere = Address::new("10.78.0.5".parse()?, 32, "eth9");
    ensure!(inside(a, || nowhere.put_on()).is_err(), "a device that is not there took an address");
    Ok(())
}

fn announced() -> Outcome {
    let bed = Bed::new(&["a", "b", "client"], &[])?;
    let (a, b, client) = (bed.host("a"), bed.host("b"), bed.host("client"));
    for address in ["10.77.0.100", "fd77::100"] {
        a.add_address(address)?;
        // Whether anybody listens does not matter: the client has asked for the hardware address then.
        let line = "import socket, sys; socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, \
                    socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 9))";
        client.run(["python3", "-c", line, address])?.must_pass("a datagram")?;
        let known = || client.sh(&format!("ip neigh show {address} dev eth0"));
        let [of_a, of_b] = [a, b].map(|host| host.read("/sys/class/net/eth0/address").trim().to_owned());
        until("the client to know a's address", SOON, || known().ok()?.contains(&of_a).then_some(()))?;
        let parsed = address.parse()?;
        inside(a, || Held::look(parsed)?.map_or(Ok(()), |held| held.take_off()))?;
        inside(b, || Address::new(parsed, if parsed.is_ipv4() { 32 } else { 128 }, "eth0").put_on())?;
        inside(b, || announce(parsed, "eth0"))?;
        until("the client to know b's address", SOON, || known().ok()?.contains(&of_b).then_some(()))
            .map_err(|failed| format!("{}: {}", failed.message().unwrap_or_default(), known().unwrap_or_default()))?;
    }
    inside(b, || announce("10.77.0.100".parse().map_err(|_| ::crr::Error::Bug { what: "no address" })?, "lo"))?;
    Ok(())
}
