//! The topics that share their streams with others.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::message::Topic;

use super::super::connection::info::StreamInfo;
use crate::adapters::nats::topology::names;

/// The topics whose streams take other topics too. Such a stream would store an id only once for
/// all of them.
#[derive(Debug, Default)]
pub(crate) struct SharedStreams(Mutex<HashSet<Topic>>);

impl SharedStreams {
    /// Reads from a topic's stream if it takes others.
    pub(crate) fn learn(&self, topic: &Topic, stream: &StreamInfo) {
        let (own, delayed) = (names::subject(topic), names::delayed_subjects(topic));
        let is_own = |subject: &String| *subject == own.as_str() || *subject == delayed;
        let mut topics = self.0.lock();
        match stream.subjects.iter().all(is_own) {
            true => topics.remove(topic),
            false => topics.insert(topic.clone()),
        };
    }

    /// Returns `true` if the topic's stream takes others, as found when it was declared.
    pub(crate) fn has(&self, topic: &Topic) -> bool {
        self.0.lock().contains(topic)
    }
}
