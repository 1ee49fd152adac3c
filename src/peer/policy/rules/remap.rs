//! What a restore makes: files without a name, memory with one, terminals.

use std::path::Path;

use super::super::path::{Found, look, look_around};
use super::super::scene::{Findings, Scene};
use super::super::violation::Line;
use super::credentials::{group_id, user_id};
use crate::images::Kind;

const TYPE: u64 = libc::S_IFMT as u64;
/// Kinds of files that may be made: files, directories, named pipes.
const MADE: [u64; 3] = [libc::S_IFREG as u64, libc::S_IFDIR as u64, libc::S_IFIFO as u64];
/// Set-user-ID, set-group-ID.
const SET_ID: u64 = 0o6000;
const PSEUDO_TERMINAL: u64 = 1;

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    let paths = scene.paths();
    for record in scene.of(Kind::Remaps) {
        let number = |field| record.message.number(field);
        let (file, target) = (number("orig_id").unwrap_or(0), number("remap_id").unwrap_or(0));
        match number("remap_type") {
            Some(1) => {}
            Some(0) => match paths.get(&target) {
                // It is linked to the file's name and unlinked: it must be what it was made as.
                Some(path) => {
                    match look_around(&scene.allowed.create, path).and_then(|()| look(&scene.allowed.create, path)) {
                        Ok(Found::File) => {}
                        Ok(_) => {
                            let what = format!("`{}` is no file that could stand in for another", path.display());
                            findings.refuse_in(record, Line::Create, what);
                        }
                        Err(why) => findings.refuse_in(record, Line::Create, format!("`{}`: {why}", path.display())),
                    }
                }
                None => findings.refuse_in(record, Line::Unrestricted, format!("the file {target} is not there")),
            },
            other => {
                let what = format!("the file {file} is replaced in a way that is not judged ({other:?})");
                findings.refuse_in(record, Line::Unrestricted, what);
            }
        }
    }
    for record in scene.of(Kind::Ghost).filter(|record| record.message.name() == "ghost_file_entry") {
        let number = |field| record.message.number(field).unwrap_or(0);
        let mode = number("mode");
        if !MADE.contains(&(mode & TYPE)) {
            let what = format!("a file of mode {mode:#o} would be made: no plain file, directory or named pipe");
            findings.refuse_in(record, Line::Create, what);
        }
        if mode & SET_ID != 0 {
            findings.refuse_in(
                record,
                Line::Create,
                format!("a file of mode {mode:#o} would be made: set-user-ID or set-group-ID"),
            );
        }
        user_id(scene, record, number("uid"), "the file that would be made is of user", findings);
        group_id(scene, record, number("gid"), "the file that would be made is of group", findings);
    }
    for record in scene.of(Kind::Memfds) {
        let number = |field| record.message.number(field).unwrap_or(0);
        if number("mode") & SET_ID != 0 {
            let what = format!("memory of mode {:#o} would be made: set-user-ID or set-group-ID", number("mode"));
            findings.refuse_in(record, Line::Create, what);
        }
        user_id(scene, record, number("uid"), "the memory that would be made is of user", findings);
        group_id(scene, record, number("gid"), "the memory that would be made is of group", findings);
    }
    for record in scene.of(Kind::Terminals) {
        let kind = record.message.number("type").unwrap_or(0);
        if !scene.allowed.terminals || kind != PSEUDO_TERMINAL {
            findings.refuse_in(record, Line::Terminals, format!("it is a terminal of the type {kind}"));
        }
        if let Some(user) = record.message.number("uid") {
            user_id(scene, record, user, "the terminal is of user", findings);
        }
        if let Some(group) = record.message.number("gid") {
            group_id(scene, record, group, "the terminal is of group", findings);
        }
    }
    names_of_sockets(scene, findings);
}

/// A unix socket with a path: CRIU unlinks what has the name and binds to it anew.
fn names_of_sockets(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    use std::os::unix::ffi::OsStrExt as _;
    for record in scene.of(Kind::Files) {
        let Some(socket) = record.message.message("usk") else { continue };
        let name = socket.bytes("name").unwrap_or_default();
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        // An abstract name is nobody's, and everybody may take one.
        if name.is_empty() || name[0] == 0 {
            continue;
        }
        let directory = socket.bytes("name_dir").unwrap_or_default();
        let path = Path::new(std::ffi::OsStr::from_bytes(directory)).join(std::ffi::OsStr::from_bytes(name));
        let found = match name.contains(&0) {
            true => Err("it has a NUL byte".to_owned()),
            false => look_around(&scene.allowed.create, &path).and_then(|()| look(&scene.allowed.create, &path)),
        };
        match found {
            Ok(Found::Nothing | Found::Socket) => {}
            Ok(_) => findings.refuse_in(record, Line::Create, format!("`{}` is there and no socket", path.display())),
            Err(why) => findings.refuse_in(record, Line::Create, format!("`{}`: {why}", path.display())),
        }
    }
}
