//! The folder tree is the architecture: a module uses only those to its left in ARCHITECTURE.md's line.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the first to the last; modules of one rank may use each other.
const LAYERS: &[&[&str]] = &[
    &["error", "escape", "proto"],
    &["swrk"],
    &["request", "event", "images", "log", "oci", "wire"],
    &["pages"],
    &["operation"],
    &["host", "process"],
    &["arena"],
    &["copy"],
    &["criu"],
    &["checkpoint"],
    &["preflight", "readiness"],
    &["dump", "restore"],
    &["container"],
    &["hook", "peer"],
    &["migrate"],
    &["fuzz"],
];

/// Uses that point the other way, each for a reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[("error", "*", "the one error names what it is about")];

#[test]
fn no_module_uses_one_to_its_right() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rank: HashMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(rank, names)| names.iter().map(move |name| (*name, rank))).collect();
    let mut wrong = Vec::new();
    for file in files(&source) {
        let inside = file.strip_prefix(&source).expect("below src");
        let module = inside.iter().next().expect("a name").to_str().expect("UTF-8").trim_end_matches(".rs");
        if ["lib", "main", "cli"].contains(&module) {
            continue;
        }
        let own = *rank.get(module).unwrap_or_else(|| panic!("the module {module} is in no layer"));
        let text = fs::read_to_string(&file).expect("readable");
        // Tests may look anywhere.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for used in line.match_indices("crate::").map(|(at, _)| &line[at + "crate::".len()..]) {
                let used = used.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
                let Some(other) = rank.get(used) else { continue };
                let excepted = EXCEPTIONS.iter().any(|(from, to, _)| *from == module && (*to == "*" || *to == used));
                if *other > own && !excepted {
                    wrong.push(format!("{}:{}: {module} uses {used}", inside.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point the other way:\n{}", wrong.join("\n"));
}

#[test]
fn every_layer_is_in_the_architecture() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for name in LAYERS.iter().flat_map(|names| names.iter()) {
        assert!(text.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name `{name}`");
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}
