//! The source of messages to consume: [`Subscription`].

use std::sync::Arc;
use std::time::SystemTime;

use super::topic::validate_name;
use crate::context::dialect::Dialect;
use crate::context::propagation::{Hop, Reception, TracePolicy, TrustBoundary};
use crate::error::{Error, ErrorKind, Result};

/// The start position of a group or reader that has no position yet.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::{Message, Start, Subscription, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// broker.publish("orders", Message::new("shoes")).await?;
/// let socks = broker.publish("orders", Message::new("socks")).await?;
///
/// // Not every broker can begin at an offset: others fail with `Unsupported`.
/// assert!(broker.capabilities().start_at_offset);
/// let start = Start::Offset(socks.offset.expect("an offset").unsigned_abs());
/// let mut reader = broker.subscribe(Subscription::new("orders").start(start)).await?;
/// let delivery = reader.next().await.expect("open")?;
/// assert_eq!(delivery.message().payload(), "socks");
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Start {
    /// The oldest message that the broker still has.
    Earliest,
    /// The first message published after the subscription began.
    Latest,
    /// The first message stored at this time or later, by the clock that
    /// [`Capabilities::timestamp`](crate::Capabilities) names.
    Time(SystemTime),
    /// The message with this [offset or sequence number](crate::Received::offset), in each
    /// partition if there are several.
    Offset(u64),
}

/// The delivery guarantee for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Guarantee {
    /// A message is redelivered until it is acknowledged or rejected; it may be delivered twice.
    #[default]
    AtLeastOnce,
    /// A message counts as handled as soon as it is handed out; retry and reject are unsupported.
    AtMostOnce,
}

/// The source of messages to consume, and its options. Setters never fail; subscribing checks all
/// values.
///
/// With a [group](Self::group), its members share the messages: each message goes to one member. A
/// new group starts at the earliest message. Without a group, the subscription is an independent,
/// ephemeral reader that starts at the latest message.
///
/// ```
/// use traced_broker::Subscription;
///
/// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
/// assert_eq!(workers.group_name(), Some("workers"));
/// assert!(workers.validate().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Subscription {
    topic: Arc<str>,
    group: Option<Arc<str>>,
    start: Option<Start>,
    guarantee: Guarantee,
    dead_letter: Option<Arc<str>>,
    /// `None` if it was left to the library.
    prefetch: Option<usize>,
    waiting: usize,
    pub(crate) reception: Reception,
}

impl Subscription {
    /// The default of [`prefetch`](Self::prefetch).
    pub const DEFAULT_PREFETCH: usize = 256;

    /// The maximum of [`prefetch`](Self::prefetch), which fits AMQP's 16-bit prefetch count.
    pub const MAX_PREFETCH: usize = 65_535;

    /// The default of [`waiting`](Self::waiting).
    pub const DEFAULT_WAITING: usize = 16_384;

    /// The maximum of [`waiting`](Self::waiting).
    pub const MAX_WAITING: usize = 1_000_000;

    /// The maximum size, in bytes, of the messages that wait beyond their share of the prefetch.
    pub const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

    /// Creates a subscription to `topic` without a group.
    pub fn new(topic: impl AsRef<str>) -> Self {
        Self {
            topic: topic.as_ref().into(),
            group: None,
            start: None,
            guarantee: Guarantee::default(),
            dead_letter: None,
            prefetch: None,
            waiting: Self::DEFAULT_WAITING,
            reception: Reception::default(),
        }
    }

    /// Joins the consumer group of that name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// broker.publish("orders", Message::new("shoes")).await?; // before the group exists
    /// let mut workers = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// workers.next().await.expect("open")?.ack().await?;
    ///
    /// let error = Subscription::new("orders").group("all workers").validate().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig); // a space in the name
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn group(mut self, group: impl AsRef<str>) -> Self {
        self.group = Some(group.as_ref().into());
        self
    }

