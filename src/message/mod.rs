//! The messages that applications publish and receive, and the subscriptions they come from.

mod address;
pub mod codec;
mod handler;
mod native;
mod receipt;
mod received;
mod reply_mark;
mod tenure;
mod timestamp;
mod topic;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry::Context;

use crate::headers::Headers;
use crate::names::header;

use crate::context::propagation::{Hop, TracePolicy, TrustBoundary};
pub use address::{Guarantee, Start, Subscription};
pub use handler::{HandlerError, Verdict};
pub(crate) use handler::{Panicked, TimedOut, describe_panic};
pub use native::Native;
pub use receipt::Receipt;
pub(crate) use received::Parts;
pub use received::Received;
pub(crate) use reply_mark::{is_marked_for_replies, temporary_template};
pub use tenure::Tenure;
pub(crate) use timestamp::Queued;
pub use timestamp::{Timestamp, TimestampSource};
pub use topic::Topic;

/// A message to publish: a payload, an optional key, headers, and the trace context to send with
/// it.
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
    /// `true` if the broker must not confirm the message and drop it.
    pub(crate) is_mandatory: bool,
    /// The parts of the original, if the message is a copy of a received one.
    pub(crate) copied: Option<Box<Copied>>,
}

/// The parts of a received message that count for its copies, as far as the target can hold them.
#[derive(Debug, Clone)]
pub(crate) struct Copied {
    /// The system that the original was received from.
    pub(crate) system: &'static str,
    pub(crate) id: Option<String>,
    pub(crate) native: Option<Native>,
}

