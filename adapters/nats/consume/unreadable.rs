//! Messages whose header block the client cannot read.
//!
//! Any producer can write a header block that breaks the rules. The server stores and delivers it
//! unchanged, the client gives up the connection over it, and the server redelivers it. So after
//! every loss of a connection, the messages that are delivered and unsettled are read as JSON,
//! where the header block is encoded. Those that the client cannot read are taken from there, and
//! are kept from being redelivered until they are settled.

use std::time::SystemTime;

use async_nats::datetime::parse_rfc3339;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::Result;

use super::super::connection::info::ConsumerInfo;
use super::super::connection::link::Link;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::headers;

/// Number of messages that are examined from each end of the unsettled ones. Unreadable messages
/// lie at the ends: the oldest at the lower one, those delivered last at the upper one.
const REACH: u64 = 50_000;
/// Number of messages requested at a time; each answer contains a whole message.
const AT_A_TIME: usize = 32;

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

/// Finds the unreadable messages among those that a consumer was delivered and has not settled.
pub(crate) async fn find(link: &Link, subject: &str, info: &ConsumerInfo) -> Result<Vec<Quarantined>> {
    if info.unsettled == 0 {
        return Ok(Vec::new());
    }
    let (floor, top) = (info.ack_floor, info.delivered);
    let lower = floor + 1..=top.min(floor.saturating_add(REACH));
    let upper = (*lower.end()).max(top.saturating_sub(REACH)) + 1..=top;
    let found = stream::iter(lower.chain(upper))
        .map(|sequence| api::stored_message(link, &info.stream, sequence))
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
