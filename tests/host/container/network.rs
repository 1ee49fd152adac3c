//! Network namespaces that somebody prepared for a container, as an engine does.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use libtest_mimic::Failed;

use crate::crr::Running;
use crate::until::SOON;

use super::bed::Bed;

static LINKS: AtomicU32 = AtomicU32::new(0);

/// A namespace with a name and `lo` up; it goes when it is dropped.
pub(crate) struct NetworkNamespace {
    name: String,
    /// The end of its pair of devices that the tests have.
    link: Option<String>,
}

/// The two ends of a pair of devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// The tests' own.
    pub(crate) outside: Ipv4Addr,
    /// `eth0` of the namespace.
    pub(crate) inside: Ipv4Addr,
}

impl NetworkNamespace {
    pub(crate) fn create(bed: &Bed, name: &str) -> Result<Self, Failed> {
        let name = bed.id(name);
        ip(&["netns", "add", &name])?;
        let namespace = Self { name, link: None };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// What config.json is to name.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A pair of devices between the tests' namespace and this one, with a network that nobody else has.
    pub(crate) fn connect(&mut self) -> Result<Addresses, Failed> {
        let number = LINKS.fetch_add(1, Ordering::Relaxed);
        let address = |last| Ipv4Addr::new(10, 99, number as u8, last);
        let addresses = Addresses { outside: address(1), inside: address(2) };
        self.connect_at(addresses)?;
        Ok(addresses)
    }

    /// As [`NetworkNamespace::connect`], with the addresses of one before it, which must be gone.
    pub(crate) fn connect_at(&mut self, Addresses { outside, inside }: Addresses) -> Result<(), Failed> {
        let link = format!("bed{}", LINKS.fetch_add(1, Ordering::Relaxed));
        let name = &self.name;
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["addr", "add", &format!("{outside}/24"), "dev", &link])?;
        ip(&["link", "set", &link, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{inside}/24"), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        self.link = Some(link);
        Ok(())
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, words: &[&str]) -> Result<String, Failed> {
        ip(&[&["-n", &self.name], words].concat())
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // Its devices go with its last user, which may be some time later.
        if let Some(link) = &self.link {
            let _ = ip(&["link", "del", link]);
        }
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Runs `ip`, and gives what it printed.
pub(crate) fn ip(words: &[&str]) -> Result<String, Failed> {
    let ran = Running::start(Command::new("ip").args(words))?.end(SOON)?;
    Ok(ran.must_pass(&format!("ip {}", words.join(" ")))?.stdout)
}
