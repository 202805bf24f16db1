//! Messages whose header block the client cannot read.
//!
//! Any producer can write a header block that breaks the rules. The server stores and delivers it
//! unchanged, the client gives up the connection over it, and the server redelivers it. So after a
//! reading connection was lost alone, the message that came next is read as JSON, where the header
//! block is encoded. If the client cannot read it, it is taken from there, and is kept from being
//! redelivered until it is settled.

use std::collections::HashSet;
use std::time::SystemTime;

use async_nats::datetime::parse_rfc3339;
use bytes::Bytes;

use crate::error::Result;

use super::super::connection::info::ConsumerInfo;
use super::super::connection::link::Link;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::headers;

/// Bounds of what is read after one loss: a number of messages, and of bytes.
const MESSAGES: usize = 256;
const BYTES: usize = 8 * 1024 * 1024;

/// A message that was read as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Quarantined {
    pub(crate) sequence: u64,
    pub(crate) published: Option<SystemTime>,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
    /// The attempt, counted here because the server does not tell it.
    pub(crate) attempt: u32,
}

/// The unsettled messages in which to look.
#[derive(Debug)]
pub(crate) struct Suspects<'a> {
    pub(crate) link: &'a Link,
    pub(crate) subject: &'a str,
    pub(crate) info: &'a ConsumerInfo,
    /// The messages that are in hand.
    pub(crate) held: HashSet<u64>,
}

impl Suspects<'_> {
    /// Finds the unreadable messages that follow on this sequence without a readable one between.
    pub(crate) async fn next(&self, from: u64) -> Result<Vec<Quarantined>> {
        self.find(from, true).await
    }

    /// Finds the unreadable messages among the oldest that are unsettled.
    pub(crate) async fn oldest(&self) -> Result<Vec<Quarantined>> {
        self.find(self.info.ack_floor + 1, false).await
    }

    async fn find(&self, mut from: u64, ends_at_a_readable_one: bool) -> Result<Vec<Quarantined>> {
        let Self { link, subject, info, held } = self;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for _ in 0..MESSAGES {
            if info.unsettled == 0 || from > info.delivered || bytes > BYTES {
                break;
            }
            let Some(message) = api::next_message(link, &info.stream, subject, from).await? else { break };
            if message.sequence > info.delivered {
                break;
            }
            from = message.sequence + 1;
            bytes += message.payload.len() + message.headers.len();
            if held.contains(&message.sequence) {
                continue;
            }
            if message.headers.is_empty() || headers::is_readable(&message.headers) {
                if ends_at_a_readable_one {
                    break;
                }
            } else {
                found.push(Quarantined::from(message));
            }
        }
        Ok(found)
    }
}

impl From<api::StoredMessage> for Quarantined {
    fn from(message: api::StoredMessage) -> Self {
        Self {
            sequence: message.sequence,
            published: parse_rfc3339(&message.time).ok().map(SystemTime::from),
            headers: message.headers.into(),
            payload: message.payload.into(),
            attempt: 1,
        }
    }
}
