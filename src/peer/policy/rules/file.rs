//! Open files: which kinds, and paths.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::super::path::{Found, look, look_around};
use super::super::scene::{Findings, Record, Scene};
use super::super::values::Place;
use super::super::violation::Line;
use super::credentials::needs;
use super::uses::{Uses, writes};
use crate::images::Kind;
use crate::images::message::Message;

/// What a number of a file's type says is in the record, and how that is treated.
#[derive(Clone, Copy)]
enum Sort {
    /// Its own rules judge it.
    Judged,
    /// It gives nothing to who has no file behind it.
    Free,
    /// It takes a capability.
    Needs(&'static str),
    /// Only with `watches`.
    Watch,
    /// Only with `terminals`.
    Terminal,
    /// Only an unrestricted peer may have it.
    Refused(&'static str),
}

/// By CRIU's numbers: the name of the part that holds it.
fn sort(kind: u64) -> Option<(&'static str, Sort)> {
    Some(match kind {
        1 => ("reg", Sort::Judged),
        2 => ("pipe", Sort::Free),
        3 => ("fifo", Sort::Free),
        4 => ("isk", Sort::Judged),
        5 => ("usk", Sort::Judged),
        6 => ("efd", Sort::Free),
        7 => ("epfd", Sort::Free),
        8 => ("ify", Sort::Watch),
        9 => ("sgfd", Sort::Free),
        10 => ("psk", Sort::Needs("net_raw")),
        11 => ("tty", Sort::Terminal),
        12 => ("ffy", Sort::Refused("fanotify opens the files of others")),
        13 => ("nlsk", Sort::Judged),
        14 => ("nsf", Sort::Refused("it is an open namespace")),
        15 => ("tunf", Sort::Refused("it is a network device")),
        16 => ("ext", Sort::Refused("a plugin of CRIU's restores it")),
        17 => ("tfd", Sort::Free),
        18 => ("memfd", Sort::Judged),
        19 => ("bpf", Sort::Refused("it is a BPF map")),
        20 => ("pidfd", Sort::Free),
        _ => return None,
    })
}

/// The parts of which a record has one.
const PARTS: [&str; 20] = [
    "reg", "isk", "nsf", "psk", "nlsk", "efd", "epfd", "sgfd", "tunf", "tfd", "ify", "ffy", "ext", "usk", "fifo",
    "pipe", "tty", "memfd", "bpf", "pidfd",
];

pub(super) fn judge(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    let uses = Uses::of(scene);
    let mut seen = HashSet::new();
    for record in scene.of(Kind::Files) {
        let number = |field| record.message.number(field).unwrap_or(0);
        let (kind, id) = (number("type"), number("id"));
        let Some((part, sort)) = sort(kind) else {
            findings.refuse_in(record, Line::Unrestricted, format!("the file {id} is of an unknown type, {kind}"));
            continue;
        };
        // CRIU goes by the type and by the number in the part: nothing else may be there to be read differently.
        let parts: Vec<&Message> = PARTS.iter().filter_map(|part| record.message.message(part)).collect();
        let own = record.message.message(part).filter(|own| own.number("id") == Some(id));
        let (Some(own), true) = (own, parts.len() == 1) else {
            findings.refuse_in(record, Line::Unrestricted, format!("the file {id} is not what its type says"));
            continue;
        };
        if !seen.insert((kind, id)) {
            findings.refuse_in(record, Line::Unrestricted, format!("the number {id} is that of two files"));
        }
        match sort {
            Sort::Judged | Sort::Free => {}
            Sort::Needs(capability) => needs(scene, record, capability, &format!("the file {id} ({part})"), findings),
            Sort::Watch if scene.allowed.watches => {}
            Sort::Watch => {
                findings.refuse_in(record, Line::Watches, format!("the file {id} watches others (inotify)"));
            }
            Sort::Terminal if scene.allowed.terminals => {}
            Sort::Terminal => findings.refuse_in(record, Line::Terminals, format!("the file {id} is a terminal")),
            Sort::Refused(why) => findings.refuse_in(record, Line::Unrestricted, format!("the file {id}: {why}")),
        }
        if part == "reg" {
            regular(scene, record, own, &uses, findings);
        }
    }
    for record in scene.of(Kind::Descriptors) {
        let label = record.message.bytes("xattr_security_selinux").map(String::from_utf8_lossy);
        if let Some(label) = label.filter(|label| !scene.allowed.profiles.iter().any(|allowed| allowed == label)) {
            findings.refuse_in(record, Line::Profiles, format!("a descriptor is labelled `{label}`"));
        }
    }
}

fn regular(scene: &Scene<'_>, record: &Record, file: &Message, uses: &Uses, findings: &mut Findings<'_>) {
    let id = file.number("id").unwrap_or(0);
    let path = Path::new(std::ffi::OsStr::from_bytes(file.bytes("name").unwrap_or_default()));
    if file.number("ext").unwrap_or(0) != 0 {
        findings.refuse_in(record, Line::Unrestricted, format!("`{}` comes from outside", path.display()));
    }
    if uses.terminals.contains(&id) && !is_pseudo_terminal(path) {
        let what = format!("the terminal `{}` is no pseudo terminal", path.display());
        findings.refuse_in(record, Line::Terminals, what);
    }
    // Whatever refers to it, CRIU opens it with these.
    let written = writes(file.number("flags").unwrap_or(0));
    let opened = uses.opened.contains(&id) || uses.is_unused(id);
    let mut lines: Vec<(Line, &[Place])> = Vec::new();
    if opened && !written {
        lines.push((Line::Open, &scene.allowed.open));
    }
    if written || uses.written.contains(&id) {
        lines.push((Line::Write, &scene.allowed.write));
    }
    if uses.mapped.contains(&id) {
        lines.push((Line::Map, &scene.allowed.map));
    }
    // Everybody may be in the root of all.
    if uses.directories.contains(&id) && path != Path::new("/") {
        lines.push((Line::Open, &scene.allowed.open));
    }
    let nameless = uses.ghosts.contains(&id) || uses.linked.contains(&id);
    if nameless {
        lines.push((Line::Create, &scene.allowed.create));
    }
    for (line, places) in lines {
        let found = match nameless {
            // Of what is made only the directory is there.
            true => look_around(places, path).and_then(|()| look(places, path)).map(|_| ()),
            false => look(places, path).and_then(|found| match found {
                Found::Nothing => Err("it is not there".into()),
                Found::Socket => Err("it is a socket".into()),
                Found::File | Found::Directory => Ok(()),
            }),
        };
        if let Err(why) = found {
            findings.refuse_in(record, line, format!("`{}`: {why}", path.display()));
        }
    }
}

fn is_pseudo_terminal(path: &Path) -> bool {
    let number = path.strip_prefix("/dev/pts").ok().and_then(Path::to_str);
    path == Path::new("/dev/ptmx")
        || path == Path::new("/dev/pts/ptmx")
        || number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}
