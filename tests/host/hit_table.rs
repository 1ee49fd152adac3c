//! The preflight against CRIU: for each situation, what `crr check --pid` says, and what then happens.
//!
//! A trial fails on a false "will work" (the dump fails, or its restore does and no warning said so), on something lost
//! without a warning, and on an option that the dump did not need. What nothing can see beforehand ([`BLIND_SPOTS`]) and what
//! differs and is no loss ([`EXPECTED`]) is in the table with the reason. A false "will not" is counted; more than 5 % of
//! them fail the run. The table goes to target/hit-table.txt.
//!
//! `CRR_SITUATIONS` names some of the situations, separated by commas; by default there are all.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::need::Need::{self, Cc, Criu, Netns, Root};
use crate::situations::{self, Situation};
use crate::state::State;
use crate::until::until;
use crate::victim::{self, Start, Victim};
use crate::{Outcome, crr, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];

/// The outcome of a restore of which nothing was left at once.
const GONE: &str = "pass, and gone";

/// The longest that a dump or restore of one situation may take. A vfork makes CRIU wait for 10 s.
const LIMIT: Duration = Duration::from_secs(30);

/// What a person would try with the criu program before giving up on a tree.
const SENSIBLE: [&[&str]; 8] = [
    &["--shell-job"],
    &["--ext-unix-sk"],
    &["--file-locks"],
    &["--ghost-limit", "536870912"],
    &["--link-remap"],
    &["--tcp-established"],
    &["--skip-in-flight"],
    &["--force-irmap"],
];

/// What is lost without a warning since nothing shows it of another process.
const BLIND_SPOTS: [(&str, &str); 3] = [
    (
        "parent_death_signal",
        "PR_SET_PDEATHSIG of another process cannot be read; it is in the images: crr dump and crr restore tell it",
    ),
    ("memory_deny_write_execute", "PR_SET_MDWE of another process cannot be read, and is not in the images"),
    ("tsc_disabled", "PR_SET_TSC of another process cannot be read, and is not in the images"),
];

/// What is another after the restore and no loss: of which situation, the beginning of what is after `process N thread N: `,
/// and why.
const EXPECTED: [(&str, &str, &str); 5] = [
    ("controlling_terminal", "descriptor 4: /dev/pts/", "--shell-job: the terminal is that of whoever restores"),
    ("pty_slave_only", "descriptor 4: /dev/pts/", "--shell-job: the terminal is that of whoever restores"),
    ("shell_job", "descriptor 0: /dev/pts/", "--shell-job: the terminal is that of whoever restores"),
    ("in_nanosleep", "SigBlk: ", SLEEP),
    ("in_nanosleep", "BAD the sleep ended", SLEEP),
];

const SLEEP: &str = "the sleep ends early with EINTR, as by any signal, and the program goes on to its next call";

