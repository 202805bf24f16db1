//! Native names of topics and groups.

use async_nats::Subject;

/// The replacement of a dot where NATS allows none. Names of topics and groups do not contain it,
/// so two names never become one.
const DOT: char = '~';

/// The prefix of the subjects of delayed messages. Names of topics do not contain its first
/// character.
const DELAYED: &str = "@delayed";

/// The prefix of the subjects at which failed attempts are kept, and the end of the names of their
/// streams. It is short, so that the longest name of a topic leaves room for it.
const TRIES: &str = "@tries";

/// Returns the subject of a topic: its name, in which a dot that would leave a token empty is
/// written `~`.
pub(crate) fn subject(topic: &str) -> Subject {
    let bytes = topic.as_bytes();
    let at_edge = bytes.first() == Some(&b'.') || bytes.last() == Some(&b'.');
    if !at_edge && !topic.contains("..") {
        return Subject::from(topic);
    }
    let is_token = |index: Option<usize>| index.and_then(|index| bytes.get(index)).is_some_and(|byte| *byte != b'.');
    let separates = |index: usize| is_token(index.checked_sub(1)) && is_token(index.checked_add(1));
    let written = |(index, letter)| if letter == '.' && !separates(index) { DOT } else { letter };
    Subject::from(topic.char_indices().map(written).collect::<String>())
}

/// Returns the name of a topic's stream, or of a group's durable consumer. Dots are not allowed
/// there: each is written `~`.
pub(crate) fn object(name: &str) -> String {
    name.chars().map(|letter| if letter == '.' { DOT } else { letter }).collect()
}

/// Returns the subjects of a topic's delayed messages. The server keeps one message for each
/// subject.
pub(crate) fn delayed_subjects(topic: &str) -> String {
    format!("{DELAYED}.{}.>", object(topic))
}

/// Returns the subject at which one message is kept.
pub(crate) fn delayed_subject(topic: &str, unique: &str) -> Subject {
    format!("{DELAYED}.{}.{unique}", object(topic)).into()
}

/// Returns the name of the stream that keeps the failed attempts at the messages of a stream.
pub(crate) fn tries(stream: &str) -> String {
    format!("{stream}{TRIES}")
}

/// Returns the subject at which the failed attempts at one message are kept.
pub(crate) fn tries_subject(stream: &str, group: &str, message: &str) -> String {
    format!("{TRIES}.{stream}.{group}.{message}")
}

/// Returns the subjects at which the failed attempts of a group are kept, or of all groups of the
/// stream.
pub(crate) fn tries_subjects(stream: &str, group: Option<&str>) -> String {
    match group {
        Some(group) => format!("{TRIES}.{stream}.{group}.*"),
        None => format!("{TRIES}.{stream}.>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_topic_is_its_subject() {
        assert_eq!(subject("orders.v2").as_str(), "orders.v2");
        assert_eq!(object("orders.v2"), "orders~v2");
    }

    #[test]
    fn every_legal_topic_becomes_a_legal_subject_of_its_own() {
        let topics = [".a", "a.", "a..b", "a...b", ".a..b.", "a.b", "...", "a"];
        let subjects: Vec<_> = topics.map(|topic| subject(topic).as_str().to_owned()).to_vec();
        assert_eq!(subjects, ["~a", "a~", "a~~b", "a~~~b", "~a~~b~", "a.b", "~~~", "a"]);
        for (topic, subject) in topics.iter().zip(&subjects) {
            assert!(Subject::from(subject.as_str()).is_valid(), "{subject}");
            assert_eq!(subject.replace(DOT, "."), *topic);
        }
    }
}
