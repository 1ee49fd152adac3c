//! Text from outside (names in images, CRIU's log, /proc), made safe to print.
//!
//! A file name may hold terminal escapes, newlines that forge a line of output, or marks that turn the direction of
//! writing around. [`escape`] spells these out, so that what a person reads is what is there.

use std::fmt::Write as _;

/// Returns `bytes` as text without control characters.
///
/// Invalid UTF-8 becomes `\xNN`; control characters and the invisible or direction-changing characters of Unicode become
/// `\n`, `\t`, `\r`, `\xNN` or `\u{NNNN}`; a backslash is doubled, so that the result is unambiguous.
///
/// ```
/// assert_eq!(crr::escape::escape(b"/tmp/\x1b[31mred\n"), r"/tmp/\x1b[31mred\n");
/// ```
pub fn escape(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    // Nearly all text is this, and logs are long.
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\') {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut out, c);
        }
        for byte in chunk.invalid() {
            push_byte(&mut out, *byte);
        }
    }
    out
}

fn push(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        '\\' => out.push_str("\\\\"),
        c if c.is_ascii_control() => push_byte(out, c as u8),
        c if c.is_control() || deceives(c) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

fn push_byte(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02x}");
}

/// Characters that print as nothing, as a line break, or change the order of what is around them.
fn deceives(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn plain_text_of_any_language_is_kept() {
        assert_eq!(escape("/srv/データ/é.txt"), "/srv/データ/é.txt");
    }

    #[test]
    fn what_acts_on_a_terminal_is_spelled_out() {
        assert_eq!(escape("\u{1b}]0;x\u{7}"), r"\x1b]0;x\x07");
        assert_eq!(escape("a\u{9b}31m"), r"a\u{9b}31m");
        assert_eq!(escape("txt\u{202e}gpj.exe"), r"txt\u{202e}gpj.exe");
        assert_eq!(escape("\u{7f}"), r"\x7f");
    }

    #[test]
    fn invalid_utf8_is_spelled_out_and_differs_from_its_spelling() {
        assert_eq!(escape(b"a\xff\xc3"), r"a\xff\xc3");
        assert_eq!(escape(br"a\xff"), r"a\\xff");
    }
}
