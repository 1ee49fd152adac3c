//! The host's state, for a person.

use std::fmt::Write as _;

use crr::criu::FeatureState;
use crr::escape::escape;
use crr::host::{CheckpointRestore, UserNamespace};
use crr::readiness::{Facts, Problem, PurposeVerdict, Readiness};
use tabled::builder::Builder;
use tabled::settings::Style;

/// The report of `crr check`.
pub(crate) fn text(readiness: &Readiness, left_of_containers: &[String]) -> String {
    let mut text = verdicts(&readiness.purposes);
    let mut table = Builder::new();
    for [name, value] in rows(&readiness.facts) {
        table.push_record([name, value]);
    }
    text.push('\n');
    for line in table.build().with(Style::blank()).to_string().lines() {
        let _ = writeln!(text, "{}", line.trim());
    }
    section(&mut text, "Network locks of CRIU whose checkpoint is not known", locks(&readiness.facts));
    let left = left_of_containers.iter().map(|left| crr::escape::escape(left).to_string()).collect();
    section(&mut text, "Left by a crr that was killed; the next dump or restore of a container removes it", left);
    let notes = readiness.notes.iter();
    section(&mut text, "Notes", notes.map(|note| cured(&note.what, note.cure.as_deref())).collect());
    text
}

fn verdicts(purposes: &[PurposeVerdict]) -> String {
    let mut text = String::new();
    for verdict in purposes {
        // What is wrong for all is said once, at the first.
        let plain = purposes.first().filter(|plain| plain.purpose != verdict.purpose);
        let said = |problem: &Problem| plain.is_some_and(|plain| plain.problems.contains(problem));
        let answer = match verdict.works {
            true => "yes",
            false if verdict.problems.iter().any(said) => "no, as plain",
            false => "no",
        };
        let _ = writeln!(text, "{:<12}{answer}", verdict.purpose.word());
        for problem in verdict.problems.iter().filter(|problem| !said(problem)) {
            let _ = writeln!(text, "  - {}", cured(&problem.what, problem.cure.as_deref()));
        }
    }
    text
}

fn rows(facts: &Facts) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), escape(value)]);
    for (at, candidate) in facts.criu.iter().enumerate() {
        let name = if facts.chosen == Some(at) { "CRIU, used" } else { "CRIU" };
        let version = candidate.version.map_or("?".into(), |version| version.to_string());
        let proof = if candidate.verdict.is_some() { " (by self-test)" } else { "" };
        row(name, format!("{} {version}: {}{proof}", candidate.binary.display(), candidate.suitability));
    }
    let built = match facts.checkpoint_restore {
        CheckpointRestore::BuiltIn => "",
        CheckpointRestore::Missing => ", without CONFIG_CHECKPOINT_RESTORE",
    };
    row("Kernel", format!("{}{built}", facts.kernel));
    row(
        "User",
        match (facts.root, facts.environment.user_namespace) {
            (true, UserNamespace::Initial) => "root".into(),
            (true, UserNamespace::Nested) => "root of a user namespace".into(),
            (false, _) => "not root".into(),
        },
    );
    let missing: Vec<&str> = facts.capabilities.missing().map(|capability| capability.name).collect();
    row(
        "Capabilities",
        match missing.is_empty() {
            true => "all".into(),
            false => format!("all but {}", missing.join(", ")),
        },
    );
    let lacking = facts.features.iter().filter_map(|feature| match &feature.state {
        FeatureState::Present => None,
        FeatureState::Absent { .. } => Some(feature.name.clone()),
        FeatureState::Unknown { .. } => Some(format!("{} (unknown)", feature.name)),
    });
    let lacking: Vec<String> = lacking.collect();
    let present = facts.features.len() - lacking.len();
    row(
        "CRIU's features",
        match lacking.is_empty() {
            true => format!("{present} present"),
            false => format!("{present} present, missing: {}", lacking.join(", ")),
        },
    );
    row(
        "Network locks",
        match &facts.nf_tables_failure {
            None => "nf_tables works".into(),
            Some(why) => format!("nf_tables does not work: {why}"),
        },
    );
    let absent = facts.programs.iter().filter(|program| program.path.is_none()).map(|program| program.name);
    let absent: Vec<&str> = absent.collect();
    if !absent.is_empty() {
        row("Programs missing", absent.join(", "));
    }
    row("Cgroups", format!("{:?}", facts.cgroups).to_lowercase());
    for sysctl in &facts.sysctls {
        if let Some(value) = &sysctl.value {
            row(sysctl.name, value.clone());
        }
    }
    rows
}

fn locks(facts: &Facts) -> Vec<String> {
    let one = |lock: &crr::readiness::ForeignLock| cured(&lock.what, Some(&lock.removal.join(" && ")));
    facts.unknown_locks.iter().map(one).collect()
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{title}:");
        for line in lines {
            let _ = writeln!(text, "  - {line}");
        }
    }
}

fn cured(what: &str, cure: Option<&str>) -> String {
    match cure {
        Some(cure) => format!("{}\n    cure: {}", escape(what), escape(cure)),
        None => escape(what),
    }
}
