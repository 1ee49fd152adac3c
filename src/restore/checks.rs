//! What can be checked without touching anything. Everything wrong is found at once.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::problem::{Problem, Remarks};
use super::request::{Files, Verify};
use super::subject::Subject;
use crate::checkpoint::{Checkpoint, Difference, DifferenceKind, Manifest, Record, RecordedHost};
use crate::error::{Error, Result};
use crate::host::netlock::Connection;
use crate::images::Images;
use crate::request::{CpuCapabilities, NetworkLock, RestoreOptions, RestoreSwitch, Tcp, Version};

/// The first CRIU that writes pagemaps as older ones cannot read them.
const NEW_PAGEMAPS: Version = Version::new(4, 2);

/// What the checks look at. Owned, as they run beside other things.
pub(super) struct Checks {
    pub(super) images: Images,
    pub(super) checkpoint: Checkpoint,
    pub(super) subject: Subject,
    pub(super) verify: Verify,
    pub(super) files: Files,
    pub(super) options: Facts,
}

/// The options that decide what is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    tcp: Tcp,
    compares_cpu: bool,
    compares_modes: bool,
    takes_terminal: bool,
    has_other_root: bool,
    /// Whether files are the tree's own, in overlays, and can be made what they were.
    mends: bool,
}

impl Facts {
    pub(super) fn of(options: &RestoreOptions, mends: bool) -> Self {
        let on = |switch| options.switches.contains(&switch);
        let terminal_given = options.inherited.iter().any(|inherited| inherited.key.starts_with("tty["));
        Self {
            tcp: options.tcp,
            compares_cpu: options.cpu != Some(CpuCapabilities::None),
            compares_modes: !on(RestoreSwitch::SkipFileRwxCheck),
            takes_terminal: on(RestoreSwitch::ShellJob) && !on(RestoreSwitch::OrphanPtsMaster) && !terminal_given,
            has_other_root: options.root.is_some(),
            mends,
        }
    }

    /// The same with what has been decided about connections.
    pub(super) fn with(self, tcp: Tcp) -> Self {
        Self { tcp, ..self }
    }

    /// Whether programs find here what they found there.
    pub(super) fn check_host(&self, here: &RecordedHost, there: &RecordedHost, found: &mut Found) {
        if !there.machine.is_empty() && there.machine != here.machine {
            let (recorded, here) = (there.machine.clone(), here.machine.clone());
            found.problems.push(Problem::Machine { recorded, here });
            return;
        }
        let (needed, other): (Vec<&str>, Vec<&str>) =
            there.cpu.missing_in(&here.cpu).into_iter().partition(|flag| is_instruction_set(flag));
        if !needed.is_empty() && self.compares_cpu {
            found.problems.push(Problem::Cpu { missing: needed.into_iter().map(str::to_owned).collect() });
        } else if !other.is_empty() {
            found.remarks.note(format!("this CPU lacks features of the dumped one: {}", other.join(" ")));
        }
        let release = |kernel: &str| {
            let mut parts = kernel.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
            Some((parts.next()??, parts.next()??))
        };
        if let (Some(recorded), Some(running)) = (release(&there.kernel), release(&here.kernel)) {
            if running < recorded {
                found.remarks.warn(format!(
                    "this kernel ({}) is older than the dumped one ({}): what programs found there may be missing",
                    here.kernel, there.kernel
                ));
            }
        }
    }

    /// Whether the local addresses of sockets are here, or will be: those in `coming`.
    pub(super) fn check_addresses(
        &self,
        connections: &[Connection],
        listening: &[SocketAddr],
        coming: &[IpAddr],
        found: &mut Found,
    ) {
        if connections.is_empty() && listening.is_empty() {
            return;
        }
        let here = match addresses() {
            Ok(here) => here,
            Err(error) => return found.remarks.warn(format!("the addresses of this host are not known: {error}")),
        };
        let is_here = |address: IpAddr| {
            let is_everywhere = address.is_unspecified() || address.is_loopback() || address.is_multicast();
            is_everywhere || here.contains(&address) || coming.contains(&address)
        };
        if self.tcp == Tcp::Established {
            let mut missing: HashMap<IpAddr, usize> = HashMap::new();
            for connection in connections {
                let address = connection.local.ip().to_canonical();
                if !is_here(address) {
                    *missing.entry(address).or_default() += 1;
                }
            }
            let mut missing: Vec<_> = missing.into_iter().collect();
            missing.sort();
            let problem = |(address, connections)| Problem::Address { address, connections };
            found.problems.extend(missing.into_iter().map(problem));
        }
        for address in listening {
            if !is_here(address.ip().to_canonical()) {
                found.remarks.warn(format!("the tree listens on {address}, which is not an address of this host"));
            }
        }
    }

