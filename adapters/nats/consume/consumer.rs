//! The consumer of a group or reader, as its sessions use it.

use std::time::Duration;

use async_nats::Subject;

use super::super::connection::info::ConsumerInfo;
use super::super::headers::reply_subject::Tokens;
use crate::adapters::nats::connection::api;

/// Maximum size of the messages of a request. At most four are open, and the server ends a
/// connection on which 64 MiB wait to be written.
const MOST: usize = 8 * 1024 * 1024;

/// The consumer from which messages are requested and to which they are acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Consumer {
    pub(crate) stream: String,
    pub(crate) name: String,
    pub(crate) next: Subject,
    pub(crate) ack_wait: Duration,
    /// Maximum size and, in the next field, maximum lifetime of a request, if the consumer is so
    /// configured.
    pub(crate) max_batch: Option<usize>,
    pub(crate) max_expires: Option<Duration>,
    /// Maximum size of the messages of a request.
    pub(crate) max_bytes: usize,
    /// Maximum number of deliveries of a message, if an operator has set one.
    pub(crate) max_deliver: Option<u64>,
    /// The time of creation.
    pub(crate) created: String,
}

impl Consumer {
    /// Warns that the server does not deliver a message again, whatever becomes of it.
    pub(crate) fn warn_if_last(&self, tokens: &Tokens) {
        if self.max_deliver.is_some_and(|most| u64::from(tokens.delivered) >= most) {
            let (consumer, sequence) = (self.name.as_str(), tokens.stream_sequence);
            tracing::warn!(consumer, sequence, "the last delivery that max_deliver of the consumer allows");
        }
    }
}

impl From<&ConsumerInfo> for Consumer {
    fn from(info: &ConsumerInfo) -> Self {
        let config = &info.config;
        Self {
            next: api::next_of(&info.stream, &info.name),
            ack_wait: config.ack_wait(),
            max_batch: config.limit("max_batch").and_then(|most| usize::try_from(most).ok()),
            max_expires: Some(config.duration("max_expires")).filter(|longest| !longest.is_zero()),
            max_bytes: config.limit("max_bytes").and_then(|most| usize::try_from(most).ok()).unwrap_or(MOST).min(MOST),
            max_deliver: config.limit("max_deliver"),
            stream: info.stream.clone(),
            name: info.name.clone(),
            created: info.created.clone(),
        }
    }
}
