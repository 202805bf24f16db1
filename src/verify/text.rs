//! The width of text in terminal columns, and functions that make text fit.
//!
//! If terminals differ, the larger width counts, so a line may come out short but never wraps.

/// Zero-width marks of the scripts that occur in service and topic names; other marks count as one
/// column.
const MARKS: &[(u32, u32)] = &[
    (0x0300, 0x036F), // combining diacritics
    (0x0483, 0x0489), // Cyrillic
    (0x0591, 0x05BD), // Hebrew points
    (0x064B, 0x065F), // Arabic
    (0x0E34, 0x0E3A), // Thai
    (0x0E47, 0x0E4E),
    (0x1AB0, 0x1ACE), // combining diacritics, extended
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20F0),
    (0x3099, 0x309A), // kana voicing
    (0xFE20, 0xFE2F),
];

/// Ranges with characters two columns wide (Unicode Standard Annex 11, "East Asian Width", W and
/// F), and all emoji.
const WIDE: &[(u32, u32)] = &[
    (0x1100, 0x115F), // Hangul initials
    (0x231A, 0x231B),
    (0x2329, 0x232A),
    (0x23E9, 0x23F3),
    (0x25FD, 0x25FE),
    (0x2600, 0x27BF), // symbols and dingbats: some are wide, and all are if they count as emoji
    (0x2B1B, 0x2B55),
    (0x2E80, 0xA4CF), // CJK and Yi
    (0xA960, 0xA97F),
    (0xAC00, 0xD7A3), // Hangul syllables
    (0xF900, 0xFAFF),
    (0xFE10, 0xFE19),
    (0xFE30, 0xFE6F),
    (0xFF01, 0xFF60),
    (0xFFE0, 0xFFE6),
    (0x16FE0, 0x191FF), // Tangut
    (0x1AFF0, 0x1B2FF), // kana, extended
    (0x1D300, 0x1D376),
    (0x1F000, 0x1FAFF), // emoji
    (0x20000, 0x3FFFD), // CJK, extended
];

/// Characters that are invisible, or change the order or shape of the text around them: removed.
const INVISIBLE: &[(u32, u32)] = &[
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
];

/// Returns the number of columns that text takes, once [`printable`].
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(char_columns).sum()
}

/// Returns `text` on one line, without characters that a terminal acts upon, because names may come
/// from any source.
///
/// White space becomes a space, control characters become `replacement`, and invisible characters
/// are removed. With `ascii`, any other non-ASCII character becomes `replacement`.
pub(super) fn printable(text: &str, ascii: bool, replacement: char) -> String {
    let visible = text.chars().filter(|c| c.is_ascii() || !within(INVISIBLE, *c));
    visible
        .map(|c| match c {
            '\t' | '\n' | '\r' | '\u{a0}' | '\u{2028}' | '\u{2029}' => ' ',
            c if c.is_control() || (ascii && !c.is_ascii()) => replacement,
            c => c,
        })
        .collect()
}

/// Cuts `text` to `width` columns, with `ellipsis` (one column) in place of the missing part.
pub(super) fn fit(text: &str, width: usize, ellipsis: char) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut fitted = String::new();
    let mut left = width.saturating_sub(1);
    for c in text.chars() {
        match left.checked_sub(char_columns(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        fitted.push(c);
    }
    if width > 0 {
        fitted.push(ellipsis);
    }
    fitted
}

/// Breaks `text` at spaces into lines of at most `width` columns; a longer word is cut.
pub(super) fn wrap(text: &str, width: usize, ellipsis: char) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, width, ellipsis)),
        }
    }
    lines
}

/// Formats a number with its noun.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn char_columns(c: char) -> usize {
    if c.is_ascii() {
        1
    } else if within(MARKS, c) {
        0
    } else if within(WIDE, c) {
        // The drawings use these two, which take one column in every terminal.
        if matches!(c, '✓' | '✗') { 1 } else { 2 }
    } else {
        1
    }
}

fn within(ranges: &[(u32, u32)], c: char) -> bool {
    let code = u32::from(c);
    let position = ranges.partition_point(|(_, last)| *last < code);
    ranges.get(position).is_some_and(|(first, _)| *first <= code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_scripts() {
        assert_eq!(columns("orders"), 6);
        assert_eq!(columns("Bestellungen für Zürich"), 23);
        assert_eq!(columns("注文サービス"), 12);
        assert_eq!(columns("주문"), 4);
        assert_eq!(columns("заказы"), 6);
        assert_eq!(columns("cafe\u{301}"), 4);
        assert_eq!(columns("🚚"), 2);
        assert_eq!(columns("█▌▐░╌│├└┊↳✓✗…·"), 14);
    }

    #[test]
    fn nothing_a_terminal_acts_upon_is_left() {
        assert_eq!(printable("a\u{1b}[31mb\tc\nd\u{202e}e\u{9b}", false, '�'), "a�[31mb c de�");
        assert_eq!(printable("für 注文", true, '?'), "f?r ??");
    }

    #[test]
    fn cut_text_has_the_width_asked_for_or_one_less() {
        assert_eq!(fit("orders", 6, '…'), "orders");
        assert_eq!(fit("orders", 5, '…'), "orde…");
        assert_eq!(fit("注文サービス", 6, '…'), "注文…");
        assert_eq!(fit("orders", 0, '…'), "");
    }

    #[test]
    fn wrapped_text_keeps_every_word() {
        assert_eq!(wrap("the parent was  sampled away", 10, '…'), ["the parent", "was", "sampled", "away"]);
        assert_eq!(wrap("abcdefghijkl", 5, '…'), ["abcd…"]);
    }
}
