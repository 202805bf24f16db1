//! A received message, as handlers see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::address::Topic;
use crate::codec::Json;
use crate::driver::Timestamp;
use crate::error::Result;
use crate::headers::Headers;
use crate::latency::Queued;
use crate::propagation::Origin;

/// A received message: payload, key, headers and where it came from. Cheap to clone.
///
/// The headers are those on the wire: nothing is added, removed or rewritten.
#[derive(Debug, Clone)]
pub struct Received {
    pub(crate) parts: Arc<Parts>,
    pub(crate) attempt: u32,
    pub(crate) queued: Option<Queued>,
}

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) topic: Topic,
    pub(crate) payload: Option<Bytes>,
    pub(crate) key: Option<Bytes>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) partition: Option<i32>,
    pub(crate) offset: Option<i64>,
    pub(crate) origin: Origin,
}

impl Received {
    /// The topic it was published to.
    pub fn topic(&self) -> &Topic {
        &self.parts.topic
    }

    /// The payload; empty for a tombstone.
    pub fn payload(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        self.parts.payload.as_ref().unwrap_or(&EMPTY)
    }

    /// Whether the message has no payload at all, which is not the same as an empty one.
    pub fn is_tombstone(&self) -> bool {
        self.parts.payload.is_none()
    }

    /// The payload read as JSON; the same as [`decode`](Self::decode) by [`Json`].
    ///
    /// # Errors
    /// As for [`decode`](Self::decode).
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        self.decode(&Json)
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&Bytes> {
        self.parts.key.as_ref()
    }

    /// The message id: the sender's, or else the broker's.
    pub fn id(&self) -> Option<&str> {
        self.parts.id.as_deref()
    }

    /// The headers as they are on the wire.
    pub fn headers(&self) -> &Headers {
        &self.parts.headers
    }

    /// Which attempt at handling the message this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the message was stored or sent, and by whose clock.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.parts.timestamp
    }

    /// How long the message was in the queue when it was handed out, never negative; `None` without a timestamp.
    pub fn time_in_queue(&self) -> Option<Duration> {
        self.queued.map(|queued| queued.time)
    }

    /// Where it comes from, as far as traces go.
    pub(crate) fn origin(&self) -> &Origin {
        &self.parts.origin
    }

    /// The partition it came from, where there are partitions.
    pub fn partition(&self) -> Option<i32> {
        self.parts.partition
    }

    /// Its offset or sequence number, where there is one.
    pub fn offset(&self) -> Option<i64> {
        self.parts.offset
    }
}
