//! The options that a tree needs: turned on by the dump, recorded, and not asked for again; and those that the user gives.

use std::fs;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::dumped::{Dumped, start};
use crate::need::Need::{self, Cc, Criu, Iptables, Netns, Root};
use crate::network::{self, Client};
use crate::victim::Victim;
use crate::{Outcome, crr, ensure, test};

const NEEDS: &[Need] = &[Root, Criu, Cc, Netns];
const TCP: &[Need] = &[Root, Criu, Cc, Netns, Iptables];

/// Situations, the option that each needs, and where crr.json says it.
const NEEDED: &[(&str, &str, &str)] = &[
    ("posix_lock", "--file-locks", "/switches"),
    ("flock_inherited", "--file-locks", "/switches"),
    ("unix_dgram_outside", "--ext-unix-sk", "/switches"),
    ("deleted_2m", "--ghost-limit", "/ghost_limit_bytes"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, option, place) in NEEDED {
        trials.push(test(format!("what_{name}_needs_is_turned_on_said_and_recorded"), NEEDS, || {
            turned_on(name, option, place)
        }));
        trials.push(test(format!("no_auto_refuses_{name}_by_its_option"), NEEDS, || no_auto(name, option)));
    }
    trials.extend([
        test("a_shell_job_is_recorded_as_one", NEEDS, shell_job),
        test("a_plain_tree_needs_no_option_and_none_is_recorded", NEEDS, plain),
        test("a_link_remap_is_turned_on_and_leaves_no_name", NEEDS, link_remap),
        test("an_option_that_repeats_what_is_recorded_is_accepted_in_silence", NEEDS, repeated),
        test("an_option_that_differs_from_what_is_recorded_wins_and_is_said", NEEDS, different),
        test("tcp_connections_dumped_to_be_kept_are_closed_when_the_restore_says_so", TCP, closed_after_all),
        test("the_options_of_the_user_win_over_those_turned_on", NEEDS, own_limit),
    ]);
    trials
}

