//! Delayed publishes: messages that the server keeps beside the topic, and publishes to it when
//! they are due.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::message::Topic;

use super::super::connection::info::StreamInfo;
use super::super::connection::link::Link;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::headers::{Schedule, time};
use crate::adapters::nats::topology::names;

/// Error message for a server that cannot delay messages.
pub(crate) const UNSUPPORTED: &str = "only JetStream of server 2.12 or later keeps messages for later";

/// The topics whose streams are not configured like those created here.
#[derive(Debug, Default)]
pub(crate) struct Oddities(Mutex<HashMap<Topic, Oddity>>);

#[derive(Debug, Clone)]
enum Oddity {
    /// The stream cannot keep delayed messages, for this reason.
    Refuses { stream: String, reason: &'static str },
    /// The stream drops every message after this time, delayed or not.
    Forgets { stream: String, after: Duration },
}

impl Oddities {
    /// Reads from a topic's stream if it can keep delayed messages.
    pub(crate) async fn learn(&self, link: &Link, topic: &Topic, stream: &StreamInfo) -> Result<()> {
        let subjects = names::delayed_subjects(topic);
        let takes = stream.subjects.contains(&subjects)
            || api::stream_of(link, &names::delayed_subject(topic, "0")).await?.as_deref()
                == Some(stream.name.as_str());
        let refuses = |reason| Some(Oddity::Refuses { stream: stream.name.clone(), reason });
        let oddity = if !stream.allow_schedules {
            refuses("the stream keeps no messages for later: set allow_msg_schedules, and add the subject")
        } else if !takes {
            refuses("the stream has no place for messages of this topic that are kept for later: add the subject")
        } else if stream.retention == "interest" {
            refuses("the stream drops messages that no consumer waits for, so it cannot keep delayed ones")
        } else if !stream.allow_ttl && !stream.max_age.is_zero() {
            Some(Oddity::Forgets { stream: stream.name.clone(), after: stream.max_age })
        } else {
            None
        };
        let mut oddities = self.0.lock();
        match oddity {
            Some(oddity) => oddities.insert(topic.clone(), oddity),
            None => oddities.remove(topic),
        };
        Ok(())
    }

    /// Returns the schedule for keeping a message of the topic until this time.
    pub(crate) fn schedule(&self, topic: &Topic, time: SystemTime) -> Result<Schedule> {
        let Some(text) = time::rfc3339(time) else {
            return Err(Error::new(ErrorKind::InvalidMessage, "NATS cannot keep a message beyond the year 2262"));
        };
        let lasting = match self.0.lock().get(topic) {
            None => true,
            Some(Oddity::Refuses { stream, reason }) => {
                return Err(Error::new(ErrorKind::Conflict, *reason)
                    .with_context("stream", stream)
                    .with_context("subject", names::delayed_subjects(topic)));
            }
            Some(Oddity::Forgets { stream, after }) => {
                let delay = time.duration_since(SystemTime::now()).unwrap_or_default();
                if delay >= *after {
                    let message = "the stream would forget the message before it is due: set allow_msg_ttl";
                    return Err(Error::new(ErrorKind::Conflict, message)
                        .with_context("stream", stream)
                        .with_context("max_age_ms", after.as_millis()));
                }
                false
            }
        };
        Ok(Schedule { pattern: format!("@at {text}"), lasting })
    }
}
