//! Messages whose header block the client cannot read.
//!
//! Anyone may write a header block that breaks the rules: the server stores and delivers it as it is, the client gives up the
//! connection over it, and the server delivers it again. So after every loss of a connection the messages that the server has
//! delivered and nobody has settled are read in another way, as JSON, in which the header block is quoted. Those that the
//! client cannot read are taken out of the quote, and kept from being delivered again until they are settled.

use std::time::SystemTime;

use async_nats::datetime::parse_rfc3339;
use async_nats::jetstream::consumer;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::Result;

use super::link::Link;
use super::{api, headers};

/// How many messages are looked at from each end of what is unsettled. They lie at the ends: the oldest holds the lower one, and what
/// was delivered last the upper one.
const REACH: u64 = 50_000;
/// How many are asked for at a time; each answer holds a whole message.
const AT_A_TIME: usize = 32;

/// A message that came as JSON.
#[derive(Debug, Clone)]
pub(super) struct Quarantined {
    pub(super) sequence: u64,
    pub(super) published: Option<SystemTime>,
    pub(super) headers: Bytes,
    pub(super) payload: Bytes,
    /// Counted here: the server does not tell.
    pub(super) attempt: u32,
}

/// Looks through what the server has delivered to a consumer and nobody has settled.
pub(super) async fn find(link: &Link, subject: &str, info: &consumer::Info) -> Result<Vec<Quarantined>> {
    if info.num_ack_pending == 0 {
        return Ok(Vec::new());
    }
    let (floor, top) = (info.ack_floor.stream_sequence, info.delivered.stream_sequence);
    let lower = floor + 1..=top.min(floor.saturating_add(REACH));
    let upper = (*lower.end()).max(top.saturating_sub(REACH)) + 1..=top;
    let found = stream::iter(lower.chain(upper))
        .map(|sequence| api::stored_message(link, &info.stream_name, sequence))
        .buffer_unordered(AT_A_TIME)
        .try_filter_map(|message| async move { Ok(message.filter(|message| is_ours(message, subject))) })
        .map_ok(Quarantined::from);
    let mut found: Vec<Quarantined> = found.try_collect().await?;
    found.sort_unstable_by_key(|message| message.sequence);
    Ok(found)
}

fn is_ours(message: &api::StoredMessage, subject: &str) -> bool {
    message.subject == subject && !message.headers.is_empty() && !headers::is_readable(&message.headers)
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