impl Message {
    /// Creates a message with these bytes as payload; they are not copied.
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
            is_mandatory: false,
            copied: None,
        }
    }

    /// Creates a message without a payload, which is a tombstone (null value) on Kafka. Publishing
    /// it fails on brokers that do not support it; see
    /// [`Capabilities::tombstones`](crate::Capabilities).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// assert!(broker.capabilities().tombstones); // otherwise publishing fails with `Unsupported`
    /// broker.publish("customers", Message::tombstone().key("customer-7")).await?;
    ///
    /// let mut customers = broker.subscribe(Subscription::new("customers").group("cache")).await?;
    /// let delivery = customers.next().await.expect("open")?;
    /// assert!(delivery.message().is_tombstone());
    /// assert_eq!(delivery.message().payload(), ""); // no payload reads as an empty one
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    pub fn tombstone() -> Self {
        Self { payload: None, ..Self::new(Bytes::new()) }
    }

    /// Sets the key. Messages with the same key keep their order on brokers that order by key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{Message, Traced, TracedBroker, adapters::memory::Memory};
    ///
    /// let broker = Traced::new(Memory::new());
    /// broker.publish("orders", Message::new("shoes").key("customer-7")).await?;
    /// broker.publish("orders", Message::new("socks").key([0x00, 0xff])).await?; // any bytes
    ///
    /// let stored = broker.get_ref().messages("orders");
    /// assert_eq!(stored[0].key.as_deref(), Some(&b"customer-7"[..]));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(Bytes::copy_from_slice(key.as_ref()));
        self
    }

    /// Sets the sender's id of the message. JetStream stores one message of each id and topic, for
    /// two minutes unless told otherwise; the receipt of another is a
    /// [duplicate](Receipt::duplicate). On other brokers it only travels with the message.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// broker.publish("orders", Message::new("shoes").id("order-A-1")).await?;
    ///
    /// let mut orders = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// let delivery = orders.next().await.expect("open")?;
    /// assert_eq!(delivery.message().id(), Some("order-A-1"));
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds a header after the existing ones.
    ///
    /// ```
    /// use traced_broker::Message;
    ///
    /// let mut message = Message::new("shoes").header("tenant", "acme").header("tenant", "beta");
    /// assert_eq!(message.headers().get_all("tenant").count(), 2); // added, not replaced
    ///
    /// message.headers_mut().insert("tenant", "initech");
    /// assert_eq!(message.headers().get_str("tenant"), Some("initech"));
    /// ```
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Delays delivery until `time`: the broker keeps the message until then. A time in the past
    /// causes no delay.
    ///
    /// The delay survives the end of this program. Publishing fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on brokers that cannot delay
    /// messages; see [`Capabilities::delayed_publish`](crate::Capabilities).
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use traced_broker::adapters::memory::Memory;
    /// # use traced_broker::driver::{Confirmer, Destination, Driver, Identity};
    /// # use traced_broker::driver::{Outbound, Source};
    /// # use traced_broker::{
    /// #     Capabilities, ErrorKind, Message, Receipt, Result, Start, Subscription, Topic, Traced,
    /// #     TracedBroker,
    /// # };
    /// # #[derive(Debug)]
    /// # struct Kafka(Memory, Capabilities);
    /// # #[async_trait::async_trait]
    /// # impl Driver for Kafka {
    /// #     fn identity(&self) -> &Identity { self.0.identity() }
    /// #     fn capabilities(&self) -> &Capabilities { &self.1 }
    /// #     async fn declare(&self, to: &Topic) -> Result<Destination> {
    /// #         self.0.declare(to).await
    /// #     }
    /// #     fn publish(&self, to: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
    /// #         self.0.publish(to, message, confirmer);
    /// #     }
    /// #     async fn subscribe(&self, to: &Subscription) -> Result<Source> {
    /// #         self.0.subscribe(to).await
    /// #     }
    /// #     async fn reposition(&self, of: &Subscription, start: Start) -> Result<()> {
    /// #         self.0.reposition(of, start).await
    /// #     }
    /// #     async fn ping(&self) -> Result<()> { self.0.ping().await }
    /// #     async fn close(&self) -> Result<()> { self.0.close().await }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// # let memory = Traced::new(Memory::new());
    /// # let kafka = Traced::new(Kafka(Memory::new(), Capabilities::new()));
    /// let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    /// let reminder = Message::new("pay").deliver_at(tomorrow);
    /// memory.publish("reminders", reminder.clone()).await?;
    ///
    /// let error = kafka.publish("reminders", reminder).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn deliver_at(mut self, time: SystemTime) -> Self {
        self.deliver_at = Some(time);
        self
    }

    /// Delays delivery by `delay` from now on; see [`deliver_at`](Self::deliver_at).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::{Duration, SystemTime};
    /// use futures_util::StreamExt;
    /// use traced_broker::{Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mailers = Subscription::new("reminders").group("mailers");
    /// let mut reminders = broker.subscribe(mailers).await?;
    /// let due = SystemTime::now() + Duration::from_millis(20);
    /// broker.publish("reminders", Message::new("pay").delay(Duration::from_millis(20))).await?;
    ///
    /// reminders.next().await.expect("open")?.ack().await?;
    /// assert!(SystemTime::now() >= due);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        // Times beyond the clock's range are replaced by a time far in the future.
        let time = SystemTime::now().checked_add(delay);
        self.deliver_at(time.unwrap_or(SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into())))
    }

    /// Sets the trace context of the message, in place of the context that is current when
    /// `publish` is called.
    ///
    /// Needed if the current context is not the sender's: in spawned tasks, in batches, in
    /// callbacks.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use opentelemetry::Context;
    /// use traced_broker::{Message, Traced, TracedBroker, adapters::memory::Memory, w3c};
    ///
    /// let broker = Traced::new(Memory::new());
    /// let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let request = w3c::decode(Some(parent), None, None, &Context::new()).context;
    ///
    /// let publishing = tokio::spawn({
    ///     let (broker, message) = (broker.clone(), Message::new("shoes").context(request));
    ///     async move { broker.publish("orders", message).await }
    /// });
    /// publishing.await.expect("no panic")?;
    /// let stored = broker.get_ref().messages("orders");
    /// let sent = stored[0].headers.get_str("traceparent").expect("a context");
    /// assert!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// Requests a policy for the relation of the process span to the message's context. The
    /// subscription may decide otherwise; see [`propagation`](crate::context::propagation). The
    /// request travels in the header [`TRACE_POLICY`](header::TRACE_POLICY).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::names::header;
    /// use traced_broker::{Message, TracePolicy, Traced, TracedBroker, adapters::memory::Memory};
    ///
    /// let broker = Traced::new(Memory::new());
    /// let nightly = Message::new("rebuild the index").trace_policy(TracePolicy::Link);
    /// broker.publish("jobs", nightly).await?;
    /// let stored = broker.get_ref().messages("jobs");
    /// assert_eq!(stored[0].headers.get_str(header::TRACE_POLICY), Some("link"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trace_policy(mut self, policy: TracePolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the kind of hop, if the library cannot know it: for example `Scheduled` for a message
    /// that a schedule publishes. It travels in the header [`TRACE_HOP`](header::TRACE_HOP).
    /// [Delayed](Self::deliver_at) messages are marked automatically.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::Duration;
    /// use traced_broker::names::header;
    /// use traced_broker::{Hop, Message, Traced, TracedBroker, adapters::memory::Memory};
    ///
    /// let broker = Traced::new(Memory::new());
    /// broker.publish("reminders", Message::new("pay").hop(Hop::Scheduled)).await?;
    /// broker.publish("reminders", Message::new("pay now")).await?;
    /// let stored = broker.get_ref().messages("reminders");
    /// assert_eq!(stored[0].headers.get_str(header::TRACE_HOP), Some("scheduled"));
    /// assert_eq!(stored[1].headers.get_str(header::TRACE_HOP), None); // a direct hop
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn hop(mut self, hop: Hop) -> Self {
        self.hop = Some(hop);
        self
    }

    /// Restricts the context that travels with the message to the part that the boundary allows;
    /// for receivers that are not trusted.
    /// [`Traced::with_trust_boundary`](crate::Traced::with_trust_boundary) does the same for every
    /// message.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use opentelemetry::{Context, KeyValue, baggage::BaggageExt};
    /// use traced_broker::{Message, Traced, TracedBroker, TrustBoundary, adapters::memory::Memory};
    ///
    /// let broker = Traced::new(Memory::new());
    /// let baggage = vec![KeyValue::new("tenant", "acme"), KeyValue::new("user", "amelie")];
    /// let message = Message::new("shipped")
    ///     .context(Context::new().with_baggage(baggage))
    ///     .trust_boundary(TrustBoundary::new().allow_baggage("tenant"));
    /// broker.publish("partners", message).await?;
    /// let stored = broker.get_ref().messages("partners");
    /// assert_eq!(stored[0].headers.get_str("baggage"), Some("tenant=acme"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trust_boundary(mut self, boundary: TrustBoundary) -> Self {
        self.boundary = Some(Arc::new(boundary));
        self
    }

    /// Returns the kind of hop of the message.
    pub(crate) fn hop_kind(&self) -> Hop {
        let is_delayed = || self.deliver_at.is_some_and(|time| time > SystemTime::now());
        self.hop.unwrap_or_else(|| if is_delayed() { Hop::Delayed } else { Hop::Direct })
    }

    /// Writes the sender's requests for the hop into the headers. Requests of an earlier sender do
    /// not apply to a new message.
    pub(crate) fn mark_new(&mut self) {
        if !self.headers.is_empty() {
            self.headers.remove(header::TRACE_HOP);
            self.headers.remove(header::TRACE_POLICY);
        }
        let hop = self.hop_kind();
        if hop != Hop::Direct {
            self.headers.append(header::TRACE_HOP, hop.as_str());
        }
        if let Some(policy) = self.policy {
            self.headers.append(header::TRACE_POLICY, policy.as_str());
        }
    }

    /// Does the same as [`mark_new`](Self::mark_new) for a message that is passed on: an earlier
    /// sender's requests remain unless this message states others.
    pub(crate) fn mark_passed_on(&mut self) {
        if let Some(hop) = self.hop {
            self.headers.insert(header::TRACE_HOP, hop.as_str());
        }
        if let Some(policy) = self.policy {
            self.headers.insert(header::TRACE_POLICY, policy.as_str());
        }
    }

    /// Returns the payload; empty for a tombstone.
    pub fn payload(&self) -> &[u8] {
        self.payload.as_deref().unwrap_or_default()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the headers for modification.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }
}

