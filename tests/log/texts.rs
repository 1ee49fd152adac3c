//! The catalogue's patterns against the format strings in the installed CRIU: a text that CRIU has changed is noticed.

use std::path::PathBuf;
use std::{env, fs};

use crr::log::entries;
use libtest_mimic::{Failed, Trial};

/// Patterns that name what CRIU's format string leaves open, and that string.
const SPELLED: &[(&str, &str)] = &[
    ("sockets: Can't get 1:16 opt: Operation not supported", "sockets: Can't get %d:%d opt: %s"),
    ("sockets: Can't get 1:34 opt: Operation not supported", "sockets: Can't get %d:%d opt: %s"),
    ("inet: Can't bind inet socket (id {id#}): Address already in use", "inet: Can't bind inet socket (id %d): %s"),
    ("send_fds failed (-22)", "send_fds failed (%d)"),
    ("Can't fork for {pid#}: File exists", "Can't fork for %d: %s"),
    ("Can't open {pid#}: No such file or directory", "Can't open %s: %s"),
    ("Unable to detach from {pid#}: No such process", "Unable to detach from %d: %s"),
    ("Unable to open the proc file system: Operation not permitted", "Unable to open the %s file system: %s"),
    ("{pid#} killed by signal 11: Segmentation fault", "%d killed by signal %d: %s"),
    ("page-pipe: splice: {result#}: Bad file descriptor", "page-pipe: splice: %zd: %s"),
    ("page-pipe: tee: {result#}: Operation not permitted", "page-pipe: tee: %zd: %s"),
    ("BUG at criu/mem.c:{line#}", "BUG at %s:%d"),
    ("BUG at criu/mount.c:{line#}", "BUG at %s:%d"),
    ("failed to dump fs {path} (fuse): always fail", "failed to dump fs %s (%s): always fail"),
    // strerror's.
    ("No space left on device", ""),
    ("Disk quota exceeded", ""),
];

/// Texts that are not in the program as a whole, or only in another build of it.
const ELSEWHERE: &[&str] = &[
    // CRIU 4.1.1.
    "vdso: ELF header magic mismatch",
    // Where libnftables was not there.
    "CRIU was built without libnftables support",
    // Not on x86-64.
    "Can't restore high memory region",
    "Can't dump high memory region",
];

pub(crate) fn trial() -> Trial {
    let Some(binary) = binary() else {
        eprintln!("texts_are_those_of_the_installed_criu: not run, no CRIU 4.2 found (set CRR_CRIU)");
        return Trial::test("texts_are_those_of_the_installed_criu", || Ok(())).with_ignored_flag(true);
    };
    Trial::test("texts_are_those_of_the_installed_criu", move || compare(&binary))
}

/// A CRIU program as such, not the script that may start it.
fn binary() -> Option<Vec<u8>> {
    let named = env::var_os("CRR_CRIU").map(PathBuf::from);
    let usual = ["/opt/crr/criu/usr/sbin/criu", "/usr/sbin/criu", "/usr/local/sbin/criu"].map(PathBuf::from);
    named.into_iter().chain(usual).find_map(|path| fs::read(path).ok().filter(|bytes| bytes.starts_with(b"\x7fELF")))
}

fn compare(binary: &[u8]) -> Result<(), Failed> {
    let formats: Vec<String> = binary
        .split(|byte| *byte == 0 || *byte == b'\n')
        .filter(|text| text.len() >= 8)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .map(without_conversions)
        .collect();
    let mut missing = Vec::new();
    for entry in entries() {
        for pattern in entry.patterns {
            let wanted = match SPELLED.iter().find(|(spelled, _)| spelled == pattern) {
                Some((_, format)) => without_conversions(format),
                None => without_holes(pattern),
            };
            if !ELSEWHERE.contains(pattern) && !formats.iter().any(|format| format.contains(&wanted)) {
                missing.push(format!("{}: {pattern:?}", entry.id));
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("not in this CRIU: {missing:#?}").into()) }
}

/// `File %s has size %lu` as `File * has size *`.
fn without_conversions(format: &str) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some((text, behind)) = rest.split_once('%') {
        out.push_str(text);
        let end = behind.find(|c: char| !"0123456789.#-+ lzhj".contains(c)).unwrap_or(behind.len());
        out.push('*');
        rest = behind.get(end + 1..).unwrap_or("");
    }
    out + rest
}

/// `File {path} has size {size#}` as `File * has size *`, without a hole at either end.
fn without_holes(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((text, behind)) = rest.split_once('{') {
        out.push_str(text);
        out.push('*');
        rest = behind.split_once('}').map_or("", |(_, rest)| rest);
    }
    (out + rest).trim_matches('*').to_owned()
}
