//! Dead letters: copies of rejected messages, with their trace and the reason.
//!
//! A dead letter is the received message, with its headers and its creation context, and with the
//! headers in [`header::DEAD_LETTER`]. It is published before the original is settled, so it cannot
//! be lost. After a crash in between, there may be two copies.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use opentelemetry::Context;

use crate::error::Result;
use crate::message::{Message, Receipt, Received};
use crate::names::header;

const MAX_REASON: usize = 1024;

/// A publisher that forwards messages within a given context.
pub(crate) trait Forward: Send + Sync {
    fn forward<'a>(&'a self, topic: &'a str, message: Message, context: Context) -> BoxFuture<'a, Result<Receipt>>;
}

/// The reason why a message was rejected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reason<'a> {
    pub(crate) text: &'a str,
    pub(crate) error_type: Option<&'static str>,
}

/// The dead-letter topic of a subscription, and the publisher for it.
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
    pub(crate) async fn publish(&self, message: &Received, reason: Reason<'_>, context: &Context) -> Result<()> {
        let mut copy = Message::from(message);
        let headers = copy.headers_mut();
        headers.insert(header::DEAD_LETTER_REASON, one_line(reason.text));
        match reason.error_type {
            Some(error_type) => headers.insert(header::DEAD_LETTER_ERROR_TYPE, error_type),
            // Remove the value of an earlier dead letter; it does not describe this failure.
            None => {
                headers.remove(header::DEAD_LETTER_ERROR_TYPE);
            }
        }
        headers.insert(header::DEAD_LETTER_TOPIC, message.topic().as_str());
        headers.insert(header::DEAD_LETTER_ATTEMPTS, message.attempt().to_string());
        if let Some(partition) = message.partition() {
            headers.insert(header::DEAD_LETTER_PARTITION, partition.to_string());
        }
        if let Some(offset) = message.offset() {
            headers.insert(header::DEAD_LETTER_OFFSET, offset.to_string());
        }
        self.publisher.forward(&self.topic, copy, context.clone()).await.map(drop)
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeadLetters").field(&self.topic).finish()
    }
}

/// Returns the text as one line without control characters, cut to [`MAX_REASON`] bytes. Every
/// broker can carry it as a header value.
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