/// Copies a received message to publish or forward it: payload, key, id and headers are kept, and
/// on a broker of the same system the native types and properties, too. Headers that the target
/// cannot carry are renamed or encoded; the [bridge](crate::bridge) says how.
///
/// On JetStream the id travels in the header
/// [`MESSAGE_ID`](crate::names::header::MESSAGE_ID), because the server would drop the copy as a
/// duplicate; [`Received::id`] returns it all the same.
///
/// Behind a [trust boundary](Subscription::trust_boundary), or if the subscription
/// [ignores](TracePolicy::Ignore) the context, the copy has no headers of a trace: it belongs to
/// the context in which it is published, such as that of the handler, which holds what the boundary
/// admits.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::{Message, Subscription, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// let shoes = Message::new("shoes").key("customer-7").header("tenant", "acme");
/// broker.publish("orders", shoes).await?;
/// let mut orders = broker.subscribe(Subscription::new("orders").group("mirror")).await?;
/// let delivery = orders.next().await.expect("open")?;
///
/// let copy = Message::from(delivery.message()).header("mirrored", "true");
/// assert_eq!(copy.headers().get_str("tenant"), Some("acme"));
/// broker.forward("orders.copy", copy).await?; // in the trace of the original
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
impl From<&Received> for Message {
    fn from(received: &Received) -> Self {
        let parts = &received.parts;
        let mut headers = parts.headers.clone();
        parts.origin.withhold(&mut headers);
        Self {
            payload: parts.payload.clone(),
            key: parts.key.clone(),
            headers,
            copied: Some(Box::new(Copied { system: parts.system, id: parts.id.clone(), native: parts.native.clone() })),
            ..Self::new(Bytes::new())
        }
    }
}
