//! What a preflight found, for a person.

use crr::escape::escape;
use crr::preflight::{Finding, Level, Report, Verdict};

/// The whole report, and the command that will work.
pub(crate) fn text(report: &Report, command: &[String]) -> String {
    let tree = &report.tree;
    let root = tree.tasks.first().map_or("?", |task| task.comm.as_str());
    let mut text = format!(
        "{} ({}): {}, {}, {}; images of about {}\n",
        tree.root,
        escape(root),
        count(tree.tasks.len(), "task"),
        count(tree.threads, "thread"),
        count(tree.descriptors, "descriptor"),
        bytes(report.estimated_image_bytes)
    );
    for connection in &report.connections {
        text += &format!(
            "  {} {} {} -> {} (descriptor {} of {}){}\n",
            connection.protocol,
            connection.state,
            connection.local,
            connection.peer,
            connection.fd,
            connection.pid,
            if connection.within_tree { ", within the tree" } else { "" }
        );
    }
    for finding in &report.findings {
        text += &line(finding);
    }
    text += &match report.verdict {
        Verdict::Works => format!("This will work:\n  {}\n", shell(command)),
        Verdict::NeedsChoice => "A choice is needed: add one of the options named above.\n".into(),
        Verdict::WillNotWork => "This will not work.\n".into(),
    };
    text
}

/// One finding: what it is, and what to do.
pub(crate) fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::WillNotWork => "NO  ",
        Level::NeedsChoice => "ASK ",
        Level::TurnsOn => "on  ",
        Level::Warning => "warn",
        Level::Note => "note",
    };
    let mut text = format!("  {level} {}", escape(&finding.what));
    if !finding.turns_on.is_empty() {
        text += &format!(": {}", shell(&finding.turns_on));
    }
    text.push('\n');
    if !finding.cure.is_empty() {
        text += &format!("       {}\n", escape(&finding.cure));
    }
    for choice in &finding.choices {
        text += &format!("       {}: {}\n", shell(&choice.arguments), escape(&choice.consequence));
    }
    text
}

/// Words as a shell takes them.
pub(crate) fn shell(words: &[String]) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,@%+".contains(letter);
    let quote = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", escape(word.replace('\'', r"'\''"))),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `812 B`, `1.5 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `812 µs`, `12.3 ms`, `4.2 s`.
pub(crate) fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_a_person_reads() {
        assert_eq!([bytes(812), bytes(1536), bytes(3 << 30)], ["812 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!([time(812), time(12_345), time(4_200_000)], ["812 µs", "12.3 ms", "4.2 s"]);
        assert_eq!([count(1, "task"), count(0, "task")], ["1 task", "0 tasks"]);
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["crr", "--external", "unix[42]", "it's", ""].map(str::to_owned);
        assert_eq!(shell(&words), r"crr --external 'unix[42]' 'it'\\''s' ''");
    }
}
