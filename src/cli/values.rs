//! Option values and the groups of options that dump and restore share.

use std::time::Duration;

use clap::{Args, ValueEnum};
use crr::request::{CgroupMode, CgroupOptions, CgroupRoot, CpuCapabilities, EmptyNamespace, Log, NetworkLock};

/// `30`, `1.5`: seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a number of seconds above 0, such as 30 or 1.5");
    let seconds: f64 = text.parse().map_err(|_| bad())?;
    if seconds <= 0.0 {
        return Err(bad());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

/// `1048576`, `64M`, `1G`: bytes, as CRIU takes them; below 4 GiB.
pub(crate) fn size(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a size below 4G, such as 1048576, 512K or 64M");
    let (number, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(bad)?;
    u32::try_from(bytes).map_err(|_| bad())
}

/// A path, made absolute: CRIU opens it after it has gone elsewhere.
pub(crate) fn absolute(text: &str) -> Result<String, String> {
    let path = std::path::absolute(text).map_err(|error| error.to_string())?;
    path.into_os_string().into_string().map_err(|_| "CRIU takes only paths in UTF-8 here".to_owned())
}

/// `--network-lock METHOD`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lock {
    Iptables,
    Nftables,
    Skip,
}

impl From<Lock> for NetworkLock {
    fn from(lock: Lock) -> Self {
        match lock {
            Lock::Iptables => Self::Iptables,
            Lock::Nftables => Self::Nftables,
            Lock::Skip => Self::Skip,
        }
    }
}

/// `--cpu-cap CAP`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CpuCap {
    None,
    Fpu,
    Cpu,
    Ins,
    All,
}

impl From<CpuCap> for CpuCapabilities {
    fn from(cpu: CpuCap) -> Self {
        match cpu {
            CpuCap::None => Self::None,
            CpuCap::Fpu => Self::Fpu,
            CpuCap::Cpu => Self::Cpu,
            CpuCap::Ins => Self::Instructions,
            CpuCap::All => Self::All,
        }
    }
}

/// `--empty-ns NS`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmptyNs {
    #[value(alias = "network")]
    Net,
}

impl From<EmptyNs> for EmptyNamespace {
    fn from(EmptyNs::Net: EmptyNs) -> Self {
        Self::Network
    }
}

/// `--manage-cgroups [MODE]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManageCgroups {
    Ignore,
    None,
    Props,
    Soft,
    Full,
    Strict,
}

/// What dump and restore have in common about cgroups.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cgroups")]
pub(crate) struct CgroupArgs {
    /// How far CRIU manages cgroups [default: ignore; without a value: soft]
    #[arg(long, visible_alias = "manage-cgroups-mode", value_enum, value_name = "MODE", num_args = 0..=1,
          default_missing_value = "soft", require_equals = true)]
    manage_cgroups: Option<ManageCgroups>,
    /// A new root for the recorded cgroups, of one controller or of all
    #[arg(long, value_name = "[CONTROLLER:]/PATH")]
    cgroup_root: Vec<String>,
    /// A directory that has the controllers mounted
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    cgroup_yard: Option<String>,
}

impl CgroupArgs {
    pub(crate) fn options(self) -> CgroupOptions {
        let Self { manage_cgroups, cgroup_root, cgroup_yard } = self;
        CgroupOptions {
            mode: manage_cgroups.map(|mode| match mode {
                ManageCgroups::Ignore => CgroupMode::Ignore,
                ManageCgroups::None => CgroupMode::None,
                ManageCgroups::Props => CgroupMode::Props,
                ManageCgroups::Soft => CgroupMode::Soft,
                ManageCgroups::Full => CgroupMode::Full,
                ManageCgroups::Strict => CgroupMode::Strict,
            }),
            roots: cgroup_root.into_iter().map(root).collect(),
            yard: cgroup_yard,
        }
    }
}

/// `[CONTROLLER:]/PATH`
fn root(text: String) -> CgroupRoot {
    match text.split_once(':') {
        Some((controller, path)) if !controller.contains('/') => {
            CgroupRoot { controller: Some(controller.into()), path: path.into() }
        }
        _ => CgroupRoot { controller: None, path: text },
    }
}

/// CRIU's log.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "CRIU's log")]
pub(crate) struct LogArgs {
    /// How much CRIU logs: 1 errors, 2 warnings, 3 information, 4 debugging [default: 2]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=4))]
    log_level: Option<u8>,
    /// The same in CRIU's spelling: -v4 or -vvvv
    #[arg(short = 'v', long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "", action = clap::ArgAction::Append)]
    verbosity: Vec<String>,
    /// The log's name, in the directory of the checkpoint
    #[arg(long, short = 'o', value_name = "NAME")]
    log_file: Option<String>,
}

impl LogArgs {
    /// # Errors
    /// What is no level.
    pub(crate) fn write(self, log: &mut Log) -> Result<(), String> {
        let Self { log_level, verbosity, log_file } = self;
        if let Some(level) = log_level.map(Ok).or_else(|| level_of(&verbosity)).transpose()? {
            log.level = level;
        }
        if let Some(file) = log_file {
            log.file = file;
        }
        Ok(())
    }
}

/// The level of `-v4`, `-vvvv` (which clap hands over as `vvv`), `-v -v` or `--verbosity=4`; none without any.
fn level_of(words: &[String]) -> Option<Result<u8, String>> {
    if words.is_empty() {
        return None;
    }
    let mut level: u8 = 0;
    for word in words {
        level = match word.as_str() {
            word if word.chars().all(|letter| letter == 'v') => {
                level.saturating_add(u8::try_from(word.len() + 1).unwrap_or(u8::MAX))
            }
            number => match number.parse() {
                Ok(level) => level,
                Err(_) => return Some(Err(format!("`{number}` is no log level: 0 to 4, or -vvvv"))),
            },
        };
    }
    Some(if level <= 4 { Ok(level) } else { Err(format!("{level} is no log level: 0 to 4")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_criu_reads_them() {
        assert_eq!(size("1048576"), Ok(1 << 20));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("512k"), Ok(512 << 10));
        for bad in ["", "M", "4G", "-1", "1T", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_above_zero() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn log_levels_are_understood_in_each_spelling() {
        let level = |words: &[&str]| level_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(level(&[]), None);
        assert_eq!(level(&[""]), Some(Ok(1)));
        assert_eq!(level(&["4"]), Some(Ok(4)));
        assert_eq!(level(&["vvv"]), Some(Ok(4)));
        assert_eq!(level(&["", ""]), Some(Ok(2)));
        assert!(level(&["9"]).is_some_and(|level| level.is_err()));
        assert!(level(&["x"]).is_some_and(|level| level.is_err()));
    }

    #[test]
    fn a_cgroup_root_may_name_its_controller() {
        assert_eq!(root("/a".into()), CgroupRoot { controller: None, path: "/a".into() });
        assert_eq!(root("cpu:/a".into()), CgroupRoot { controller: Some("cpu".into()), path: "/a".into() });
        assert_eq!(root("/a:b".into()), CgroupRoot { controller: None, path: "/a:b".into() });
    }
}
