//! The names of topics for replies.

/// The word that marks the names of topics for replies.
const REPLIES: &str = "replies";

/// Returns `true` if the name has the word `replies`, set apart by dots, dashes or underscores.
pub(crate) fn is_marked_for_replies(topic: &str) -> bool {
    end_of_mark(topic).is_some()
}

/// Returns the name under which spans and metrics show a temporary topic: one whose name goes on
/// after the word `replies`, such as `prices.replies.7f3a`. `None` for any other topic.
pub(crate) fn temporary_template(topic: &str) -> Option<String> {
    let end = end_of_mark(topic).filter(|end| *end < topic.len())?;
    Some(format!("{}*", &topic[..=end]))
}

/// Returns the position behind the first word `replies` of the name.
fn end_of_mark(topic: &str) -> Option<usize> {
    let is_edge = |byte: Option<&u8>| byte.is_none_or(|byte| matches!(byte, b'.' | b'-' | b'_'));
    let bytes = topic.as_bytes();
    topic.match_indices(REPLIES).map(|(start, word)| (start, start + word.len())).find_map(|(start, end)| {
        let before = start.checked_sub(1).and_then(|before| bytes.get(before));
        (is_edge(before) && is_edge(bytes.get(end))).then_some(end)
    })
}
