//! Copies between any two brokers that keep the trace.
//!
//! A [`Bridge`] consumes a subscription of one broker and forwards each message to a topic of
//! another. The trace stays whole. The message keeps its creation context, and the bridge's process
//! span, with the attributes of the source, is in the message's trace. Below it, a `send` span of
//! kind CLIENT, with the attributes of the target, links the creation context. The consumer at the
//! far end gets the context of the original sender, and the trace shows the time in both queues.
//! The copy is marked as [bridged](crate::context::propagation::Hop::Bridge); the copy of a message
//! that was delayed, scheduled or replayed keeps that mark, by which it is linked.
//!
//! If the subscription has a [trust boundary](Subscription::trust_boundary) or ignores contexts,
//! the copy does not carry the sender's context: it is a new message, sent in the trace of the
//! bridge's process span. The same applies if the target cannot read the context, because it came
//! in a [dialect](crate::context::dialect) or from another propagator; then that trace is the
//! sender's.
//!
//! # What crosses
//! Payload, key, id, content type and headers. Trace headers are read and written anew, so that
//! only valid ones cross.
//!
//! - **Headers of one hop** stay behind, because they describe the source or give orders to a
//!   server: names that begin with `nats-`, `x-first-death-` or `x-last-death-`, and `x-death`,
//!   `x-delivery-count` and `timestamp_in_ms`.
//! - **Names that a broker's mapping uses** ([`RESERVED`]) get the prefix
//!   [`header::BRIDGE_RENAMED`](crate::names::header::BRIDGE_RENAMED). For a target with [text
//!   headers](crate::driver::capability::HeaderValues), colons and characters other than visible
//!   ASCII become `-`; for other targets, NUL does. A name that is empty or longer than 255 bytes
//!   does not cross.
//! - **Values** cross unchanged, except to a target with text headers: surrounding white space is
//!   removed, and a value that is not text, or contains control characters, crosses percent-encoded
//!   under its name with the prefix [`header::ENCODED`](crate::names::header::ENCODED).
//! - **Ids** are the sender's; an id that the source itself assigned (a Redis entry's) does not
//!   cross. A target that drops duplicates by id also drops repetitions of the bridge. From NATS to
//!   NATS, the id becomes the header `message-id`: source and target may be subjects of one stream,
//!   which would confirm the copy and not store it. The copy's [id](Received::id) is still the same.
//! - **Native types and properties** cross between brokers of one system: RabbitMQ's typed tables,
//!   numbers, flags and nulls arrive as they were sent. Its properties are headers elsewhere, such
//!   as [`header::AMQP_TYPE`](crate::names::header::AMQP_TYPE), and properties again on RabbitMQ.
//! - **Messages without a payload** arrive with an empty payload and the header
//!   [`header::BRIDGE_TOMBSTONE`](crate::names::header::BRIDGE_TOMBSTONE) if the target has no such
//!   messages. A bridge to a target that has them restores them.
//!
//! Headers that are renamed or dropped are counted in [`Progress`], except those of one hop.
//! [`Bridge::prepare`] changes a message before all this. Use it to unpack the envelopes of other
//! systems, such as a Redis Streams entry whose data is in a field other than `payload`, which is a
//! header here.
//!
//! # Delivery
//! A message is acknowledged at the source when the target has confirmed the copy. A copy that no
//! queue takes is refused by the target, also on a RabbitMQ that would drop other messages. After a
//! crash, or a publish of unknown outcome, there may be two copies, but never none (except on a
//! target that [confirms nothing](crate::driver::capability::Confirm::Never)). Up to
//! [`in_flight`](Bridge::in_flight) messages are in flight at a time; copies start in the order in
//! which messages arrive. While the target is away, the copies in flight are retried as the
//! [`Retry`] policy says, and no more messages are taken, so they accumulate only at the source. If
//! order must survive failures too, use [`ordered_by_key`](Bridge::ordered_by_key), or one message
//! at a time.
//!
//! A message that the target can never take (for example, because it is too large) goes to the
//! subscription's [dead-letter topic](Bridge::dead_letter) at the source, and so does a message
//! that the policy gives up. Without such a topic it is discarded and
//! [counted](crate::runtime::consume::Report::rejected). A message that has crossed [`MAX_HOPS`]
//! bridges is going in circles and is given up as well.
//!
//! A bridge with a group continues where it ended: its position is that of the group. The
//! processing time at the source is the duration of the copy. If a target is away for longer than
//! the source waits for settlements (half an hour on RabbitMQ by default), messages are
//! redelivered.

mod copier;
mod progress;

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select;

use crate::broker::TracedBroker;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Message, Received, Subscription, Topic};
use crate::runtime::consume::{Consume, Report, Retry, Settings};

use copier::Copier;
use progress::Watch;

pub use crate::broker::copies::RESERVED;
pub use progress::Progress;

/// The default of [`Bridge::in_flight`].
pub const DEFAULT_IN_FLIGHT: usize = 64;

