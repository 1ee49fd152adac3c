//! Who watches over a container: an engine's shim takes its end for its failure.

use std::fs;
use std::path::Path;

use crate::process::Stat;

/// A live process of a container engine that is the parent of a container's first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shim {
    pub(super) pid: i32,
    /// Its name, as the kernel has it: cut to 15 bytes.
    pub(super) comm: String,
    /// Whose it is.
    engine: &'static str,
}

impl Shim {
    /// The shim of the container with that first process.
    pub(super) fn of(init: i32, runtime_root: &Path) -> Option<Self> {
        let parent = stat(init)?.ppid;
        if parent <= 1 {
            return None;
        }
        let comm = stat(parent)?.comm;
        let engine = engine(&comm, &runtime_root.to_string_lossy())?;
        Some(Self { pid: parent, comm, engine })
    }

    /// What is to be expected of it.
    pub(super) fn consequence(&self) -> String {
        let Self { pid, comm, engine } = self;
        format!(
            "process {pid} ({comm}) watches over the container for {engine}: once it is ended, {engine} sees exit status \
             137, and a restart policy starts a second copy beside the one that is restored"
        )
    }
}

fn stat(pid: i32) -> Option<Stat> {
    Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The engine by the name of its shim and the place of its containers' state.
fn engine(comm: &str, root: &str) -> Option<&'static str> {
    match comm {
        // Of `containerd-shim-runc-v2` the kernel keeps this much.
        _ if comm.starts_with("containerd-shim") => Some(match root {
            _ if root.contains("/moby") || root.contains("docker") => "Docker",
            _ if root.contains("k8s.io") => "Kubernetes (containerd)",
            _ => "containerd",
        }),
        "conmon" | "conmonrs" => Some(if root.contains("crio") { "CRI-O" } else { "podman or CRI-O" }),
        "docker-containe" | "dockerd" => Some("Docker"),
        "crio" | "podman" => Some("podman or CRI-O"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_known_by_their_shims() {
        let table = [
            ("containerd-shim", "/run/docker/runtime-runc/moby", Some("Docker")),
            ("containerd-shim", "/run/containerd/runc/k8s.io", Some("Kubernetes (containerd)")),
            ("containerd-shim", "/run/containerd/runc/default", Some("containerd")),
            ("conmon", "/run/runc", Some("podman or CRI-O")),
            ("sh", "/run/runc", None),
            ("runc", "/run/runc", None),
        ];
        for (comm, root, expected) in table {
            assert_eq!(engine(comm, root), expected, "{comm} {root}");
        }
    }

    #[test]
    fn a_process_of_this_test_has_no_shim() {
        assert_eq!(Shim::of(std::process::id() as i32, Path::new("/run/runc")), None);
        assert_eq!(Shim::of(i32::MAX, Path::new("/run/runc")), None);
    }
}
