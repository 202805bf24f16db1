//! Escaping of text inside SVG and HTML.

use super::text::printable;

/// Returns `text` for the inside of an element or attribute: without markup, and without characters
/// that XML 1.0 (section 2.2) forbids.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in printable(text, false, '\u{fffd}').chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup() {
        assert_eq!(escaped("<a b=\"c\" d='e'>&amp;"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;");
        assert_eq!(escaped("a\u{0}b\u{1b}[31mc\nd\u{ffff}e\u{202e}f"), "a\u{fffd}b\u{fffd}[31mc d\u{fffd}ef");
    }
}