/// The default of [`Bridge::progress_every`].
pub const DEFAULT_PROGRESS: Duration = Duration::from_secs(10);

/// Maximum number of bridges that a message may cross; after that, it is going in circles.
pub const MAX_HOPS: u32 = 16;

/// The builder of a bridge; it does nothing until [`run`](Self::run) or
/// [`run_until`](Self::run_until).
///
/// Setters never fail; running checks all settings.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{Message, Subscription, TracedBroker, TracedBrokerExt, connect};
///
/// let (here, there) = (connect("memory://here").await?, connect("memory://there").await?);
/// here.publish("orders", Message::new("one pair of shoes")).await?;
///
/// let orders = Subscription::new("orders").group("bridge").dead_letter("orders.stranded");
/// // A service waits for traced_broker::shutdown_signal() instead.
/// let shutdown = tokio::time::sleep(Duration::from_millis(50));
/// let bridged = here.bridge(orders, &there, "orders").run_until(shutdown).await?;
/// assert_eq!(bridged.progress.copied, 1);
/// # Ok(()) }
/// ```
#[must_use = "a bridge does nothing until it is run"]
pub struct Bridge<'a, A: ?Sized, B: ?Sized> {
    from: &'a A,
    to: &'a B,
    subscription: Subscription,
    topic: String,
    options: Options<'a>,
}

struct Options<'a> {
    settings: Settings,
    most: u64,
    prepare: Option<Box<Prepare<'a>>>,
    progress: Option<Box<dyn Fn(Progress) + Send + Sync + 'a>>,
    every: Duration,
}

type Prepare<'a> = dyn Fn(Message, &Received) -> Result<Message, HandlerError> + Send + Sync + 'a;

/// The result of a bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Bridged {
    /// The copies that crossed.
    pub progress: Progress,
    /// The outcomes of the messages at the source.
    pub consumed: Report,
}

impl<'a, A: TracedBroker + ?Sized, B: TracedBroker + ?Sized> Bridge<'a, A, B> {
    /// Creates a bridge from a subscription of one broker to a topic of another, or of the same
    /// one.
    pub fn new(from: &'a A, subscription: Subscription, to: &'a B, topic: impl Into<String>) -> Self {
        let options = Options {
            settings: Settings { size: DEFAULT_IN_FLIGHT, ..Settings::default() },
            most: u64::MAX,
            prepare: None,
            progress: None,
            every: DEFAULT_PROGRESS,
        };
        Self { from, to, subscription, topic: topic.into(), options }
    }

    /// Sets the maximum number of messages in flight, 1 to 65,535. Default 64.
    pub fn in_flight(mut self, messages: usize) -> Self {
        self.options.settings.size = messages;
        self
    }

    /// Ends the bridge once this number of copies, at least 1, is confirmed, and lets no more
    /// cross. Default: no limit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{ErrorKind, HandlerError, Message, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let (here, there) = (connect("memory://here").await?, connect("memory://there").await?);
    /// # let orders = Subscription::new("orders").group("bridge").dead_letter("orders.stranded");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// here.publish_batch("orders", vec![Message::new("1"), Message::new("2")]).await;
    /// let bridged = here.bridge(orders, &there, "orders").at_most(1).run().await?;
    /// assert_eq!(bridged.progress.copied, 1);
    /// # Ok(()) }
    /// ```
    pub fn at_most(mut self, copies: u64) -> Self {
        self.options.most = copies.max(1);
        self
    }

    /// Copies messages of one key one after the other, so that they keep their order through
    /// failures; other keys proceed meanwhile.
    pub fn ordered_by_key(mut self) -> Self {
        self.options.settings.ordered = true;
        self
    }

