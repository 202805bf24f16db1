//! What applications publish and what they get back for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry::Context;
use serde::Serialize;

use crate::codec::Json;
use crate::error::Result;
use crate::headers::Headers;
use crate::propagation::{Hop, TracePolicy, TrustBoundary};
use crate::received::Received;

/// The header that holds the media type of the payload; adapters map it to the broker's own property where there is one.
pub const CONTENT_TYPE: &str = "content-type";

/// A message to publish: a payload, an optional key, headers, and the trace context it travels with.
///
/// ```
/// use traced_broker::Message;
///
/// # fn main() -> traced_broker::Result<()> {
/// let message = Message::json(&serde_json::json!({ "sku": "A-1", "quantity": 2 }))?
///     .key("customer-7")
///     .header("tenant", "acme");
/// assert_eq!(message.headers().get_str("content-type"), Some("application/json"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) payload: Option<Bytes>,
    pub(crate) key: Option<Bytes>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) context: Option<Context>,
    pub(crate) deliver_at: Option<SystemTime>,
    pub(crate) hop: Option<Hop>,
    pub(crate) policy: Option<TracePolicy>,
    pub(crate) boundary: Option<Arc<TrustBoundary>>,
}

impl Message {
    /// A message with these bytes as payload; they are not copied.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: Some(payload.into()),
            key: None,
            id: None,
            headers: Headers::new(),
            context: None,
            deliver_at: None,
            hop: None,
            policy: None,
            boundary: None,
        }
    }

    /// A message with `value` as JSON and the content type `application/json`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`](crate::ErrorKind::InvalidMessage) when `value` cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        Self::encode(&Json, value)
    }

    /// A message without a payload: on Kafka a tombstone (null value), elsewhere refused where the broker has no such
    /// thing, see [`Capabilities::tombstones`](crate::Capabilities).
    pub fn tombstone() -> Self {
        Self { payload: None, ..Self::new(Bytes::new()) }
    }

    /// Sets the key: messages of one key keep their order where the broker orders by key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(Bytes::copy_from_slice(key.as_ref()));
        self
    }

    /// Sets an id of the sender's own, by which JetStream drops duplicates; elsewhere it travels with the message.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds a header after those already there.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Has the broker keep the message until `time`; one in the past delays nothing.
    ///
    /// The delay survives the end of this program. Publishing fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on brokers that cannot
    /// delay, see [`Capabilities::delayed_publish`](crate::Capabilities).
    #[must_use]
    pub fn deliver_at(mut self, time: SystemTime) -> Self {
        self.deliver_at = Some(time);
        self
    }

    /// Has the broker keep the message for that long from now on; see [`deliver_at`](Self::deliver_at).
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        // A time beyond the clock's range is as far away as any.
        let time = SystemTime::now().checked_add(delay);
        self.deliver_at(time.unwrap_or(SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into())))
    }

    /// Sets the trace context to travel with, in place of the one that is current when `publish` is called.
    ///
    /// Needed where the current context is not the sender's: in spawned tasks, in batches, in callbacks.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// Asks for a way in which its process span relates to its context; the subscription may decide otherwise, see
    /// [`propagation`](crate::propagation). Travels in the header [`TRACE_POLICY`](crate::propagation::TRACE_POLICY).
    #[must_use]
    pub fn trace_policy(mut self, policy: TracePolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Says what kind of hop the message is on, where that is not known by itself: `Scheduled` for what a schedule publishes.
    /// Travels in the header [`TRACE_HOP`](crate::propagation::TRACE_HOP). A message that is [delayed](Self::deliver_at) says so by itself.
    #[must_use]
    pub fn hop(mut self, hop: Hop) -> Self {
        self.hop = Some(hop);
        self
    }

    /// Lets only what the boundary allows travel with the message; for receivers that are strangers.
    /// [`Traced::with_trust_boundary`](crate::Traced::with_trust_boundary) does it for every message.
    #[must_use]
    pub fn trust_boundary(mut self, boundary: TrustBoundary) -> Self {
        self.boundary = Some(Arc::new(boundary));
        self
    }

    /// What kind of hop it is on.
    pub(crate) fn hop_kind(&self) -> Hop {
        let is_delayed = || self.deliver_at.is_some_and(|time| time > SystemTime::now());
        self.hop.unwrap_or_else(|| if is_delayed() { Hop::Delayed } else { Hop::Direct })
    }

    /// The payload; empty for a tombstone.
    pub fn payload(&self) -> &[u8] {
        self.payload.as_deref().unwrap_or_default()
    }

    /// The headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }
}

/// A message as it was received, to publish or forward again: payload, key and headers are kept.
///
/// Its id is not: it may be one that the broker gave, and JetStream would drop the copy of a message as its duplicate.
impl From<&Received> for Message {
    fn from(received: &Received) -> Self {
        Self {
            payload: (!received.is_tombstone()).then(|| received.payload().clone()),
            key: received.key().cloned(),
            id: None,
            headers: received.headers().clone(),
            context: None,
            deliver_at: None,
            hop: None,
            policy: None,
            boundary: None,
        }
    }
}

/// What is known about a published message afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishOutcome {
    /// The broker confirmed it; what that promises is in the broker's
    /// [`Capabilities::confirm`](crate::Capabilities).
    Confirmed,
    /// It was certainly not stored: publishing again cannot duplicate it.
    NotSent,
    /// It may have been stored: bytes had left and no answer came, or the broker never answers.
    Unknown,
}

/// What the broker said about a message it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Whether the broker confirmed the message. `false` only on brokers that never do, such as core NATS.
    pub confirmed: bool,
    /// The partition it went to, where there are partitions.
    pub partition: Option<i32>,
    /// Its offset or sequence number in the partition or stream, where there is one.
    pub offset: Option<i64>,
    /// The id the broker gave it, where it gives one.
    pub id: Option<String>,
}

impl Receipt {
    /// A receipt of a confirmed message.
    pub fn confirmed() -> Self {
        Self { confirmed: true, ..Self::default() }
    }

    /// A receipt of a message that was handed over to a broker that never confirms.
    pub fn unconfirmed() -> Self {
        Self::default()
    }

    /// Adds the partition.
    #[must_use]
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Adds the offset or sequence number.
    #[must_use]
    pub fn with_offset(mut self, offset: i64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Adds the broker's id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// [`PublishOutcome::Confirmed`], or `Unknown` on a broker that never confirms.
    pub fn outcome(&self) -> PublishOutcome {
        if self.confirmed { PublishOutcome::Confirmed } else { PublishOutcome::Unknown }
    }
}
