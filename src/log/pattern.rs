//! Texts of CRIU's with holes: `File {path} has bad size {found#} (expect {wanted#})`.
//!
//! A pattern is CRIU's own format string with a name in place of each conversion. It is looked for anywhere in a line. A
//! hole takes all up to the text that follows it, `#` admits only a decimal number. The last hole takes the rest. There
//! is no backtracking, so a line costs one pass whatever it holds.

/// What the holes of a pattern caught, by name.
pub(super) type Values<'t> = Vec<(&'static str, &'t str)>;

enum Part {
    Text(&'static str),
    Hole { name: &'static str, number: bool },
}

/// The parts of `pattern`, in order. A brace that is not closed is text.
fn parts(pattern: &'static str) -> impl Iterator<Item = Part> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, behind)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            rest = behind;
            let number = name.ends_with('#');
            return Some(Part::Hole { name: name.trim_end_matches('#'), number });
        }
        let end = rest.char_indices().skip(1).find(|(_, c)| *c == '{').map_or(rest.len(), |(at, _)| at);
        let (text, behind) = rest.split_at(end);
        rest = behind;
        Some(Part::Text(text))
    })
}

/// Returns what the holes of `pattern` hold in `text`, or `None` if it does not occur there.
pub(super) fn find<'t>(pattern: &'static str, text: &'t str) -> Option<Values<'t>> {
    let mut values = Values::new();
    let mut hole: Option<(&'static str, bool)> = None;
    let mut rest = text;
    for part in parts(pattern) {
        match part {
            Part::Text(wanted) => {
                let at = rest.find(wanted)?;
                if let Some((name, number)) = hole.take() {
                    values.push((name, caught(&rest[..at], number)?));
                }
                rest = &rest[at + wanted.len()..];
            }
            Part::Hole { name, number } => hole = Some((name, number)),
        }
    }
    if let Some((name, number)) = hole {
        let end = if number { digits(rest) } else { rest.len() };
        values.push((name, caught(&rest[..end], number)?));
    }
    Some(values)
}

fn caught(text: &str, number: bool) -> Option<&str> {
    (!number || (!text.is_empty() && digits(text) == text.len())).then_some(text)
}

/// How many bytes at the start of `text` are a decimal number, with its sign.
fn digits(text: &str) -> usize {
    let sign = usize::from(text.starts_with('-'));
    let count = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 { 0 } else { sign + count }
}

/// Fills `template`'s holes with `values`; `{/name}` is that value as an absolute path, as CRIU writes some relative to
/// the root. A hole without a value stays as it is written.
pub(super) fn fill(template: &'static str, values: &Values<'_>) -> String {
    let mut out = String::with_capacity(template.len());
    for part in parts(template) {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Hole { name, .. } => match values.iter().find(|(known, _)| *known == name.trim_start_matches('/')) {
                Some((_, value)) if name.starts_with('/') => {
                    out.push('/');
                    out.push_str(value.trim_start_matches("./").trim_start_matches('/'));
                }
                Some((_, value)) => out.push_str(value),
                None => {
                    out.push('{');
                    out.push_str(name);
                    out.push('}');
                }
            },
        }
    }
    out
}

/// The names of the holes of `pattern`.
#[cfg(test)]
pub(super) fn holes(pattern: &'static str) -> Vec<&'static str> {
    parts(pattern)
        .filter_map(|part| match part {
            Part::Hole { name, .. } => Some(name.trim_start_matches('/')),
            Part::Text(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_catch_paths_and_numbers() {
        let found =
            find("File {path} has bad size {found#} (expect {wanted#})", "x: File /a b has bad size 7 (expect -8)");
        assert_eq!(found.unwrap(), [("path", "/a b"), ("found", "7"), ("wanted", "-8")]);
    }

    #[test]
    fn a_number_hole_refuses_text() {
        assert!(find("fork for {pid#}: {why}", "fork for me: x").is_none());
        assert!(find("signal {n#}", "signal ").is_none());
        assert_eq!(find("signal {n#}", "signal 9!").unwrap(), [("n", "9")]);
    }

    #[test]
    fn a_leading_hole_takes_the_start_of_the_line() {
        assert_eq!(find("{path} is a fuse mount", "/mnt is a fuse mount but").unwrap(), [("path", "/mnt")]);
    }

    #[test]
    fn a_pattern_without_holes_is_a_plain_search() {
        assert_eq!(find("Unexpected EOF", "img: Unexpected EOF").unwrap(), []);
        assert!(find("Unexpected EOF", "Unexpected").is_none());
    }

    #[test]
    fn values_fill_a_template_and_unknown_names_stay() {
        let values = vec![("path", "/a")];
        assert_eq!(fill("{path} and {other}", &values), "/a and {other}");
        for path in ["srv/a", "./srv/a", "/srv/a"] {
            assert_eq!(fill("{/path}.", &vec![("path", path)]), "/srv/a.");
        }
    }

    #[test]
    fn an_open_brace_and_an_empty_pattern_do_no_harm() {
        assert_eq!(find("{open", "x{open").unwrap(), []);
        assert_eq!(find("", "x").unwrap(), []);
        assert_eq!(fill("é{", &vec![]), "é{");
    }
}