    /// Whether the files outside the images are as they were.
    pub(super) fn check_files(&self, manifest: &Manifest, files: Files, found: &mut Found) -> Result<()> {
        let kept = |path: &Path| manifest.files().iter().any(|file| file.path == path && file.kept.is_some());
        let keeps_any = manifest.files().iter().any(|file| file.kept.is_some());
        for difference in manifest.compare(Path::new("/"))? {
            match difference.kind {
                DifferenceKind::Missing if kept(&difference.path) => {}
                // Directories come with the files that are put back.
                DifferenceKind::Missing if keeps_any && is_directory(manifest, &difference.path) => {}
                DifferenceKind::Mode { .. } if !self.compares_modes => {}
                _ if self.mends && manifest.can_mend(&difference) => found.mends.push(difference),
                _ if difference.kind.is_fatal() || files == Files::Strict => {
                    found.problems.push(Problem::File(difference));
                }
                _ => found.remarks.warn(difference.to_string()),
            }
        }
        Ok(())
    }
}

/// What the checks found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) problems: Vec<Problem>,
    pub(super) remarks: Remarks,
    /// Files to be mended.
    pub(super) mends: Vec<Difference>,
}

impl Checks {
    /// Runs all of them. Blocks: reads all images if sums are verified.
    ///
    /// # Errors
    /// Only what keeps a check from being made.
    pub(super) fn run(self) -> Result<(Self, Found)> {
        let mut found = Found::default();
        check_images(&self.images, &self.checkpoint, self.verify, &mut found)?;
        if let Some(record) = self.checkpoint.record() {
            self.options.check_host(&RecordedHost::here("")?, &record.host, &mut found);
            self.check_lock(record, &mut found);
        }
        if self.options.tcp == Tcp::Refuse && !self.subject.connections.is_empty() {
            found.problems.push(Problem::Connections(self.subject.connections.clone()));
        }
        self.options.check_addresses(&self.subject.local, &self.subject.listening, &[], &mut found);
        if let Some(signal) = self.subject.parent_death_signal {
            found.remarks.warn(format!(
                "the tree's root gets signal {signal} when its parent ends (PR_SET_PDEATHSIG), which is whoever restores it: \
                 at once after a detached restore, else when crr ends"
            ));
        }
        self.check_files(&mut found)?;
        if self.options.takes_terminal && self.subject.outside_terminal && !std::io::stdin().is_terminal() {
            found.problems.push(Problem::NoTerminal);
        }
        Ok((self, found))
    }

    /// After a reboot, or on another host, nobody expects it.
    fn check_lock(&self, record: &Record, found: &mut Found) {
        let Some(lock) = &record.network_lock else { return };
        let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        if lock.method != NetworkLock::Nftables || here.trim() != record.host.boot_id || self.subject.local.is_empty() {
            return;
        }
        let Some(table) = &lock.table else { return };
        // Without the right to look nothing can be said.
        let Ok(tables) = crate::host::netlink::inet_tables() else { return };
        let name = table.rsplit(' ').next().unwrap_or(table);
        if self.options.tcp == Tcp::Established && !tables.iter().any(|known| known == name) {
            found.remarks.warn(format!(
                "the network lock {table} is gone: this host may have reset connections of the checkpoint meanwhile"
            ));
        }
    }