    /// Sets the policy for copies that fail. Default: [`Retry::default`], which retries forever.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.settings.retry = retry;
        self
    }

    /// Sets the topic at the source for messages that cannot cross; the same as
    /// [`Subscription::dead_letter`].
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.dead_letter(topic);
        self
    }

    /// Sets the maximum time for the copies in flight to finish after the bridge is told to stop.
    /// Default: that of [consumers](crate::runtime::consume::DEFAULT_DRAIN_TIME).
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.options.settings.drain = time;
        self
    }

    /// Changes each copy before it is converted to a form that the target can carry. An error
    /// rejects or retries the message according to its verdict and the policy; a panic retries it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{ErrorKind, HandlerError, Message, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let (here, there) = (connect("memory://here").await?, connect("memory://there").await?);
    /// # let orders = Subscription::new("orders").group("bridge").dead_letter("orders.stranded");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// here.publish("orders", Message::new("one pair of shoes")).await?;
    /// here.publish("orders", Message::new("")).await?;
    ///
    /// let bridge = here.bridge(orders, &there, "orders").prepare(|copy, original| {
    ///     if original.payload().is_empty() {
    ///         return Err(HandlerError::reject("an empty order"));
    ///     }
    ///     Ok(copy.header("region", "eu"))
    /// });
    /// let bridged = bridge.run_until(shutdown).await?;
    /// assert_eq!((bridged.progress.copied, bridged.consumed.rejected), (1, 1));
    /// # Ok(()) }
    /// ```
    pub fn prepare(
        mut self,
        prepare: impl Fn(Message, &Received) -> Result<Message, HandlerError> + Send + Sync + 'a,
    ) -> Self {
        self.options.prepare = Some(Box::new(prepare));
        self
    }

    /// Calls `report` with the progress every 10 s, and once at the end. It must not block.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{ErrorKind, HandlerError, Message, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let (here, there) = (connect("memory://here").await?, connect("memory://there").await?);
    /// # let orders = Subscription::new("orders").group("bridge").dead_letter("orders.stranded");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// here.publish("orders", Message::new("one pair of shoes")).await?;
    /// let bridge = here.bridge(orders, &there, "orders");
    /// // Prints "1 copied in 0.2s (5/s)" at the end.
    /// bridge.on_progress(|progress| println!("{progress}")).run_until(shutdown).await?;
    /// # Ok(()) }
    /// ```
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'a) -> Self {
        self.options.progress = Some(Box::new(report));
        self
    }

    /// Sets the interval of the reports. Default 10 s.
    pub fn progress_every(mut self, period: Duration) -> Self {
        self.options.every = period;
        self
    }

    /// Copies until one of the brokers is closed.
    ///
    /// # Errors
    /// The errors of [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<Bridged> {
        self.run_until(pending::<()>()).await
    }

    /// Copies until `shutdown` ends or one of the brokers is closed, then lets the copies in flight
    /// arrive.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{ErrorKind, HandlerError, Message, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let (here, there) = (connect("memory://here").await?, connect("memory://there").await?);
    /// # let orders = Subscription::new("orders").group("bridge").dead_letter("orders.stranded");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// here.publish("orders", Message::new("one pair of shoes")).await?;
    /// let bridged = here.bridge(orders.clone(), &there, "orders.eu").run_until(shutdown).await?;
    /// assert_eq!(bridged.consumed.handled, 1);
    ///
    /// // A bridge from a topic to itself would copy its own copies forever.
    /// let error = here.bridge(orders, &here, "orders").run().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a topic that is not valid, or is the subscription's own at
    /// the same broker, or an error of setting up the
    /// [consumer](crate::runtime::consume::Consume::subscribed). A target that cannot be reached is
    /// not an error: the bridge waits for it.
    pub async fn run_until(self, shutdown: impl Future) -> Result<Bridged> {
        let Self { from, to, subscription, topic, options } = self;
        let topic = checked(from, to, &subscription, &topic)?;
        let Options { settings, most, prepare, progress, every } = options;
        // The copier applies the policy; messages that it hands back are for the next consumer.
        let at_once = Retry::endless().first_delay(Duration::ZERO).longest_delay(Duration::ZERO);
        let copier = Arc::new(Copier::new(from.system(), to, topic, settings.retry.clone(), prepare, most));
        let copying = Arc::clone(&copier);
        let consumer = Consume::new(from, subscription, move |received| Arc::clone(&copying).copy(received))
            .with_settings(Settings { retry: at_once, ..settings })
            .subscribed()
            .await?;
        let stopping = async {
            // Dropped when the consumer begins to drain, for any reason.
            let _stop = copier.stop_on_drop();
            let told = pin!(shutdown);
            let finished = pin!(copier.finished());
            select(told.map(drop), finished).await;
        };
        let watch = Watch { counts: &copier.counts, every, report: progress.as_deref() };
        let consumed = watch.during(consumer.run_until(stopping)).await?;
        Ok(Bridged { progress: copier.counts.progress(), consumed })
    }
}

/// Returns the target, or an error if the copies would be copied again.
fn checked<A: TracedBroker + ?Sized, B: TracedBroker + ?Sized>(
    from: &A,
    to: &B,
    subscription: &Subscription,
    topic: &str,
) -> Result<Topic> {
    let topic = Topic::new(topic).map_err(|error| error.with_operation("bridge"))?;
    let same_broker = std::ptr::addr_eq(std::ptr::from_ref(from), std::ptr::from_ref(to));
    if same_broker && subscription.topic() == topic.as_str() {
        let message = "a bridge from a topic to itself would copy its own copies forever";
        let error = Error::new(ErrorKind::InvalidConfig, message).with_operation("bridge");
        return Err(error.with_context("topic", topic));
    }
    Ok(topic)
}

impl<A: ?Sized, B: ?Sized> fmt::Debug for Bridge<'_, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("subscription", &self.subscription)
            .field("topic", &self.topic)
            .field("in_flight", &self.options.settings.size)
            .field("ordered", &self.options.settings.ordered)
            .field("retry", &self.options.settings.retry)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Bridged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; at the source: {}", self.progress, self.consumed)
    }
}