/// `crr check --pid` and its one object.
fn look(victim: &Victim, words: &[&str], code: i32) -> Result<Value, Failed> {
    let pid = victim.pid().to_string();
    let ran = crr::crr(["check", "--json", "--pid", &pid].iter().chain(words))?.must_exit(code, "crr check --pid")?;
    Ok(serde_json::from_str(&ran.stdout)?)
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn turned_on(name: &str, option: &str, place: &str) -> Outcome {
    let victim = start(name)?;
    let seen = look(&victim, &[], 0)?;
    let turned_on = words(&seen["plan"]["turned_on"]);
    ensure!(turned_on.contains(&option), "check turns on {turned_on:?}");
    ensure!(words(&seen["command"]).contains(&option), "the command is {}", seen["command"]);

    let (images, tree) = (victim.images(), victim.tree());
    let ran = crr::dump(victim.pid(), &images, &["--json"])?.must_pass("crr dump")?;
    let report: Value = serde_json::from_str(&ran.stdout)?;
    ensure!(words(&report["options"]).contains(&option), "the dump turned on {}", report["options"]);
    ensure!(ran.stderr.contains(option), "what was turned on is not said: {}", ran.stderr);
    let record: Value = serde_json::from_slice(&fs::read(images.join("crr.json"))?)?;
    let recorded = record["checkpoint"]["options"].pointer(place).ok_or("nothing is recorded")?;
    let is_word = words(recorded).contains(&option.trim_start_matches('-'));
    ensure!(is_word || recorded.as_u64().is_some_and(|bytes| bytes >= 2 << 20), "recorded is {recorded}");

    let mut victim = victim;
    victim.await_gone(&tree)?;
    crr::restore(&images, &[])?.must_pass("crr restore without options")?;
    victim.self_check()
}

fn no_auto(name: &str, option: &str) -> Outcome {
    let victim = start(name)?;
    let images = victim.images();
    let refused = crr::dump(victim.pid(), &images, &["--no-auto"])?.must_exit(79, "crr dump --no-auto")?;
    ensure!(refused.stderr.contains(option), "{option} is not named: {}", refused.stderr);
    ensure!(!images.exists(), "a refused dump made its directory");
    victim.self_check()?;
    // With what it named the dump works, with nothing turned on.
    let given: &[&str] = if option == "--ghost-limit" { &["--no-auto", option, "4M"] } else { &["--no-auto", option] };
    Dumped::of(victim, given)?.comes_back(&[]).map(drop)
}

fn shell_job() -> Outcome {
    let victim = start("shell_job")?;
    let seen = look(&victim, &[], 0)?;
    ensure!(words(&seen["plan"]["turned_on"]).contains(&"--shell-job"), "{}", seen["plan"]["turned_on"]);
    let dumped = Dumped::of(victim, &[])?;
    let record = dumped.record()?;
    ensure!(words(&record["options"]["switches"]).contains(&"shell-job"), "recorded: {}", record["options"]);
    // Without a terminal it cannot come back, and nothing is tried.
    let said = dumped.refused(64, &[])?;
    ensure!(said.contains("terminal"), "{said}");
    Ok(())
}

fn plain() -> Outcome {
    let victim = start("plain")?;
    let seen = look(&victim, &[], 0)?;
    ensure!(words(&seen["plan"]["turned_on"]).is_empty(), "turned on: {}", seen["plan"]["turned_on"]);
    let mut dumped = Dumped::of(victim, &["--no-auto"])?;
    let record = dumped.record()?;
    ensure!(record["options"] == serde_json::json!({}), "recorded: {}", record["options"]);
    dumped.comes_back(&[]).map(drop)
}

/// What CRIU makes outside for it is gone when the dump is over.
fn link_remap() -> Outcome {
    let victim = start("unlinked_linked")?;
    let seen = look(&victim, &[], 0)?;
    ensure!(words(&seen["command"]).contains(&"--link-remap"), "the command is {}", seen["command"]);
    let mut dumped = Dumped::of(victim, &[])?;
    let work = dumped.victim.directory().join("work");
    let names = || -> Result<Vec<_>, Failed> {
        Ok(fs::read_dir(&work)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect())
    };
    ensure!(names()? == ["other-name"], "left after the dump: {:?}", names()?);
    dumped.comes_back(&[])?;
    ensure!(names()? == ["other-name"], "left after the restore: {:?}", names()?);
    Ok(())
}

fn repeated() -> Outcome {
    let mut dumped = Dumped::situation("posix_lock", &[])?;
    let silent = dumped.comes_back(&[])?.stderr;
    let repeated = dumped.comes_back(&["--file-locks"])?.stderr;
    ensure!(silent == repeated, "`{silent}` became `{repeated}`");
    Ok(())
}

fn different() -> Outcome {
    let mut dumped = Dumped::situation("plain", &["--cpu-cap", "cpu", "--manage-cgroups=soft"])?;
    let record = dumped.record()?;
    ensure!(record["options"]["manage_cgroups"] == "soft", "recorded: {}", record["options"]);
    let said = dumped.comes_back(&["--manage-cgroups=ignore", "--cpu-cap", "none"])?.stderr;
    for word in ["manage-cgroups", "cpu-cap", "wins"] {
        ensure!(said.contains(word), "`{word}` is not said: {said}");
    }
    let said = dumped.comes_back(&["--manage-cgroups=soft", "--cpu-cap", "cpu"])?.stderr;
    ensure!(!said.contains("wins"), "{said}");
    Ok(())
}

fn closed_after_all() -> Outcome {
    let (mut victim, port) = network::server()?;
    let client = Client::connect(port)?;
    client.await_blocks(3)?;
    let (images, tree) = (victim.images(), victim.tree());
    crr::dump(victim.pid(), &images, &["--tcp-established"])?.must_pass("crr dump")?;
    victim.await_gone(&tree)?;
    let ran = crr::restore(&images, &["--tcp-close"])?.must_pass("crr restore --tcp-close")?;
    ensure!(ran.stderr.contains("--tcp-established") && ran.stderr.contains("wins"), "not said: {}", ran.stderr);
    // The lock is gone with the choice: new connections work, and the old one learns that it has ended.
    let late = Client::connect(port)?;
    late.await_blocks(3)?;
    late.end()?;
    ensure!(client.end().is_err(), "the old connection goes on");
    victim.end()
}

fn own_limit() -> Outcome {
    let victim = start("deleted_2m")?;
    let refused = crr::dump(victim.pid(), &victim.images(), &["--ghost-limit", "1M"])?;
    ensure!(refused.code == 79 || refused.code == 78, "exit status {}: {}", refused.code, refused.stderr);
    ensure!(refused.stderr.contains("--ghost-limit"), "{}", refused.stderr);
    let mut dumped = Dumped::of(victim, &["--ghost-limit", "8M"])?;
    let record = dumped.record()?;
    ensure!(record["options"]["ghost_limit_bytes"].as_u64() >= Some(2 << 20), "recorded: {}", record["options"]);
    dumped.comes_back(&[]).map(drop)
}
