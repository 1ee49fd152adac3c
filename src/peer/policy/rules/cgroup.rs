//! Cgroups: where the tasks go, and what is made and set for them.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::super::scene::{Findings, Record, Scene};
use super::super::values::{Place, is_plain};
use super::super::violation::Line;
use crate::images::Kind;
use crate::images::message::Message;

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for record in scene.of(Kind::Cgroups) {
        for member in record.message.every("cg_member_entry") {
            let path = path(member.bytes("path"));
            if !is_allowed(scene, &path) {
                let controller = String::from_utf8_lossy(member.bytes("name").unwrap_or_default());
                let what = format!("tasks go to the cgroup `{}` ({controller})", path.display());
                findings.refuse_in(record, Line::Cgroups, what);
            }
        }
        for controller in record.message.messages("controllers") {
            for directory in controller.messages("dirs") {
                made(scene, record, Path::new("/"), directory, findings);
            }
        }
    }
}

/// A directory that is made where it is missing, with all below it.
fn made(scene: &Scene<'_>, record: &Record, above: &Path, directory: &Message, findings: &mut Findings<'_>) {
    let path = above.join(path(directory.bytes("dir_name")));
    let sets = directory.messages("properties").next().is_some() || directory.message("dir_perms").is_some();
    // One on the way to an allowed one is there already.
    let passed = !sets && is_plain(&path) && Place::is_below(&scene.allowed.cgroups, &path);
    if !passed && !is_allowed(scene, &path) {
        findings.refuse_in(record, Line::Cgroups, format!("the cgroup `{}` would be made or set", path.display()));
    }
    for property in directory.messages("properties") {
        let name = property.bytes("name").unwrap_or_default();
        let plain = name.iter().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(c)) && !name.starts_with(b".");
        // It names a program that the kernel runs as root.
        if !plain || name == b"release_agent" {
            let what = format!("the property `{}` would be set", String::from_utf8_lossy(name));
            findings.refuse_in(record, Line::Unrestricted, what);
        }
    }
    for child in directory.messages("children") {
        made(scene, record, &path, child, findings);
    }
}

fn path(bytes: Option<&[u8]>) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes.unwrap_or_default()))
}

fn is_allowed(scene: &Scene<'_>, path: &Path) -> bool {
    is_plain(path) && Place::around(&scene.allowed.cgroups, path).is_some()
}
