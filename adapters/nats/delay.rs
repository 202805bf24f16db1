//! Delayed publishes: messages that the server keeps beside the topic, and publishes to it by itself when their time has come.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use async_nats::Subject;
use async_nats::jetstream::stream::{self, RetentionPolicy};
use parking_lot::Mutex;

use crate::address::Topic;
use crate::error::{Error, ErrorKind, Result};

use super::link::Link;
use super::{api, moment, names};

/// The level of the JetStream API from which messages can be delayed: that of server 2.12.
pub(super) const LEVEL: u64 = 2;

/// What is said where they cannot.
pub(super) const UNSUPPORTED: &str = "only JetStream of server 2.12 or later keeps messages for later";

/// What the subjects of kept messages begin with. No topic has such a character in its name.
const ROOT: &str = "@delayed";

/// The subjects of the kept messages of a topic. The server keeps one message for each.
pub(super) fn subjects(topic: &str) -> String {
    format!("{ROOT}.{}.>", names::object(topic))
}

/// The subject to keep one message at.
pub(super) fn subject(topic: &str, unique: &str) -> Subject {
    format!("{ROOT}.{}.{unique}", names::object(topic)).into()
}

/// When a message is due.
#[derive(Debug)]
pub(super) struct Schedule {
    /// What the server is told.
    pub(super) pattern: String,
    /// Whether to say that the message is not to expire while it is kept.
    pub(super) lasting: bool,
}

/// The topics whose streams are not as they are created here.
#[derive(Debug, Default)]
pub(super) struct Oddities(Mutex<HashMap<Topic, Oddity>>);

#[derive(Debug, Clone)]
enum Oddity {
    /// It cannot keep messages, for a reason.
    Refuses { stream: String, reason: &'static str },
    /// It forgets a message after that time, kept or not.
    Forgets { stream: String, after: Duration },
}

impl Oddities {
    /// Looks at the stream of a topic.
    pub(super) async fn learn(&self, link: &Link, topic: &Topic, stream: &stream::Info) -> Result<()> {
        let (config, subjects) = (&stream.config, subjects(topic));
        let takes = config.subjects.contains(&subjects)
            || api::stream_of(link, &subject(topic, "0")).await?.as_deref() == Some(config.name.as_str());
        let refuses = |reason| Some(Oddity::Refuses { stream: config.name.clone(), reason });
        let oddity = if !config.allow_message_schedules {
            refuses("the stream keeps no messages for later: set allow_msg_schedules, and add the subject")
        } else if !takes {
            refuses("the stream has no place for messages of this topic that are kept for later: add the subject")
        } else if config.retention == RetentionPolicy::Interest {
            refuses("the stream drops what no consumer waits for, and so what is to be kept for later")
        } else if !config.allow_message_ttl && !config.max_age.is_zero() {
            Some(Oddity::Forgets { stream: config.name.clone(), after: config.max_age })
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

    /// How to have a message of the topic kept until that time.
    pub(super) fn schedule(&self, topic: &Topic, time: SystemTime) -> Result<Schedule> {
        let Some(text) = moment::rfc3339(time) else {
            return Err(Error::new(ErrorKind::InvalidMessage, "NATS cannot keep a message beyond the year 2262"));
        };
        let lasting = match self.0.lock().get(topic) {
            None => true,
            Some(Oddity::Refuses { stream, reason }) => {
                return Err(Error::new(ErrorKind::Conflict, *reason)
                    .with_context("stream", stream)
                    .with_context("subject", subjects(topic)));
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
