//! Copies between any two brokers that keep one trace.
//!
//! A [`Bridge`] consumes a subscription of one broker and forwards each message to a topic of another. A trace crosses it whole: the
//! message's creation context is kept, the bridge's process span (with the attributes of the source) is in the message's trace, and under it a
//! `send` span of kind CLIENT (with those of the target) that links the creation context. The consumer at the far end finds the
//! context of whoever made the message, and both brokers' waiting times are in the picture. The copy is marked as
//! [bridged](crate::propagation::Hop::Bridge); one of a message that was delayed, scheduled or replayed keeps that mark, by which it is linked.
//!
//! Where the subscription has a [trust boundary](Subscription::trust_boundary) or ignores contexts, the copy does not carry the sender's: it is
//! a new message, sent in the trace of the bridge's process span. So is one whose context the target cannot read, because it came in
//! a [dialect](crate::dialect) or by another propagator; then that trace is the sender's.
//!
//! # What crosses
//! Payload, key, id, content type and headers. Trace headers are read and written anew, so that nothing malformed passes.
//!
//! - **Headers of one hop** stay behind, since they tell of the source or give orders to the target: names that begin with `nats-`, `x-death`,
//!   `x-first-death-…`, `x-last-death-…`, `x-delivery-count` and `timestamp_in_ms`.
//! - **Names that a broker's mapping uses** ([`RESERVED`]) get the prefix [`RENAMED`]. To a target with
//!   [text headers](crate::capability::HeaderValues), characters of a name that are not visible ASCII, and colons, become `-`; elsewhere NUL does.
//!   A name that is empty, or longer than 255 bytes, does not cross.
//! - **Values** cross as they are, but to a target with text headers: there white space around them is removed, and one
//!   that is not text, or holds control characters, does not cross.
//! - **Ids** are the sender's; one that the source gave itself (a Redis entry's) does not cross. A target that drops
//!   duplicates by id drops repetitions of the bridge, too. From NATS to NATS the id becomes the header `message-id`: source and target
//!   may be subjects of one stream, which would confirm the copy and not store it.
//! - **Messages without a payload** arrive with an empty one and the header [`TOMBSTONE`] where the target has no such
//!   thing, and a bridge to one that has turns them back.
//!
//! Headers that are renamed or left behind are counted in [`Progress`], those of one hop excepted. [`Bridge::prepare`] changes a message before
//! any of that: it is the place to unpack what other systems wrap, such as an entry of Redis Streams whose data is in a field of another name
//! than `payload`, which is a header here.
//!
//! # Delivery
//! A message is acknowledged at the source when the target has confirmed it: it may be there twice after a crash or a publish of
//! unknown outcome, and is never missing (a target that [confirms nothing](crate::capability::Confirm::Never) excepted). Up to
//! [`in_flight`](Bridge::in_flight) messages are on their way at a time; copies begin in the order in which
//! messages come. While the target is away, those on their way wait and are tried again as the [`Retry`] policy says, and nothing more is
//! taken: nothing piles up but at the source. Where order has to survive failures too, use
//! [`ordered_by_key`](Bridge::ordered_by_key), or one message at a time.
//!
//! What the target can never take (too large, say) goes to the subscription's [dead-letter topic](Bridge::dead_letter), at the source,
//! and so does what the policy gives up; without such a topic it is discarded, logged and [counted](crate::consume::Report::rejected). A
//! message that has crossed [`MAX_HOPS`] bridges is going in circles and is given up as well.
//!
//! A bridge of a group goes on where it ended: its position is that of the group. A handler's time at the source is the copy's; a target that
//! is away for longer than the source waits for settlements (half an hour on RabbitMQ unless it is set otherwise) makes messages come again.

mod copier;
mod customs;
mod progress;

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select;

use crate::address::{Subscription, Topic};
use crate::broker::TracedBroker;
use crate::broker_ext::TracedBrokerExt;
use crate::consume::{Report, Retry};
use crate::error::{Error, ErrorKind, Result};
use crate::handler::HandlerError;
use crate::message::Message;
use crate::received::Received;

use copier::Copier;
use progress::Watch;

pub use customs::{RENAMED, RESERVED};
pub use progress::Progress;

/// How many messages are on their way at a time unless [`Bridge::in_flight`] says otherwise.
pub const DEFAULT_IN_FLIGHT: usize = 64;

/// How often a bridge reports its progress unless [`Bridge::progress_every`] says otherwise.
pub const DEFAULT_PROGRESS: Duration = Duration::from_secs(10);

/// The header that counts the bridges a message has crossed.
pub const HOPS: &str = "bridge-hops";

/// How many bridges a message may cross; after that it goes in circles.
pub const MAX_HOPS: u32 = 16;

/// The header, with the value `true`, of a message that had no payload at its source; see the [module](self).
pub const TOMBSTONE: &str = "bridge-tombstone";

/// A bridge that is being set up: nothing happens until [`run`](Self::run) or [`run_until`](Self::run_until).
///
/// Setters never fail; running checks everything.
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
/// let shutdown = tokio::time::sleep(Duration::from_millis(50)); // or traced_broker::shutdown_signal()
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
    in_flight: usize,
    most: u64,
    ordered: bool,
    retry: Retry,
    drain: Option<Duration>,
    prepare: Option<Box<Prepare<'a>>>,
    progress: Option<Box<dyn Fn(Progress) + Send + Sync + 'a>>,
    every: Duration,
}

