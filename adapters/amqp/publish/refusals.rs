//! Topics to which publishing has failed.
//!
//! The broker answers a publish to a missing exchange by ending the channel, and with it the
//! confirms of all other topics. Publishes to such a topic therefore fail at once for a while.
//! After that, one message tries again, on a channel of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lapin::ErrorKind as ClientErrorKind;
use parking_lot::Mutex;

use super::super::error::{During, client_error};
use super::sequence::named_exchange;
use crate::error::{Error, ErrorKind, Result};

/// Times for which publishes to a refused topic fail at once: twice as long after each trial.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The same for an exchange that was deleted and is made again: all subscriptions look after their
/// bindings meanwhile.
const DELETED: Duration = Duration::from_secs(6);
/// Maximum number of topics to remember.
const MOST: usize = 1024;

/// The refused topics.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<String, Refused>>);

#[derive(Debug)]
struct Refused {
    kind: ErrorKind,
    pause: Duration,
    until: Instant,
    /// `true` if the exchange was deleted and may be made again.
    is_deleted: bool,
}

/// The channel for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Shared,
    /// One of its own, because the broker may refuse this topic still.
    Own,
}

impl Refusals {
    /// Notes the exchange that the text of the error names as the reason for the end of the
    /// channel. Returns it if it does not exist.
    pub(crate) fn note(&self, error: &lapin::Error, may_create: bool) -> Option<String> {
        let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return None };
        let exchange = named_exchange(refusal.get_message().as_str())?;
        let kind = client_error(error.clone(), During::Declare).kind();
        let now = Instant::now();
        let is_deleted = kind == ErrorKind::NotFound && may_create;
        let mut topics = self.0.lock();
        if topics.len() >= MOST {
            topics.retain(|_, refused| now < refused.until);
        }
        let longer = topics.get(exchange).map(|refused| PAUSES.1.min(2 * refused.pause));
        let pause = if is_deleted { DELETED } else { longer.unwrap_or(PAUSES.0) };
        topics.insert(exchange.to_owned(), Refused { kind, pause, until: now + pause, is_deleted });
        (kind == ErrorKind::NotFound).then(|| exchange.to_owned())
    }

    /// Forgets a topic whose exchange was declared, unless its subscriptions need time to see it.
    pub(crate) fn declared(&self, topic: &str) {
        let mut topics = self.0.lock();
        if topics.get(topic).is_some_and(|refused| !refused.is_deleted) {
            topics.remove(topic);
        }
    }

    /// Forgets a topic to which a message was published.
    pub(crate) fn forget(&self, topic: &str) {
        self.0.lock().remove(topic);
    }

    /// Returns `true` if the broker has refused the topic, and has taken no message since.
    pub(crate) fn is_refused(&self, topic: &str) -> bool {
        self.0.lock().contains_key(topic)
    }

    /// Returns the channel for a message to this topic. If it is its own, all others are refused
    /// meanwhile.
    ///
    /// # Errors
    /// The error with which the topic was refused just now.
    pub(crate) fn check(&self, topic: &str) -> Result<Admission> {
        let mut topics = self.0.lock();
        let Some(refused) = topics.get_mut(topic) else { return Ok(Admission::Shared) };
        let now = Instant::now();
        if now >= refused.until {
            refused.until = now + refused.pause;
            return Ok(Admission::Own);
        }
        let (kind, message) = if refused.is_deleted {
            (ErrorKind::Unavailable, "the exchange of the topic was deleted: its subscriptions are binding it again")
        } else {
            (refused.kind, "the broker refused this topic's exchange just now: see whether it still exists")
        };
        Err(Error::new(kind, message).with_context("exchange", topic))
    }
}
