//! What the kernel runs in, and what this process is confined to.

use std::path::Path;

use rustix::fs::statfs;
use serde::Serialize;

use super::kernel::KernelRelease;

/// `f_type` of a tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Windows' Subsystem for Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wsl {
    /// Version 1: no Linux kernel at all, CRIU cannot work.
    One,
    /// Version 2: a Linux kernel, built by Microsoft.
    Two,
}

impl Wsl {
    /// By the kernel's release: `4.4.0-19041-Microsoft`, or `5.15.167.4-microsoft-standard-WSL2`.
    pub fn of(release: &KernelRelease) -> Option<Self> {
        let release = release.to_string();
        match () {
            () if release.ends_with("-Microsoft") => Some(Self::One),
            () if release.contains("microsoft") || release.contains("WSL2") => Some(Self::Two),
            () => None,
        }
    }
}

/// The user namespace of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// The machine's own.
    Initial,
    /// A smaller one: root here is somebody else on the machine, as in an unprivileged container.
    Nested,
}

impl UserNamespace {
    /// From the text of `/proc/self/uid_map`.
    fn from_map(map: &str) -> Self {
        let words: Vec<&str> = map.split_whitespace().collect();
        match words == ["0", "0", "4294967295"] {
            true => Self::Initial,
            false => Self::Nested,
        }
    }
}

/// What this process is confined to, and what of the file system matters to CRIU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// Windows' Subsystem for Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wsl: Option<Wsl>,
    /// The user namespace.
    pub user_namespace: UserNamespace,
    /// Whether /run is a tmpfs: CRIU keeps what it learnt about the kernel only there, and learns it anew (25 to 45 ms) for
    /// every operation otherwise.
    pub run_is_tmpfs: bool,
    /// Whether an empty `/run/criu.kdat.tmp` of an interrupted CRIU is there, which keeps every later one from saving what it
    /// learnt. Only said where /run is a tmpfs; elsewhere each CRIU leaves one, and it does not matter.
    pub stale_kernel_cache: bool,
}

impl Environment {
    /// Looks at the machine.
    pub fn look(release: &KernelRelease) -> Self {
        let run = Path::new("/run");
        let run_is_tmpfs = statfs(run).is_ok_and(|fs| fs.f_type as u64 == TMPFS_MAGIC);
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self {
            wsl: Wsl::of(release),
            user_namespace: UserNamespace::from_map(&map),
            run_is_tmpfs,
            stale_kernel_cache: run_is_tmpfs && cache_is_stale(run),
        }
    }
}

/// Whether CRIU's cache was begun and never finished.
fn cache_is_stale(run: &Path) -> bool {
    let begun = run.join("criu.kdat.tmp").metadata();
    begun.is_ok_and(|file| file.len() == 0) && !run.join("criu.kdat").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_wsl_are_told_by_the_release() {
        let wsl = |text: &str| Wsl::of(&text.parse().expect(text));
        assert_eq!(wsl("4.4.0-19041-Microsoft"), Some(Wsl::One));
        assert_eq!(wsl("5.15.167.4-microsoft-standard-WSL2"), Some(Wsl::Two));
        assert_eq!(wsl("6.6.0-custom-WSL2+"), Some(Wsl::Two));
        assert_eq!(wsl("6.12.48+deb13-cloud-amd64"), None);
    }

    #[test]
    fn only_the_identity_map_of_all_ids_is_the_initial_namespace() {
        assert_eq!(UserNamespace::from_map("         0          0 4294967295\n"), UserNamespace::Initial);
        assert_eq!(UserNamespace::from_map("         0     100000      65536\n"), UserNamespace::Nested);
        assert_eq!(UserNamespace::from_map("0 0 1\n1 1 4294967294\n"), UserNamespace::Nested);
    }

    #[test]
    fn an_empty_cache_file_is_stale_only_without_the_finished_one() {
        let run = tempfile::tempdir().expect("directory");
        assert!(!cache_is_stale(run.path()));
        std::fs::write(run.path().join("criu.kdat.tmp"), "").expect("file");
        assert!(cache_is_stale(run.path()));
        std::fs::write(run.path().join("criu.kdat"), "x").expect("file");
        assert!(!cache_is_stale(run.path()));
    }
}
