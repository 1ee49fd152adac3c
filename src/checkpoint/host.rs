//! The machine a tree was dumped on, as far as a restore elsewhere has to ask.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedHost {
    /// Its name.
    pub hostname: String,
    /// The kernel's release, such as `6.12.0`.
    pub kernel: String,
    /// The kind of machine, such as `x86_64`.
    pub machine: String,
    /// The identity of this boot of the kernel.
    pub boot_id: String,
    /// The size of a memory page, in bytes.
    pub page_size_bytes: u64,
    /// The version of the CRIU used.
    pub criu: String,
    /// Its first processor.
    pub cpu: RecordedCpu,
}

/// A processor, as /proc/cpuinfo shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedCpu {
    /// Such as `GenuineIntel`.
    pub vendor: String,
    /// The model's name.
    pub model: String,
    /// Its features (`flags`, on ARM `Features`), space-separated.
    pub flags: String,
}

impl RecordedHost {
    /// This machine, with the version of the CRIU that is used.
    ///
    /// # Errors
    /// [`Error::System`] or [`Error::Io`] if the kernel does not say.
    pub fn here(criu: impl Into<String>) -> Result<Self> {
        let uname = nix::sys::utsname::uname().map_err(|errno| Error::system("ask for the kernel's version", errno))?;
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        let read = |path: &str| std::fs::read_to_string(path).map_err(Error::io("read", path));
        let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .map_err(|errno| Error::system("ask for the page size", errno))?;
        Ok(Self {
            hostname: text(uname.nodename()),
            kernel: text(uname.release()),
            machine: text(uname.machine()),
            boot_id: read("/proc/sys/kernel/random/boot_id")?.trim().into(),
            page_size_bytes: page_size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            criu: criu.into(),
            cpu: RecordedCpu::parse(&first_processor()?),
        })
    }
}

impl RecordedCpu {
    fn parse(cpuinfo: &str) -> Self {
        let value = |names: &[&str]| {
            let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            let field = fields.find(|(name, _)| names.contains(&name.trim()));
            field.map(|(_, value)| value.trim().to_string()).unwrap_or_default()
        };
        Self {
            vendor: value(&["vendor_id", "CPU implementer"]),
            model: value(&["model name", "CPU part"]),
            flags: value(&["flags", "Features"]),
        }
    }

    /// The features that this processor has and the other has not.
    pub fn missing_in<'a>(&'a self, other: &Self) -> Vec<&'a str> {
        let there: std::collections::HashSet<&str> = other.flags.split_whitespace().collect();
        self.flags.split_whitespace().filter(|flag| !there.contains(flag)).collect()
    }
}

/// /proc/cpuinfo up to the end of the first processor: the whole is long on large machines.
fn first_processor() -> Result<String> {
    use std::io::BufRead as _;

    let path = "/proc/cpuinfo";
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut text = String::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.map_err(Error::io("read", path))?;
        if line.is_empty() {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_what_it_is() {
        let host = RecordedHost::here("4.2.1").unwrap();
        assert_eq!(host.boot_id.len(), 36, "{host:?}");
        assert!(host.page_size_bytes >= 4096 && host.page_size_bytes.is_power_of_two());
        assert!(host.kernel.starts_with(|c: char| c.is_ascii_digit()));
        assert!(host.cpu.missing_in(&host.cpu).is_empty());
    }

    #[test]
    fn a_missing_feature_is_named() {
        let cpu = |flags| {
            RecordedCpu::parse(&format!("processor\t: 0\nvendor_id\t: V\nmodel name\t: M\nflags\t\t: {flags}\n"))
        };
        assert_eq!(cpu("fpu avx2 sse").missing_in(&cpu("sse fpu")), ["avx2"]);
        assert_eq!((cpu("x").vendor, cpu("x").model), ("V".into(), "M".into()));
    }
}
