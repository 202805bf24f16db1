//! The consumer runtime: a subscription, a handler, and everything in between.
//!
//! [`consume`](crate::TracedBrokerExt::consume) runs a handler on the messages of a subscription, several at a time, retries what
//! fails, dead-letters what cannot succeed, and drains when it is told to stop. It is written once, over any driver, so that it
//! behaves the same on every broker.
//!
//! # Bounds
//! At most [`concurrency`](Consume::concurrency) handlers run at a time. No more messages are asked for meanwhile than the
//! subscription's [prefetch](crate::Subscription::prefetch) lets the broker hand out unsettled: there is no other buffer.
//!
//! # Order
//! With a concurrency of 1, messages are handled as they come. With [`ordered_by_key`](Consume::ordered_by_key), those of one key
//! are handled one after the other, also across retries, while other keys go on; messages without a key are in no order. The
//! broker has to keep the order on the way, see [`Capabilities::order`](crate::Capabilities).
//!
//! # Retries
//! A handler's error is retried or rejected as the [`Retry`] policy says; a handler that [takes too long](Consume::time_limit) or
//! panics counts as failed. Where the broker brings messages back after a delay by itself (see
//! [`Capabilities::retry`](crate::Capabilities)), the delay survives the end of this process. Where it cannot, and with
//! `ordered_by_key` everywhere, the message waits in this process, unsettled: if the process ends, it comes back at once. A waiting
//! message takes up one of the prefetch.
//!
//! # Stopping
//! A consumer that is told to stop takes no more messages, lets the handlers that run finish for up to the
//! [drain time](Consume::drain_time), settles, and returns a [`Report`]. What has not been begun goes back to the broker,
//! and so does what does not finish in time. If the future is dropped instead, all handlers are cancelled and their messages go back.

mod batch;
mod delayed;
mod lanes;
mod report;
mod retry;
mod runner;
mod subscribed;
mod work;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Subscription;
use crate::broker::TracedBroker;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::HandlerError;
use crate::received::Received;

pub use batch::{ConsumeBatch, DEFAULT_BATCH_SIZE, DEFAULT_LINGER, Failed};
pub use report::Report;
pub use retry::{DEFAULT_FIRST_DELAY, DEFAULT_LONGEST_DELAY, Retry};

pub use subscribed::Subscribed;

use work::{Job, Wanted};

/// How long a consumer that stops waits for its handlers unless [`Consume::drain_time`] says otherwise.
pub const DEFAULT_DRAIN_TIME: Duration = Duration::from_secs(30);

/// A consumer that is being set up; nothing happens until [`run`](Self::run) or [`run_until`](Self::run_until).
///
/// Setters never fail; running checks everything.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Message, Received, Retry, Subscription, TracedBroker, TracedBrokerExt, connect};
///
/// async fn ship(message: Received) -> Result<(), HandlerError> {
///     let order: serde_json::Value = message.json()?;
///     println!("shipping {order}");
///     Ok(())
/// }
///
/// let broker = connect("memory://").await?;
/// let workers = Subscription::new("orders").group("fulfillment-workers").dead_letter("orders.dead");
/// broker.publish("orders", Message::json("one pair of shoes")?).await?;
///
/// let shutdown = tokio::time::sleep(Duration::from_millis(50)); // or traced_broker::shutdown_signal()
/// let report = broker
///     .consume(workers, ship)
///     .concurrency(32)
///     .ordered_by_key()
///     .retry(Retry::exponential(5))
///     .run_until(shutdown)
///     .await?;
/// assert_eq!(report.handled, 1);
/// # Ok(()) }
/// ```
#[must_use = "a consumer does nothing until it is run"]
pub struct Consume<'a, B: ?Sized, H, M = InTask> {
    broker: &'a B,
    subscription: Subscription,
    handler: H,
    options: Options,
    mode: PhantomData<M>,
}

/// Handlers take turns in the task that runs the consumer.
#[derive(Debug, Clone, Copy)]
pub struct InTask;

/// Each handler runs in a task of its own; see [`Consume::in_own_tasks`].
#[derive(Debug, Clone, Copy)]
pub struct OwnTasks;

/// How to consume.
struct Options {
    concurrency: usize,
    ordered: bool,
    time_limit: Option<Duration>,
    retry: Retry,
    drain: Duration,
    wanted: Option<Arc<Wanted>>,
}

impl<'a, B: TracedBroker + ?Sized, H> Consume<'a, B, H> {
    pub(crate) fn new(broker: &'a B, subscription: Subscription, handler: H) -> Self {
        let options = Options {
            concurrency: 1,
            ordered: false,
            time_limit: None,
            retry: Retry::default(),
            drain: DEFAULT_DRAIN_TIME,
            wanted: None,
        };
        Self { broker, subscription, handler, options, mode: PhantomData }
    }

    /// Runs every handler in a task of its own, so that handlers that compute use all cores.
    ///
    /// Without it, handlers take turns in the task that runs the consumer, which costs less and suits those that mostly wait.
    pub fn in_own_tasks(self) -> Consume<'a, B, H, OwnTasks> {
        let Self { broker, subscription, handler, options, mode: _ } = self;
        Consume { broker, subscription, handler, options, mode: PhantomData }
    }
}

