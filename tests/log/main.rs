//! The catalogue of CRIU's error texts against CRIU: logs that `tests/log/provoke` made the real program write, texts
//! looked up in the installed program, and, where neither machine nor time gives the real thing, sample lines.
//!
//! `CRR_LOG_FIXTURES` names another directory of logs: `provoke --check` judges fresh ones by it.

mod command;
mod samples;
mod texts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crr::log::{Outcome, entries, explain};
use libtest_mimic::{Arguments, Failed, Trial};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("every_entry_has_a_log_or_a_sample", every_entry_has_a_log_or_a_sample),
        Trial::test("bytes_of_any_kind_are_explained", bytes_of_any_kind_are_explained),
        Trial::test(
            "a_log_cut_off_behind_its_decisive_line_is_explained_alike",
            a_log_cut_off_behind_its_decisive_line_is_explained_alike,
        ),
        texts::trial(),
    ];
    trials.extend(command::trials());
    for path in fixtures() {
        let name = stem(&path);
        trials.push(Trial::test(format!("fixture_{name}"), move || fixture(&path)));
    }
    for (id, line) in samples::SAMPLES {
        trials.push(Trial::test(format!("sample_{id}"), || sample(id, line)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn fixtures() -> Vec<PathBuf> {
    let dir = env::var_os("CRR_LOG_FIXTURES").map_or_else(|| Path::new(STORED).to_path_buf(), PathBuf::from);
    let mut paths: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()))
        .map(|entry| entry.expect("the directory of logs is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no logs in {}", dir.display());
    paths
}

const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/log/fixtures");

/// The file's name up to the first dot: the catalogue's id.
fn stem(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().trim_end_matches(".log").to_owned()
}

/// A provoked log is explained as what provoked it, and no other entry would claim its decisive line.
fn fixture(path: &Path) -> Result<(), Failed> {
    let log = fs::read(path)?;
    let name = stem(path);
    let explanation = explain(&log);
    if name.starts_with("fine-") {
        return if explanation.decisive.is_none() && explanation.outcome != Outcome::Failed {
            Ok(())
        } else {
            Err(format!("the log of a success is explained as a failure: {explanation}").into())
        };
    }
    let id = name.split('.').next().expect("the first part");
    let Some(known) = &explanation.known else { return Err(format!("not explained: {explanation}").into()) };
    if known.id != id {
        return Err(format!("explained as {}: {explanation}", known.id).into());
    }
    let decisive = explanation.decisive.as_ref().expect("known by a line");
    if !explanation.lines.contains(decisive) {
        return Err(format!("the decisive line is not shown: {explanation}").into());
    }
    alone(id, &decisive.to_string())?;
    no_hole_left(&[&known.cause, &known.cure])
}

fn sample(id: &str, line: &str) -> Result<(), Failed> {
    let log =
        format!("(00.010000) Error (criu/some.c:1): {line}\n(00.010001) Error (criu/cr-dump.c:1): Dumping FAILED.\n");
    let explanation = explain(log.as_bytes());
    match &explanation.known {
        Some(known) if known.id == id => {
            alone(id, &log)?;
            no_hole_left(&[&known.cause, &known.cure])
        }
        _ => Err(format!("not explained as {id}: {explanation}").into()),
    }
}

/// No other entry's text is in `line`.
fn alone(id: &str, line: &str) -> Result<(), Failed> {
    let others: Vec<_> =
        entries().filter(|entry| entry.id != id && entry.occurs_in(line)).map(|entry| entry.id).collect();
    if others.is_empty() { Ok(()) } else { Err(format!("{line} is claimed by {others:?} as well").into()) }
}

/// Cause and cure name values, not holes; braces do not occur otherwise.
fn no_hole_left(texts: &[&str]) -> Result<(), Failed> {
    match texts.iter().find(|text| text.contains(['{', '}'])) {
        None => Ok(()),
        Some(text) => Err(format!("a hole is left in {text:?}").into()),
    }
}

fn every_entry_has_a_log_or_a_sample() -> Result<(), Failed> {
    let stored: BTreeSet<_> = fs::read_dir(STORED)?
        .map(|entry| Ok(stem(&entry?.path())))
        .collect::<std::io::Result<Vec<_>>>()?
        .iter()
        .map(|name| name.split('.').next().expect("the first part").to_owned())
        .filter(|name| !name.starts_with("fine-"))
        .collect();
    let sampled: BTreeSet<_> = samples::SAMPLES.iter().map(|(id, _)| (*id).to_owned()).collect();
    let known: BTreeSet<_> = entries().map(|entry| entry.id.to_owned()).collect();
    let both: Vec<_> = stored.intersection(&sampled).collect();
    let neither: Vec<_> = known.iter().filter(|id| !stored.contains(*id) && !sampled.contains(*id)).collect();
    let strange: Vec<_> = stored.union(&sampled).filter(|id| !known.contains(*id)).collect();
    if both.is_empty() && neither.is_empty() && strange.is_empty() {
        return Ok(());
    }
    Err(format!("with a real log, so no sample is due: {both:?}; with neither: {neither:?}; no entry: {strange:?}")
        .into())
}

/// A line of a log is cut from real ones, or noise, so that parts of patterns occur.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let real: Vec<Vec<u8>> = fixtures()
        .iter()
        .flat_map(|path| fs::read(path).expect("a fixture"))
        .collect::<Vec<u8>>()
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let cut = (prop::sample::select(real), any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(
        |(line, from, to)| {
            let (from, to) = (from.index(line.len() + 1), to.index(line.len() + 1));
            line[from.min(to)..from.max(to)].to_vec()
        },
    );
    let bytes = prop::collection::vec(any::<u8>(), 0..80);
    let text = "\\PC{0,60}".prop_map(String::into_bytes);
    let part =
        prop_oneof![3 => cut, 1 => bytes, 1 => text, 1 => Just(b"\n".to_vec()), 1 => Just(b"Error (a.c:1): ".to_vec())];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

fn bytes_of_any_kind_are_explained() -> Result<(), Failed> {
    TestRunner::new(Config { failure_persistence: None, ..Config::default() })
        .run(&noise(), |log| {
            let explanation = explain(&log);
            prop_assert_eq!(&explanation, &crr::log::explain_reader(&log[..]).expect("memory is readable"));
            let printed = explanation.to_string();
            prop_assert!(printed.chars().all(|c| c == '\n' || !c.is_control()), "{printed:?}");
            if let Some(decisive) = &explanation.decisive {
                prop_assert!(explanation.lines.contains(decisive));
            }
            prop_assert!(explanation.known.is_none() || explanation.decisive.is_some());
            prop_assert!(explanation.lines.is_sorted_by_key(|line| line.number));
            Ok(())
        })
        .map_err(|error| error.to_string().into())
}

/// A log that breaks off behind the decisive line, in mid-line too, is explained as the whole.
fn a_log_cut_off_behind_its_decisive_line_is_explained_alike() -> Result<(), Failed> {
    for path in fixtures().iter().filter(|path| !stem(path).starts_with("fine-")) {
        let log = fs::read(path)?;
        let whole = explain(&log);
        let decisive = whole.decisive.as_ref().and_then(|line| line.number).expect("a failure has a line");
        let behind = log.split_inclusive(|byte| *byte == b'\n').take(decisive as usize).map(<[u8]>::len).sum();
        for end in (0..log.len()).step_by(7) {
            let cut = explain(&log[..end]);
            if end >= behind && cut.known != whole.known {
                return Err(format!("{} cut at {end}: {cut}", path.display()).into());
            }
        }
    }
    Ok(())
}