type Prepare<'a> = dyn Fn(Message, &Received) -> Result<Message, HandlerError> + Send + Sync + 'a;

/// What a bridge did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Bridged {
    /// What crossed.
    pub progress: Progress,
    /// What became of the messages at the source.
    pub consumed: Report,
}

impl<'a, A: TracedBroker + ?Sized, B: TracedBroker + ?Sized> Bridge<'a, A, B> {
    /// A bridge from a subscription of one broker to a topic of another, which may be the same.
    pub fn new(from: &'a A, subscription: Subscription, to: &'a B, topic: impl Into<String>) -> Self {
        let options = Options {
            in_flight: DEFAULT_IN_FLIGHT,
            most: u64::MAX,
            ordered: false,
            retry: Retry::default(),
            drain: None,
            prepare: None,
            progress: None,
            every: DEFAULT_PROGRESS,
        };
        Self { from, to, subscription, topic: topic.into(), options }
    }

    /// How many messages may be on their way at a time, at least 1. Default 64.
    pub fn in_flight(mut self, messages: usize) -> Self {
        self.options.in_flight = messages;
        self
    }

    /// Ends the bridge once that many copies are confirmed, at least 1, and lets no more cross. Default: no limit.
    pub fn at_most(mut self, copies: u64) -> Self {
        self.options.most = copies.max(1);
        self
    }

    /// Copies messages of one key one after the other, so that they keep their order through failures; other keys go on meanwhile.
    pub fn ordered_by_key(mut self) -> Self {
        self.options.ordered = true;
        self
    }

    /// How often and how long copies that fail are tried again. Default: [`Retry::default`], for ever.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Where messages go that cannot cross, at the source; the same as [`Subscription::dead_letter`].
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.dead_letter(topic);
        self
    }

    /// How long to wait, after being told to stop, for the copies that are on their way. Default: as for
    /// [consumers](crate::consume::DEFAULT_DRAIN_TIME).
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.options.drain = Some(time);
        self
    }

    /// Changes each copy before it is brought into a form that the target can carry. An error rejects or
    /// retries the message as it says, and a panic retries it, as far as the policy goes.
    pub fn prepare(
        mut self,
        prepare: impl Fn(Message, &Received) -> Result<Message, HandlerError> + Send + Sync + 'a,
    ) -> Self {
        self.options.prepare = Some(Box::new(prepare));
        self
    }

    /// Calls `report` with the progress every 10 s, and once at the end. It must not block.
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'a) -> Self {
        self.options.progress = Some(Box::new(report));
        self
    }

    /// How often progress is reported. Default 10 s.
    pub fn progress_every(mut self, period: Duration) -> Self {
        self.options.every = period;
        self
    }

    /// Copies until one of the brokers is closed.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<Bridged> {
        self.run_until(pending::<()>()).await
    }

    /// Copies until `shutdown` ends or one of the brokers is closed, then lets what is on its way arrive.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a topic that is not valid, or is the subscription's own at the same broker, and what setting up a
    /// [consumer](crate::consume::Consume::subscribed) returns. A target that cannot be reached is no error here: it is waited for.
    pub async fn run_until(self, shutdown: impl Future) -> Result<Bridged> {
        let Self { from, to, subscription, topic, options } = self;
        let topic = checked(from, to, &subscription, &topic)?;
        let Options { in_flight, most, ordered, retry, drain, prepare, progress, every } = options;
        let copier = Arc::new(Copier::new(from.system(), to, topic, retry, prepare, most));
        let copying = Arc::clone(&copier);
        let mut consumer = from.consume(subscription, move |received| Arc::clone(&copying).copy(received));
        // The policy is applied by the copier; what it hands back is for the next to take.
        let at_once = Retry::default().first_delay(Duration::ZERO).longest_delay(Duration::ZERO);
        consumer = consumer.concurrency(in_flight).retry(at_once);
        if ordered {
            consumer = consumer.ordered_by_key();
        }
        if let Some(time) = drain {
            consumer = consumer.drain_time(time);
        }
        let consumer = consumer.subscribed().await?;
        let stopping = async {
            // Dropped when the consumer begins to drain, for whatever reason.
            let _stop = copier.stop_on_drop();
            let told = pin!(shutdown);
            let finished = pin!(copier.finished());
            select(told.map(drop), finished).await;
        };
        let watch = Watch { counts: &copier.counts, every, report: progress.as_deref() };
        let consumed = watch.during(consumer.run_until(stopping)).await;
        Ok(Bridged { progress: copier.counts.progress(), consumed })
    }
}

/// The target, unless the copies would come back as messages to be copied.
fn checked<A: TracedBroker + ?Sized, B: TracedBroker + ?Sized>(
    from: &A,
    to: &B,
    subscription: &Subscription,
    topic: &str,
) -> Result<Topic> {
    let topic = Topic::new(topic).map_err(|error| error.with_operation("bridge"))?;
    let same_broker = std::ptr::addr_eq(std::ptr::from_ref(from), std::ptr::from_ref(to));
    if same_broker && subscription.topic() == topic.as_str() {
        let message = "a bridge from a topic to itself would copy its own copies for ever";
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
            .field("in_flight", &self.options.in_flight)
            .field("ordered", &self.options.ordered)
            .field("retry", &self.options.retry)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Bridged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; at the source: {}", self.progress, self.consumed)
    }
}