    fn check_files(&self, found: &mut Found) -> Result<()> {
        // The paths are of a mount namespace that is not there yet.
        if self.subject.own_mounts || self.options.has_other_root {
            return Ok(());
        }
        let of_images;
        let manifest = match self.checkpoint.record() {
            Some(record) => &record.files,
            None => match Manifest::named_by(&self.images) {
                Ok(manifest) => {
                    of_images = manifest;
                    &of_images
                }
                // Told already, with all else that is wrong with the images.
                Err(_) if !found.problems.is_empty() => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        self.options.check_files(manifest, self.files, found)
    }
}

/// Whether each image is as it was written, and the set whole. In this order: a changed image makes others look wrong.
pub(super) fn check_images(images: &Images, checkpoint: &Checkpoint, verify: Verify, found: &mut Found) -> Result<()> {
    match (checkpoint.record().map(|record| &record.sums), verify) {
        (None, _) | (_, Verify::Skip) => {}
        (Some(None), Verify::Sums) => {
            found.remarks.note("the checkpoint has no sums: whether its images are as they were written is not known");
        }
        (Some(Some(sums)), Verify::Sums) => match sums.verify(checkpoint, checkpoint.path()) {
            Err(Error::Sums { wrong, .. }) => found.problems.extend(wrong.into_iter().map(Problem::Sum)),
            other => other?,
        },
    }
    let problems = images.check_set()?;
    found.problems.extend(problems.iter().map(|problem| Problem::Images(problem.to_string())));
    Ok(())
}

fn is_directory(manifest: &Manifest, path: &Path) -> bool {
    const KIND: u32 = libc::S_IFMT;
    let mut files = manifest.files().iter().filter(|file| file.path == path);
    files.any(|file| file.mode.is_some_and(|mode| mode & KIND == libc::S_IFDIR))
}

/// Whether this CRIU can read what the recorded one wrote.
pub(super) fn check_criu(record: Option<&Record>, running: Version, found: &mut Found) {
    let Some(recorded) = record.and_then(|record| record.host.criu.parse::<Version>().ok()) else { return };
    if recorded >= NEW_PAGEMAPS && running < NEW_PAGEMAPS {
        found.problems.push(Problem::Criu { recorded, running });
    } else if running < recorded {
        found.remarks.warn(format!("the images were written by CRIU {recorded}, and this is the older {running}"));
    }
}

/// The addresses of this host's interfaces.
fn addresses() -> std::io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    };
    Ok(interfaces.filter_map(address).collect())
}

/// Whether a feature of /proc/cpuinfo names instructions or state that programs use after looking for it once.
fn is_instruction_set(flag: &str) -> bool {
    const BEGINNINGS: [&str; 30] = [
        "mmx",
        "sse",
        "pni",
        "ssse3",
        "fma",
        "cx8",
        "cx16",
        "cmov",
        "movbe",
        "popcnt",
        "aes",
        "xsave",
        "avx",
        "f16c",
        "rdrand",
        "fsgsbase",
        "bmi",
        "rdseed",
        "adx",
        "clflushopt",
        "clwb",
        "sha",
        "vaes",
        "vpclmulqdq",
        "pclmulqdq",
        "gfni",
        "amx",
        "movdir",
        "3dnow",
        "xop",
    ];
    const WORDS: [&str; 17] = [
        "fpu",
        "abm",
        "lahf_lm",
        "rdtscp",
        "rdpid",
        "serialize",
        "waitpkg",
        "enqcmd",
        "pku",
        "cldemote",
        "tbm",
        "lwp",
        "asimd",
        "asimdhp",
        "atomics",
        "sve",
        "sve2",
    ];
    BEGINNINGS.iter().any(|beginning| flag.starts_with(beginning)) || WORDS.contains(&flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_instruction_set_matters_and_a_power_state_does_not() {
        for flag in ["avx2", "avx512f", "sse4_2", "pni", "sha_ni", "bmi1", "fpu", "abm", "xsavec"] {
            assert!(is_instruction_set(flag), "{flag}");
        }
        for flag in ["constant_tsc", "arat", "hypervisor", "vmx", "md_clear", "mtrr", "nonstop_tsc", "ibrs"] {
            assert!(!is_instruction_set(flag), "{flag}");
        }
    }

    #[test]
    fn the_loopback_device_has_an_address() {
        // A network namespace whose loopback is down has none; then there is nothing to see.
        let here = addresses().unwrap();
        assert!(here.is_empty() || here.iter().all(|address| !address.is_unspecified()), "{here:?}");
    }

    #[test]
    fn a_criu_before_the_new_pagemaps_cannot_read_them() {
        let record = |criu: &str| Record {
            host: RecordedHost { criu: criu.into(), ..Default::default() },
            ..Default::default()
        };
        let check = |recorded: &str, running: &str| {
            let mut found = Found::default();
            check_criu(Some(&record(recorded)), running.parse().unwrap(), &mut found);
            (found.problems.len(), found.remarks.warnings.len())
        };
        assert_eq!(check("4.2.1", "4.1.1"), (1, 0));
        assert_eq!(check("4.2.1", "4.2"), (0, 1));
        assert_eq!(check("4.1.1", "4.2.1"), (0, 0));
        assert_eq!(check("4.2", "4.2"), (0, 0));
        assert_eq!(check("unknown", "4.2"), (0, 0));
    }
}
