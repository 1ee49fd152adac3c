//! Mappings. Which files they are of is judged with the files.

use super::super::scene::{Findings, Scene};
use super::super::violation::Line;
use super::uses::mapped_file;
use crate::images::Kind;

/// What may be mapped: memory, the stack, the kernel's own pages, files, shared memory, rings of asynchronous I/O, memfds,
/// shadow stacks, guard pages.
const KNOWN: u64 = 0b1111 | 0b11111 << 5 | 0b1_1111 << 12;

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    let paths = scene.paths();
    for record in scene.of(Kind::Memory) {
        for mapping in record.message.messages("vmas") {
            let number = |field| mapping.number(field).unwrap_or(0);
            let (start, end, status) = (number("start"), number("end"), number("status"));
            if status & !KNOWN != 0 {
                let what = format!("the mapping {start:#x}-{end:#x} is of a kind that is not judged ({status:#x})");
                findings.refuse_in(record, Line::Unrestricted, what);
            }
            if let Some(file) = mapped_file(mapping).filter(|file| !paths.contains_key(file)) {
                let what = format!("the mapping {start:#x}-{end:#x} is of the file {file}, which has no path");
                findings.refuse_in(record, Line::Unrestricted, what);
            }
        }
        let executable = record.message.number("exe_file_id").unwrap_or(0);
        if !paths.contains_key(&executable) {
            findings.refuse_in(
                record,
                Line::Unrestricted,
                format!("its executable is the file {executable}, which has no path"),
            );
        }
    }
    for record in scene.of(Kind::Directories) {
        for directory in ["cwd_id", "root_id"] {
            let file = record.message.number(directory).unwrap_or(0);
            if !paths.contains_key(&file) {
                findings.refuse_in(record, Line::Unrestricted, format!("its {directory} is {file}, which has no path"));
            }
        }
    }
}