/// One line of the table.
#[derive(Clone, Debug)]
struct Row {
    situation: String,
    verdict: String,
    options: String,
    dump: String,
    restore: String,
    warnings: usize,
    lost: Vec<String>,
    /// Why what differs is no loss.
    expected: Option<&'static str>,
    judgement: Judgement,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Judgement {
    Right,
    NotMade(String),
    FalseWorks(String),
    Silent(String),
    BlindSpot(&'static str),
    FalseWillNot(String),
    Unneeded(String),
}

static TABLE: Mutex<Vec<Row>> = Mutex::new(Vec::new());
/// One situation at a time: some look at all mounts, or need names and addresses of their own.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) fn trials() -> Vec<Trial> {
    let chosen = std::env::var("CRR_SITUATIONS").ok();
    let is_chosen = |situation: &Situation| {
        let words = chosen.as_deref().map(|words| words.split(',').map(str::trim));
        words.is_none_or(|mut words| words.any(|word| word == situation.name || word == situation.to_string()))
    };
    situations::all()
        .into_iter()
        .filter(is_chosen)
        .map(|situation| test(format!("preflight::{situation}"), NEEDS, move || judge_one(&situation)))
        .collect()
}

fn judge_one(situation: &Situation) -> Outcome {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let row = judge(situation)?;
    TABLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(row.clone());
    match row.judgement {
        Judgement::FalseWorks(how) => Err(format!("a false \"will work\": {how}").into()),
        Judgement::Silent(lost) => Err(format!("lost without a warning: {lost}").into()),
        Judgement::Unneeded(option) => Err(format!("the dump did not need {option}").into()),
        // Counted at the end of the run: some are allowed.
        Judgement::FalseWillNot(_) | Judgement::BlindSpot(_) | Judgement::Right | Judgement::NotMade(_) => Ok(()),
    }
}

/// What `crr check --pid` says.
struct Prediction {
    verdict: String,
    /// Each option with its value.
    options: Vec<Vec<String>>,
    warnings: Vec<String>,
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn predict(victim: &Victim) -> Result<Prediction, Failed> {
    let ran = crr::crr(["check", "--pid", &victim.pid().to_string(), "--json"])?;
    let report: Value = serde_json::from_str(&ran.stdout)
        .map_err(|error| format!("crr check --json: {error}: {}{}", ran.stdout, ran.stderr))?;
    // What follows `crr dump --pid PID --dir DIR`.
    let mut options: Vec<String> = words(&report["command"]).into_iter().skip(6).collect();
    let preflight = &report["plan"]["preflight"];
    let findings: Vec<&Value> = preflight["findings"].as_array().into_iter().flatten().collect();
    options.extend(findings.iter().flat_map(|finding| words(&finding["choices"][0]["arguments"])));
    let mut prediction = Prediction {
        verdict: preflight["verdict"].as_str().ok_or("no verdict")?.to_owned(),
        options: split(options),
        warnings: Vec::new(),
    };
    for finding in findings.into_iter().filter(|finding| finding["level"] == "warning") {
        prediction.warnings.push(finding["what"].as_str().unwrap_or_default().to_owned());
    }
    Ok(prediction)
}

/// Words of a command line as options, each with its value if it has one.
fn split(words: Vec<String>) -> Vec<Vec<String>> {
    let mut options: Vec<Vec<String>> = Vec::new();
    for word in words {
        match options.last_mut() {
            Some(last) if !word.starts_with("--") => last.push(word),
            _ => options.push(vec![word]),
        }
    }
    // Several findings may lead to the same option.
    let mut seen = HashSet::new();
    options.retain(|option| seen.insert(option.clone()));
    options
}

fn judge(situation: &Situation) -> Result<Row, Failed> {
    let mut row = Row {
        situation: situation.to_string(),
        verdict: String::new(),
        options: String::new(),
        dump: "-".into(),
        restore: "-".into(),
        warnings: 0,
        lost: Vec::new(),
        expected: None,
        judgement: Judgement::Right,
    };
    let mut victim = match situation.start()? {
        Start::Ready(victim) => victim,
        Start::Skipped(reason) => {
            row.judgement = Judgement::NotMade(reason);
            return Ok(row);
        }
    };
    let prediction = predict(&victim)?;
    row.verdict.clone_from(&prediction.verdict);
    row.options = prediction.options.concat().join(" ");
    row.warnings = prediction.warnings.len();
    if prediction.verdict == "will-not-work" {
        drop(victim);
        judge_refusal(situation, &mut row)?;
        return Ok(row);
    }
    judge_promise(&mut victim, &prediction, &mut row)?;
    drop(victim);
    judge_losses(&mut row);
    if row.judgement == Judgement::Right {
        for left_out in 0..prediction.options.len() {
            let mut rest = prediction.options.clone();
            let option = rest.remove(left_out).join(" ");
            if round_trip_by_criu(situation, &rest.concat())?.is_ok() {
                row.judgement = Judgement::Unneeded(option);
            }
        }
    }
    Ok(row)
}

/// The preflight says that it works: it must, with nothing but the choices made.
fn judge_promise(victim: &mut Victim, prediction: &Prediction, row: &mut Row) -> Outcome {
    let (images, tree) = (victim.images(), victim.tree());
    let before = State::of(&tree);
    let options: Vec<&str> = prediction.options.iter().flatten().map(String::as_str).collect();
    let dumped = crr::dump(victim.pid(), &images, &options)?;
    row.dump = outcome(&dumped);
    if !dumped.passed() {
        row.judgement = Judgement::FalseWorks(format!("the dump failed: {}", dumped.stderr));
        return Ok(());
    }
    victim.await_gone(&tree)?;
    let pidfile = victim.directory().join("pidfile");
    let on_terminal = options.contains(&"--shell-job");
    let restored = match crr::restore_to(&images, &pidfile, on_terminal) {
        Ok(restored) => restored,
        Err(hung) => {
            row.restore = "hangs".into();
            if prediction.warnings.is_empty() {
                row.judgement = Judgement::FalseWorks(hung.message().unwrap_or_default().to_owned());
            }
            return Ok(());
        }
    };
    row.restore = outcome(&restored);
    if !restored.passed() {
        if prediction.warnings.is_empty() {
            row.judgement = Judgement::FalseWorks(format!("the restore failed: {}", restored.stderr));
        }
        return Ok(());
    }
    victim.narrow_to(std::fs::read_to_string(&pidfile)?.trim().parse()?);
    if victim::state(victim.pid()).is_none_or(|state| state == 'Z') {
        row.restore = GONE.into();
        if prediction.warnings.is_empty() {
            row.judgement = Judgement::FalseWorks("the restored tree was gone at once".into());
        }
        return Ok(());
    }
    // A task that CRIU has just let go may still be on its way out of CRIU's code: what lasts counts.
    let mut lost = before.lost(&State::of(&victim.tree()));
    let settled = until("the state before", Duration::from_millis(500), || {
        lost = before.lost(&State::of(&victim.tree()));
        lost.is_empty().then_some(())
    });
    if settled.is_err() {
        row.lost = lost;
    }
    if let Some(wrong) = victim.complaint() {
        row.lost.push(wrong);
    }
    Ok(())
}

/// What is lost without a warning has to be a known blind spot, or no loss.
fn judge_losses(row: &mut Row) {
    let is_gone = row.restore == GONE;
    if row.warnings > 0 || (row.lost.is_empty() && !is_gone) {
        return;
    }
    let blind = BLIND_SPOTS.iter().find(|(situation, _)| *situation == row.situation);
    if let Some((_, why)) = blind {
        row.judgement = Judgement::BlindSpot(why);
        return;
    }
    if is_gone {
        return;
    }
    let is_expected = |lost: &String| {
        let what = lost.split_once(": ").map_or(lost.as_str(), |(_, what)| what);
        let mut known = EXPECTED.iter().filter(|(situation, ..)| *situation == row.situation);
        known.find(|(_, beginning, _)| what.starts_with(beginning)).map(|(.., why)| *why)
    };
    let reasons: Vec<Option<&str>> = row.lost.iter().map(is_expected).collect();
    match reasons.iter().position(Option::is_none) {
        Some(place) => row.judgement = Judgement::Silent(row.lost[place].clone()),
        None => row.expected = reasons[0],
    }
}

/// The preflight says that it does not work: CRIU must refuse the dump or the restore whatever options it is given.
fn judge_refusal(situation: &Situation, row: &mut Row) -> Outcome {
    let all: Vec<String> = SENSIBLE.concat().iter().map(|word| (*word).to_owned()).collect();
    for options in [Vec::new(), all] {
        match round_trip_by_criu(situation, &options)? {
            Ok(()) => {
                row.dump = "pass".into();
                row.restore = "pass".into();
                row.judgement = Judgement::FalseWillNot(options.join(" "));
                return Ok(());
            }
            Err(why) => row.dump = why,
        }
    }
    Ok(())
}

/// Dumps and restores a situation anew by the criu program; what it said when it would not.
fn round_trip_by_criu(situation: &Situation, options: &[String]) -> Result<Result<(), String>, Failed> {
    let mut victim = match situation.start()? {
        Start::Ready(victim) => victim,
        Start::Skipped(reason) => return Ok(Err(reason)),
    };
    let (images, tree, pid) = (victim.images(), victim.tree(), victim.pid().to_string());
    std::fs::create_dir(&images)?;
    // An inode number names the socket of another victim.
    let options = renumbered(options, &victim)?;
    let dumped = criu("dump", &images, [&["-t".to_owned(), pid], options.as_slice()].concat(), false);
    if let Err(why) = dumped {
        return Ok(Err(why));
    }
    victim.await_gone(&tree)?;
    let on_terminal = options.iter().any(|option| option == "--shell-job");
    Ok(criu("restore", &images, [&["-d".to_owned()], options.as_slice()].concat(), on_terminal))
}

/// The options with each `unix[INODE]` replaced by the one that the preflight names for this victim.
fn renumbered(options: &[String], victim: &Victim) -> Result<Vec<String>, Failed> {
    if !options.iter().any(|option| option.starts_with("unix[")) {
        return Ok(options.to_vec());
    }
    let mut named = predict(victim)?.options.into_iter().flatten().filter(|option| option.starts_with("unix["));
    Ok(options
        .iter()
        .map(
            |option| {
                if option.starts_with("unix[") {
                    named.next().unwrap_or_else(|| option.clone())
                } else {
                    option.clone()
                }
            },
        )
        .collect())
}

fn criu(verb: &str, images: &Path, arguments: Vec<String>, on_terminal: bool) -> Result<(), String> {
    match crr::criu_on(verb, images, arguments, LIMIT, on_terminal) {
        Ok(ran) if ran.passed() => Ok(()),
        Ok(ran) => Err(format!("{verb}: {}", ran.stderr)),
        Err(failed) => Err(failed.message().unwrap_or_default().lines().next().unwrap_or_default().to_owned()),
    }
}

fn outcome(ran: &crr::Ran) -> String {
    if ran.passed() { "pass".into() } else { format!("exit {}", ran.code) }
}

/// Writes the table and prints its sums; `false` when there are too many false refusals.
pub(crate) fn finish() -> bool {
    let mut rows = TABLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    if rows.is_empty() {
        return true;
    }
    rows.sort_by(|a, b| a.situation.cmp(&b.situation));
    let mut table = String::from(
        "situation | verdict | options | dump | restore | warnings | judgement | lost | why that is no loss\n",
    );
    let mut made = 0;
    let (mut works, mut refuses, mut unneeded, mut silent, mut blind) = (0, 0, 0, 0, 0);
    for row in &rows {
        let judgement = match &row.judgement {
            Judgement::Right => "right".to_owned(),
            Judgement::NotMade(reason) => format!("not made: {reason}"),
            Judgement::FalseWorks(how) => format!("FALSE WILL WORK: {}", how.lines().next().unwrap_or_default()),
            Judgement::BlindSpot(why) => format!("BLIND SPOT: {why}"),
            Judgement::Silent(_) => "LOST WITHOUT A WARNING".to_owned(),
            Judgement::FalseWillNot(options) => format!("FALSE WILL NOT: passes with [{options}]"),
            Judgement::Unneeded(option) => format!("UNNEEDED {option}"),
        };
        made += usize::from(!matches!(row.judgement, Judgement::NotMade(_)));
        works += usize::from(matches!(row.judgement, Judgement::FalseWorks(_)));
        refuses += usize::from(matches!(row.judgement, Judgement::FalseWillNot(_)));
        unneeded += usize::from(matches!(row.judgement, Judgement::Unneeded(_)));
        silent += usize::from(matches!(row.judgement, Judgement::Silent(_)));
        blind += usize::from(matches!(row.judgement, Judgement::BlindSpot(_)));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{} | {} | {} | {} | {} | {} | {judgement} | {} | {}",
            row.situation,
            row.verdict,
            row.options,
            row.dump,
            row.restore,
            row.warnings,
            row.lost.join("; ").replace('\n', " "),
            row.expected.unwrap_or_default(),
        );
    }
    let sums = format!(
        "{made} situations made of {}: {works} false \"will work\", {refuses} false \"will not\", {unneeded} with an unneeded \
         option, {silent} with a loss and no warning, and {blind} where nothing can see it beforehand\n",
        rows.len()
    );
    table.push_str(&sums);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("hit-table.txt");
    match std::fs::write(&path, &table) {
        Ok(()) => println!("{sums}The table is in {}.", path.display()),
        Err(error) => println!("{table}(not written to {}: {error})", path.display()),
    }
    let too_many = refuses * 20 > made;
    if too_many {
        println!("More than 5 % of the verdicts are a false \"will not\".");
    }
    // A table of one situation, chosen by a filter, is not judged by its share.
    !too_many || made < 20
}
