//! Mappings that CRIU cannot dump.

use std::path::Path;

use crate::process::{FileStatus, Kind, Mapping, MappingKind, Memory, Task};

use super::circumstances::KernelRelease;
use super::devices;
use super::examine::{Examination, described};

/// In trees of more mappings, or with more memory in RAM, nobody looks for sealed ones: it would cost more than all the rest.
const SEALED_MAPPINGS: u64 = 300;
const SEALED_BYTES: u64 = 256 << 20;

pub(super) fn look(examination: &mut Examination<'_>) {
    look_for_sealed(examination);
    for task in &examination.tree.tasks {
        if task.status.has_memory && task.memory.mappings > 0 && !task.memory.has_vdso {
            examination.findings.warn(
                "no-vdso",
                task.pid(),
                format!("{} has unmapped the page of the kernel's fast system calls (the vDSO)", described(task)),
                "the dump passes, but CRIU cannot restore it",
            );
        }
        if task.memory.runs_at_zero {
            examination.findings.will_not(
                "code-at-zero",
                task.pid(),
                format!(
                    "{} has mapped code at address 0 (MMAP_PAGE_ZERO), where CRIU would start its own",
                    described(task)
                ),
                "start the program without that personality (setarch --mmap-page-zero), or let it unmap the page",
            );
        }
        for mapping in &task.memory.notable {
            look_at(examination, task, mapping);
        }
    }
}

fn look_for_sealed(examination: &mut Examination<'_>) {
    let tree = examination.tree;
    let tasks = || tree.tasks.iter().filter(|task| task.status.has_memory);
    let mappings: u64 = tasks().map(|task| u64::from(task.memory.mappings)).sum();
    let bytes = tasks().fold(0u64, |sum, task| sum.saturating_add(task.status.anonymous_bytes));
    // mseal(2) came with Linux 6.10.
    let possible =
        examination.circumstances.kernel.is_none_or(|kernel| kernel >= (KernelRelease { major: 6, minor: 10 }));
    if !possible || mappings > SEALED_MAPPINGS || bytes > SEALED_BYTES {
        return;
    }
    for task in tasks() {
        if let Ok(count @ 1..) = Memory::sealed(task.pid()) {
            examination.findings.warn(
                "sealed-memory",
                task.pid(),
                format!("{} has sealed {count} of its mappings (mseal)", described(task)),
                "the dump passes, but after the restore they are not sealed: nothing will say so",
            );
        }
    }
}

fn look_at(examination: &mut Examination<'_>, task: &Task, mapping: &Mapping) {
    let who = described(task);
    let pid = task.pid();
    let at = format!("{:x}", mapping.start);
    match mapping.kind {
        MappingKind::Parasite => examination.findings.warn(
            "parasite",
            pid,
            format!("{who} still has memory of a CRIU that was killed during an earlier dump (/memfd:CRIUMFD at {at})"),
            "it does no harm and becomes part of the images; only a restart of the program removes it",
        ),
        MappingKind::Uprobes if !examination.intent.allow_uprobes => examination.findings.will_not(
            "uprobes",
            pid,
            format!("{who} is being probed (a [uprobes] mapping at {at})"),
            "end the tracing (bpftrace, perf probe) and restart the program; or give CRIU 4.2 its option allow-uprobes by a configuration file",
        ),
        MappingKind::SysV if !has_own_ipc(examination) => examination.findings.will_not(
            "sysv-shm",
            pid,
            format!("{who} has SysV shared memory attached ({} at {at}) and shares the machine's IPC namespace", mapping.path.display()),
            "start the tree in an IPC namespace of its own (unshare --ipc), or let the program use memory of another kind",
        ),
        MappingKind::KernelObject => {
            let name = mapping.path.display().to_string();
            let cure = if name.contains("io_uring") {
                "turn io_uring off in the program: CRIU cannot save it"
            } else {
                "CRIU cannot save such memory: let the program unmap it before the dump"
            };
            let id = if name.contains("io_uring") { "io-uring" } else { "kernel-object-mapping" };
            examination.findings.will_not(id, pid, format!("{who} has mapped the kernel object {name} at {at}"), cure);
        }
        MappingKind::Socket => {
            let open = task.descriptors.iter().any(|descriptor| descriptor.kind == Kind::Socket && descriptor.inode == mapping.inode);
            if !open {
                examination.findings.will_not(
                    "socket-mapping",
                    pid,
                    format!("{who} has mapped the ring of a packet socket at {at}, and closed the socket"),
                    "keep the socket open while its ring is mapped, or unmap it",
                );
            }
        }
        MappingKind::Device => look_at_device(examination, task, mapping),
        _ => {}
    }
}

fn look_at_device(examination: &mut Examination<'_>, task: &Task, mapping: &Mapping) {
    let link = format!("/proc/{}/map_files/{:x}-{:x}", task.pid(), mapping.start, mapping.end);
    let Ok(status) = FileStatus::read(Path::new(&link)) else { return };
    let plain = status.file_type() == libc::S_IFREG
        || (status.file_type() == libc::S_IFCHR && devices::is_zero(status.special_device));
    if !plain {
        examination.findings.will_not(
            "device-mapping",
            task.pid(),
            format!("{} has mapped the device {} at {:x}", described(task), mapping.path.display(), mapping.start),
            "CRIU cannot save the memory of a device: let the program unmap it before the dump",
        );
    }
}

fn has_own_ipc(examination: &Examination<'_>) -> bool {
    let (own, root) = (examination.tree.own_namespaces.ipc, examination.tree.root().namespaces.ipc);
    own != 0 && root != 0 && own != root
}
