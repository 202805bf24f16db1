//! Dead letters: copies of rejected messages, with their trace and the reason.
//!
//! A dead letter is the received message, with its headers and its creation context, and with the
//! headers in [`header::DEAD_LETTER`]. It is published before the original is settled, so it cannot
//! be lost. After a crash in between, there may be two copies.
//!
//! A letter that the topic refuses for good is cut until it fits: see [`Cut`].

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use opentelemetry::Context;

use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, Receipt, Received};
use crate::names::header;

/// Maximum size of a reason, in bytes.
const MAX_REASON: usize = 1024;

/// Maximum size of a reason that had to be shortened, in bytes.
const SHORT_REASON: usize = 128;

/// Maximum size of a header that is kept when the others are left out, in bytes.
const SHORT_HEADER: usize = 256;

/// The headers, beside those of a trace, that are kept when the others are left out.
const ESSENTIAL: [&str; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CORRELATION_ID,
    header::REPLY_TO,
    header::TRACE_HOP,
    header::TRACE_POLICY,
    header::BRIDGE_HOPS,
    header::REDRIVEN,
];

/// A publisher that forwards messages within a given context.
pub(crate) trait Forward: Send + Sync {
    fn forward<'a>(&'a self, topic: &'a str, message: Message, context: Context) -> BoxFuture<'a, Result<Receipt>>;

    /// Returns `true` for a header that may hold a trace context.
    fn is_of_trace(&self, name: &str) -> bool;
}

/// The reason why a message was rejected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reason<'a> {
    pub(crate) text: &'a str,
    pub(crate) error_type: Option<&'static str>,
}

/// The parts of a letter that are cut off, in the order in which they are given up. Each step
/// includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    Nothing,
    Reason,
    Headers,
    Payload,
    Key,
}

impl Cut {
    const STEPS: [Self; 5] = [Self::Nothing, Self::Reason, Self::Headers, Self::Payload, Self::Key];

    /// Returns the value of the header [`DEAD_LETTER_CUT`](header::DEAD_LETTER_CUT).
    const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Reason => "reason",
            Self::Headers => "reason,headers",
            Self::Payload => "reason,headers,payload",
            Self::Key => "reason,headers,payload,key",
        }
    }
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

    /// Publishes the copy and waits for the confirm. Cuts it step by step while the topic refuses
    /// it as it is.
    ///
    /// # Errors
    /// The error of the smallest form that was tried. The burial tells errors that may pass from
    /// those that stay.
    pub(crate) async fn publish(&self, message: &Received, reason: Reason<'_>, context: &Context) -> Result<()> {
        let mut refused = None;
        for cut in Cut::STEPS {
            let letter = self.letter(message, reason, cut);
            match self.publisher.forward(&self.topic, letter, context.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if does_not_fit(&error) => {
                    tracing::debug!(topic = %self.topic, %error, cut = cut.as_str(), "a dead letter is cut to fit");
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| Error::new(ErrorKind::InvalidMessage, "the dead letter was refused")))
    }

    fn letter(&self, message: &Received, reason: Reason<'_>, cut: Cut) -> Message {
        let mut letter = Message::from(message);
        letter.is_mandatory = true;
        if cut >= Cut::Headers {
            self.keep_essential_headers(&mut letter);
        }
        // Values of an earlier dead letter do not describe this failure.
        for name in header::DEAD_LETTER {
            letter.headers.remove(name);
        }
        let limit = if cut >= Cut::Reason { SHORT_REASON } else { MAX_REASON };
        describe(&mut letter, message, Reason { text: &one_line(reason.text, limit), ..reason });
        if cut > Cut::Nothing {
            letter.headers.append(header::DEAD_LETTER_CUT, cut.as_str());
        }
        if cut >= Cut::Payload {
            letter.headers.append(header::DEAD_LETTER_PAYLOAD_SIZE, letter.payload().len().to_string());
            letter.payload = Some(Bytes::new());
        }
        if cut >= Cut::Key {
            letter.key = None;
        }
        letter
    }

    /// Leaves out the headers that are not needed to read the letter and its trace, and what else
    /// may be large.
    fn keep_essential_headers(&self, letter: &mut Message) {
        let is_essential = |name: &str| ESSENTIAL.iter().any(|essential| essential.eq_ignore_ascii_case(name));
        letter.headers.retain(|name, value| {
            self.publisher.is_of_trace(name) || (is_essential(name) && value.len() <= SHORT_HEADER)
        });
        if let Some(copied) = &mut letter.copied {
            copied.native = None;
            copied.id = copied.id.take().filter(|id| id.len() <= SHORT_HEADER);
        }
    }
}

/// Returns `true` if a smaller or simpler form of the message may be taken.
fn does_not_fit(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::InvalidMessage | ErrorKind::Unsupported)
}

/// Adds the headers that say what the letter is.
fn describe(letter: &mut Message, message: &Received, reason: Reason<'_>) {
    let headers = &mut letter.headers;
    headers.append(header::DEAD_LETTER_REASON, reason.text);
    if let Some(error_type) = reason.error_type {
        headers.append(header::DEAD_LETTER_ERROR_TYPE, error_type);
    }
    headers.append(header::DEAD_LETTER_TOPIC, message.topic().as_str());
    headers.append(header::DEAD_LETTER_ATTEMPTS, message.attempt().to_string());
    if let Some(partition) = message.partition() {
        headers.append(header::DEAD_LETTER_PARTITION, partition.to_string());
    }
    if let Some(offset) = message.offset() {
        headers.append(header::DEAD_LETTER_OFFSET, offset.to_string());
    }
    if let Some(timestamp) = message.timestamp() {
        let since = timestamp.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        headers.append(header::DEAD_LETTER_TIMESTAMP, since.as_millis().to_string());
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeadLetters").field(&self.topic).finish()
    }
}

/// Returns the text as one line without control characters and without white space around it, cut
/// to `limit` bytes. Every broker can carry it as a header value.
fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    let text = text.trim_matches(|character: char| character.is_control() || character.is_whitespace());
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if line.len() + character.len_utf8() > limit {
            break;
        }
        line.push(character);
    }
    line.truncate(line.trim_end().len());
    line
}