    /// Sets the start position, used if there is no position yet. Default: earliest with a group,
    /// latest without.
    ///
    /// ```
    /// use traced_broker::{Start, Subscription};
    ///
    /// let reader = Subscription::new("orders");
    /// assert_eq!(reader.start_position(), Start::Latest);
    /// assert_eq!(reader.clone().group("workers").start_position(), Start::Earliest);
    /// assert_eq!(reader.start(Start::Earliest).start_position(), Start::Earliest);
    /// ```
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }

    /// Disables redelivery: a message counts as handled as soon as it is handed out. The only mode
    /// of core NATS.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::Duration;
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut ticks = broker.subscribe(Subscription::new("ticks").at_most_once()).await?;
    /// broker.publish("ticks", Message::new("1")).await?;
    ///
    /// let delivery = ticks.next().await.expect("open")?;
    /// let error = delivery.retry(Duration::ZERO).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.guarantee = Guarantee::AtMostOnce;
        self
    }

    /// Sets the topic to which rejected messages are copied, with their headers and trace, before
    /// they are settled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Subscription, TracedBroker, connect, names::header};
    ///
    /// let broker = connect("memory://").await?;
    /// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// let mut deliveries = broker.subscribe(workers).await?;
    /// broker.publish("orders", Message::new("shoes")).await?;
    /// deliveries.next().await.expect("open")?.reject("no address").await?;
    ///
    /// let mut dead = broker.subscribe(Subscription::new("orders.dead").group("support")).await?;
    /// let letter = dead.next().await.expect("open")?;
    /// let reason = letter.message().headers().get_str(header::DEAD_LETTER_REASON);
    /// assert_eq!(reason, Some("no address"));
    /// letter.ack().await?;
    ///
    /// let circular = Subscription::new("orders").dead_letter("orders");
    /// assert_eq!(circular.validate().unwrap_err().kind(), ErrorKind::InvalidConfig);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.dead_letter = Some(topic.as_ref().into());
        self
    }

    /// Sets the maximum number of unsettled deliveries, 1 to 65535, except those that
    /// [wait](Self::waiting) beyond half of it. Together they bound every buffer of the
    /// subscription.
    ///
    /// What one consumer has fetched ahead, the others of its group cannot work on. Therefore the
    /// default of [`consume`](crate::TracedBrokerExt::consume) and
    /// [`consume_batch`](crate::TracedBrokerExt::consume_batch) follows from their concurrency:
    /// twice that number, and at least 16. It is 256 where a consumer does not take from others: on
    /// a broker that assigns partitions, with order by key, and for
    /// [`subscribe`](crate::TracedBroker::subscribe).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{ErrorKind, Subscription, TracedBroker, connect};
    ///
    /// let workers = Subscription::new("orders").group("workers");
    /// assert_eq!(workers.prefetch_limit(), Subscription::DEFAULT_PREFETCH);
    /// assert!(workers.clone().prefetch(Subscription::MAX_PREFETCH).validate().is_ok());
    ///
    /// let broker = connect("memory://").await?;
    /// for unsettled in [0, Subscription::MAX_PREFETCH + 1] {
    ///     let error = broker.subscribe(workers.clone().prefetch(unsettled)).await.unwrap_err();
    ///     assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn prefetch(mut self, unsettled: usize) -> Self {
        self.prefetch = Some(unsettled);
        self
    }

    /// Sets the maximum number of messages that may wait in this process beyond half of the
    /// [prefetch](Self::prefetch), 0 to a million. Default: 16,384.
    ///
    /// A message waits here for its next attempt, if the broker cannot bring it back by itself or
    /// its key is kept in order, or behind an earlier message of its key. It stays unsettled at the
    /// broker. Those that wait keep half of the prefetch at most; beyond it, they are set aside, so
    /// that other messages pass them. Together they may have [64 MiB](Self::MAX_WAITING_BYTES). At
    /// the limit, the consumer takes no others until one of them is done, and warns before.
    ///
    /// ```
    /// use traced_broker::{ErrorKind, Subscription};
    ///
    /// let workers = Subscription::new("orders").group("workers");
    /// assert_eq!(workers.waiting_limit(), Subscription::DEFAULT_WAITING);
    /// let too_many = workers.waiting(Subscription::MAX_WAITING + 1);
    /// assert_eq!(too_many.validate().unwrap_err().kind(), ErrorKind::InvalidConfig);
    /// ```
    #[must_use]
    pub fn waiting(mut self, messages: usize) -> Self {
        self.waiting = messages;
        self
    }

    /// Sets the policy for the relation of process spans to the context that messages carry, for
    /// every kind of hop and regardless of the sender's request. Default: [by the
    /// hop](crate::context::propagation).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::cell::Cell;
    /// use futures_util::StreamExt;
    /// use opentelemetry::Context;
    /// use traced_broker::{Message, Subscription, TracePolicy, TracedBroker};
    /// use traced_broker::{connect, trace_ids, w3c};
    ///
    /// let broker = connect("memory://").await?;
    /// let audit = Subscription::new("orders").group("audit").trace_policy(TracePolicy::Ignore);
    /// let mut deliveries = broker.subscribe(audit).await?;
    ///
    /// let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let sender = w3c::decode(Some(parent), None, None, &Context::new()).context;
    /// broker.publish("orders", Message::new("shoes").context(sender)).await?;
    ///
    /// let ids = Cell::new(trace_ids());
    /// let delivery = deliveries.next().await.expect("open")?;
    /// delivery.process(|_| async { Ok(ids.set(trace_ids())) }).await?;
    /// assert_eq!(ids.get(), None); // not in the sender's trace
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trace_policy(mut self, policy: TracePolicy) -> Self {
        self.reception.policy = Some(policy);
        self
    }

    /// Sets the policy for the relation of process spans to the context of messages on this kind of
    /// hop, unless the sender requests another.
    ///
    /// ```
    /// use traced_broker::{Hop, Subscription, TracePolicy};
    ///
    /// // By default, work that a schedule requests is linked to the requester's trace.
    /// assert_eq!(Hop::Scheduled.default_policy(), TracePolicy::Link);
    ///
    /// // Here it continues that trace. A scheduled message may still ask for `Link` or `Ignore`.
    /// let mailers = Subscription::new("reminders")
    ///     .group("mailers")
    ///     .trace_policy_for(Hop::Scheduled, TracePolicy::Parent);
    /// assert_eq!(mailers.trace_policy_for_all(), None); // other hops keep their defaults
    /// ```
    #[must_use]
    pub fn trace_policy_for(mut self, hop: Hop, policy: TracePolicy) -> Self {
        self.reception.by_hop.push((hop, policy));
        self
    }

    /// Treats the senders as untrusted; see [`TrustBoundary`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use opentelemetry::{Context, trace::TraceContextExt};
    /// use traced_broker::{Message, Subscription, TracedBroker, TrustBoundary, connect, w3c};
    ///
    /// let broker = connect("memory://").await?;
    /// let intake = Subscription::new("orders").trust_boundary(TrustBoundary::new());
    /// let mut deliveries = broker.subscribe(intake).await?;
    ///
    /// let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"; // sampled
    /// let partner = w3c::decode(Some(parent), Some(b"vendor=1"), None, &Context::new()).context;
    /// broker.publish("orders", Message::new("shoes").context(partner)).await?;
    ///
    /// let delivery = deliveries.next().await.expect("open")?;
    /// let admitted = delivery.creation_context().span().span_context().clone();
    /// assert!(admitted.is_valid() && !admitted.is_sampled());
    /// assert_eq!(admitted.trace_state().header(), "");
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trust_boundary(mut self, boundary: TrustBoundary) -> Self {
        self.reception.boundary = Some(Arc::new(boundary));
        self
    }

    /// Adds [dialects](crate::context::dialect) of other systems, which are tried in this order if
    /// the usual headers contain no valid context.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use opentelemetry::trace::TraceContextExt;
    /// use traced_broker::{Dialect, Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let workers = Subscription::new("orders").group("workers").dialects([Dialect::B3]);
    /// let mut deliveries = broker.subscribe(workers).await?;
    ///
    /// // As a client of Zipkin publishes it:
    /// let b3 = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1";
    /// broker.publish("orders", Message::new("shoes").header("b3", b3)).await?;
    ///
    /// let delivery = deliveries.next().await.expect("open")?;
    /// assert!(delivery.creation_context().has_active_span());
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn dialects(mut self, dialects: impl IntoIterator<Item = Dialect>) -> Self {
        self.reception.dialects.extend(dialects);
        self
    }

    /// Marks messages that were stored before the subscription began as a [replay](Hop::Replay).
    ///
    /// Set automatically for readers without a group that start anywhere except at the latest
    /// message, and for members of a group that was [moved](crate::TracedBroker::reposition) by the
    /// same broker handle.
    ///
    /// ```
    /// use traced_broker::{Start, Subscription};
    ///
    /// let rebuild = Subscription::new("orders").group("rebuild-2");
    /// assert!(!rebuild.is_replay()); // the group may simply be new
    /// assert!(rebuild.replay().is_replay());
    /// assert!(Subscription::new("orders").start(Start::Earliest).is_replay()); // a reader
    /// ```
    #[must_use]
    pub fn replay(mut self) -> Self {
        self.reception.replay = true;
        self
    }

    /// Returns the name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the name of the group, if any.
    pub fn group_name(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Returns the start position, with defaults applied.
    pub fn start_position(&self) -> Start {
        self.start.unwrap_or(if self.group.is_some() { Start::Earliest } else { Start::Latest })
    }

    /// Returns the delivery guarantee.
    pub fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    /// Returns the dead-letter topic, if any.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        self.dead_letter.as_deref()
    }

    /// Returns the maximum number of unsettled deliveries.
    pub fn prefetch_limit(&self) -> usize {
        self.prefetch.unwrap_or(Self::DEFAULT_PREFETCH)
    }

    /// Returns the maximum number of messages that wait beyond half of the prefetch.
    pub fn waiting_limit(&self) -> usize {
        self.waiting
    }

    /// Returns the prefetch that was set, if one was.
    pub(crate) fn chosen_prefetch(&self) -> Option<usize> {
        self.prefetch
    }

    /// Returns the trace policy for every hop, if one was set.
    pub fn trace_policy_for_all(&self) -> Option<TracePolicy> {
        self.reception.policy
    }

    /// Returns `true` if messages that were stored before the subscription began are marked as a
    /// [replay](Hop::Replay).
    pub fn is_replay(&self) -> bool {
        self.reception.replay || self.group.is_none() && self.start.is_some_and(|start| start != Start::Latest)
    }

    /// Checks names and bounds; subscribing does this first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if a name is not valid, the dead-letter topic is the topic
    /// itself, the prefetch is 0 or above 65535, or more than a million messages may wait.
    pub fn validate(&self) -> Result<()> {
        validate_name("topic", &self.topic)?;
        self.group.as_deref().map_or(Ok(()), |group| validate_name("group", group))?;
        self.dead_letter.as_deref().map_or(Ok(()), |topic| validate_name("dead-letter topic", topic))?;
        if self.dead_letter.as_deref() == Some(self.topic()) {
            let message = "the dead-letter topic is the topic itself: rejected messages would be redelivered forever";
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_context("topic", &self.topic));
        }
        let prefetch = self.prefetch_limit();
        if !(1..=Self::MAX_PREFETCH).contains(&prefetch) {
            return Err(Error::new(ErrorKind::InvalidConfig, "the prefetch is outside 1 to 65535")
                .with_context("prefetch", prefetch));
        }
        if self.waiting > Self::MAX_WAITING {
            return Err(Error::new(ErrorKind::InvalidConfig, "more than a million messages may wait")
                .with_context("waiting", self.waiting));
        }
        Ok(())
    }
}
