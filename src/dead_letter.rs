//! Dead letters: copies of messages that were given up, with their trace and the reason.
//!
//! A dead letter is the message as it was received, headers and creation context included, with the headers named here
//! set. It is published before the original is settled, so that it cannot get lost; after a crash in between it may be there twice.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use opentelemetry::Context;

use crate::error::Result;
use crate::handler::HandlerError;
use crate::message::{Message, Receipt};
use crate::received::Received;

/// Header of a dead letter: why the message was given up, in words, one line of at most 1024 bytes.
pub const REASON: &str = "dead-letter-reason";
/// Header of a dead letter: the kind of error, the `error.type` of the last process span (`panic`, `timeout`, `invalid_message`, …);
/// absent where the application rejected the message by hand.
pub const ERROR_TYPE: &str = "dead-letter-error-type";
/// Header of a dead letter: the topic it came from.
pub const TOPIC: &str = "dead-letter-topic";
/// Header of a dead letter: how many attempts were made at it.
pub const ATTEMPTS: &str = "dead-letter-attempts";
/// Header of a dead letter: the partition it came from, where there are partitions.
pub const PARTITION: &str = "dead-letter-partition";
/// Header of a dead letter: its offset or sequence number, where there is one.
pub const OFFSET: &str = "dead-letter-offset";

/// Every header that dead-lettering sets.
pub const HEADERS: [&str; 6] = [REASON, ERROR_TYPE, TOPIC, ATTEMPTS, PARTITION, OFFSET];

const MAX_REASON: usize = 1024;

/// Forwards messages within a given context; what publishing gives to dead-lettering.
pub(crate) trait Forward: Send + Sync {
    fn forward<'a>(&'a self, topic: &'a str, message: Message, context: Context) -> BoxFuture<'a, Result<Receipt>>;
}

/// Why a message was given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grounds<'a> {
    pub(crate) reason: &'a str,
    pub(crate) error_type: Option<&'static str>,
}

impl<'a> Grounds<'a> {
    /// An error of a handler, and what it says.
    pub(crate) fn of(error: Option<&HandlerError>, reason: &'a str) -> Self {
        Self { reason, error_type: error.map(HandlerError::error_type) }
    }
}

/// Where the rejected messages of a subscription go.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    topic: Arc<str>,
    publisher: Arc<dyn Forward>,
}

impl DeadLetters {
    pub(crate) fn new(topic: &str, publisher: Arc<dyn Forward>) -> Self {
        Self { topic: topic.into(), publisher }
    }

    /// Publishes the copy and waits for the confirm.
    pub(crate) async fn publish(&self, message: &Received, grounds: Grounds<'_>, context: &Context) -> Result<()> {
        let mut copy = Message::from(message);
        let headers = copy.headers_mut();
        headers.insert(REASON, one_line(grounds.reason));
        match grounds.error_type {
            Some(error_type) => headers.insert(ERROR_TYPE, error_type),
            // One that is left of an earlier death says nothing about this one.
            None => {
                headers.remove(ERROR_TYPE);
            }
        }
        headers.insert(TOPIC, message.topic().as_str());
        headers.insert(ATTEMPTS, message.attempt().to_string());
        if let Some(partition) = message.partition() {
            headers.insert(PARTITION, partition.to_string());
        }
        if let Some(offset) = message.offset() {
            headers.insert(OFFSET, offset.to_string());
        }
        self.publisher.forward(&self.topic, copy, context.clone()).await.map(drop)
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeadLetters").field(&self.topic).finish()
    }
}

/// Every broker can carry the result as a header value.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_REASON));
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if line.len() + character.len_utf8() > MAX_REASON {
            break;
        }
        line.push(character);
    }
    line
}
