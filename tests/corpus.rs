//! Every fuzz target over its stored corpus, on stable: inputs that once were trouble, and good ones to start from.

use std::path::{Path, PathBuf};

fn fuzz(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(below)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII")).collect();
    names.sort();
    names
}

#[test]
fn no_input_of_the_corpus_makes_a_target_panic() {
    for (name, target) in crr::fuzz::TARGETS {
        let corpus = fuzz("corpus").join(name);
        let inputs = names(&corpus);
        assert!(!inputs.is_empty(), "{} is empty", corpus.display());
        for input in inputs {
            let bytes = std::fs::read(corpus.join(&input)).expect("readable");
            let run = std::panic::catch_unwind(|| target(&bytes));
            assert!(run.is_ok(), "{name} panics on {input}");
        }
    }
}

#[test]
fn every_target_has_a_function_and_a_corpus() {
    let mut functions: Vec<&str> = crr::fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    functions.sort_unstable();
    let targets: Vec<String> = names(&fuzz("fuzz_targets")).iter().map(|name| name.replace(".rs", "")).collect();
    assert_eq!(targets, functions);
    assert_eq!(names(&fuzz("corpus")), functions);
}