impl<B: TracedBroker + ?Sized, H, M> Consume<'_, B, H, M> {
    /// How many handlers may run at a time, at least 1. Default 1.
    ///
    /// The subscription's prefetch is raised to it if it is lower.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.options.concurrency = handlers;
        self
    }

    /// Handles messages of one key one after the other, in order, also when one has to be retried; other keys go on meanwhile.
    pub fn ordered_by_key(mut self) -> Self {
        self.options.ordered = true;
        self
    }

    /// How long a handler may take with one message. One that takes longer is cancelled and counts as failed. Default: no limit.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options.time_limit = Some(limit);
        self
    }

    /// What to do with messages whose handler failed. Default: [`Retry::default`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Where rejected messages are copied to; the same as [`Subscription::dead_letter`].
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.dead_letter(topic);
        self
    }

    /// How long to wait, after being told to stop, for handlers that run. Default 30 s.
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.options.drain = time;
        self
    }

    /// Handles only messages for which `wanted` is true; the others are acknowledged, without a span, and
    /// [counted](Report::skipped). Default: all.
    pub fn filter(mut self, wanted: impl Fn(&Received) -> bool + Send + Sync + 'static) -> Self {
        self.options.wanted = Some(Arc::new(wanted));
        self
    }

    /// Subscribes now, to be run afterwards: what is published from here on is there for the consumer also on brokers that keep nothing
    /// for groups that do not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a concurrency of 0 or above the highest prefetch, and whatever
    /// [`subscribe`](TracedBroker::subscribe) returns. Once it runs, nothing ends a consumer but being told to stop and the broker being
    /// closed: a lost connection is restored, and the log and [`Report::errors`] tell of it.
    pub async fn subscribed(self) -> Result<Subscribed<H, M>> {
        let Self { broker, subscription, handler, options, mode: _ } = self;
        let subscription = options.fit(subscription)?;
        let window = subscription.max_unsettled();
        let deliveries = broker.subscribe(subscription).await?;
        let Options { concurrency, ordered, time_limit, retry, drain, wanted } = options;
        let job = Job { handler, ordered, time_limit, retry, wanted };
        Ok(Subscribed { deliveries, job, concurrency, window, drain, mode: PhantomData })
    }
}

impl<B: TracedBroker + ?Sized, H> Consume<'_, B, H, InTask> {
    /// Consumes until the broker is closed.
    ///
    /// # Errors
    /// As [`subscribed`](Self::subscribed).
    pub async fn run<F, T>(self) -> Result<Report>
    where
        H: Fn(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        Ok(self.subscribed().await?.run().await)
    }

    /// Consumes until `shutdown` ends or the broker is closed, then drains.
    ///
    /// # Errors
    /// As [`subscribed`](Self::subscribed).
    pub async fn run_until<F, T>(self, shutdown: impl Future) -> Result<Report>
    where
        H: Fn(Received) -> F,
        F: Future<Output = Result<T, HandlerError>>,
    {
        Ok(self.subscribed().await?.run_until(shutdown).await)
    }
}

impl<B: TracedBroker + ?Sized, H> Consume<'_, B, H, OwnTasks> {
    /// Consumes until the broker is closed.
    ///
    /// # Errors
    /// As [`subscribed`](Self::subscribed).
    pub async fn run<F, T>(self) -> Result<Report>
    where
        H: Fn(Received) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: 'static,
    {
        Ok(self.subscribed().await?.run().await)
    }

    /// Consumes until `shutdown` ends or the broker is closed, then drains.
    ///
    /// # Errors
    /// As [`subscribed`](Self::subscribed).
    pub async fn run_until<F, T>(self, shutdown: impl Future) -> Result<Report>
    where
        H: Fn(Received) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: 'static,
    {
        Ok(self.subscribed().await?.run_until(shutdown).await)
    }
}

impl Options {
    /// Checks the options and makes the subscription's prefetch fit them.
    fn fit(&self, subscription: Subscription) -> Result<Subscription> {
        let concurrency = self.concurrency;
        if !(1..=crate::address::MAX_PREFETCH).contains(&concurrency) {
            return Err(invalid("the concurrency is outside 1 to 65535", "concurrency", concurrency));
        }
        let prefetch = subscription.max_unsettled();
        // One of 0 is left for subscribing to refuse.
        Ok(if (1..concurrency).contains(&prefetch) { subscription.prefetch(concurrency) } else { subscription })
    }
}

fn invalid(message: &str, what: &'static str, value: usize) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_operation("consume").with_context(what, value)
}

impl<B: TracedBroker + ?Sized, H, M> fmt::Debug for Consume<'_, B, H, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consume")
            .field("subscription", &self.subscription)
            .field("concurrency", &self.options.concurrency)
            .field("ordered", &self.options.ordered)
            .field("retry", &self.options.retry)
            .finish_non_exhaustive()
    }
}
