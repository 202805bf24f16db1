//! The consumer runtime: a subscription, a handler, and everything in between.
//!
//! [`consume`](crate::TracedBrokerExt::consume) runs a handler on the messages of a subscription,
//! several at a time. It retries failures, dead-letters messages that cannot succeed, and drains
//! when it is told to stop. It behaves the same on every broker, because it is implemented once,
//! over any driver.
//!
//! # Bounds
//! At most [`concurrency`](Consume::concurrency) handlers run at a time. The broker hands out at
//! most [`prefetch`](crate::Subscription::prefetch) unsettled messages; there is no other buffer.
//! Messages that wait in this process may have half of it, and further ones are set aside, up to
//! [a limit of their own](crate::Subscription::waiting), so that others pass them.
//!
//! # Order
//! With a concurrency of 1, messages are handled in the order in which they arrive. With
//! [`ordered_by_key`](Consume::ordered_by_key), messages of one key are handled one after the
//! other, even across retries, while other keys proceed; messages without a key have no order. The
//! broker must keep the order too; see [`Capabilities::order`](crate::Capabilities).
//!
//! # Retries
//! The [`Retry`] policy decides whether a handler's error is retried or rejected; a handler that
//! [takes too long](Consume::time_limit) or panics counts as failed. If the broker can redeliver
//! after a delay (see [`Capabilities::retry`](crate::Capabilities)), the delay survives the end of
//! this process. Otherwise, and always with `ordered_by_key`, the message waits in this process,
//! unsettled; if the process ends, it is redelivered at once. [`Crowded`] says what becomes of a
//! failed message once too many wait.
//!
//! # Messages that end the process
//! A message that was handed out twice without being heard of may have ended these processes. From
//! its third delivery on, each run of its handler is noted where the note outlives the process, on
//! brokers that [can](crate::Capabilities::notes_trials). After two runs that were not heard of
//! again, its handler runs alone in the consumer; after the third, the message goes to the dead
//! letters without another run, with the error type `process_lost`. Being brought back by lost
//! connections, deploys and rebalances makes no such dead letter.
//!
//! # Stopping
//! A consumer that is told to stop takes no more messages, lets running handlers finish for up to
//! the [drain time](Consume::drain_time), settles their messages, and returns a [`Report`].
//! Messages that were not started, or do not finish in time, go back to the broker. If the future
//! is dropped instead, all handlers are cancelled and their messages go back.

mod batch;
mod delayed;
mod lanes;
mod mode;
mod report;
mod retry;
mod runner;
mod settings;
mod solo;
mod subscribed;
mod tasks;
mod work;

use std::fmt;
use std::future::{Future, pending};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::TracedBroker;
use crate::error::Result;
use crate::message::{Guarantee, Received, Subscription};

pub use batch::{ConsumeBatch, DEFAULT_BATCH_SIZE, DEFAULT_LINGER, Failed};
pub use mode::{HandlerMode, InTask, OwnTasks};
pub use report::Report;
pub use retry::{DEFAULT_ATTEMPTS, DEFAULT_FIRST_DELAY, DEFAULT_LONGEST_DELAY, Retry};
pub use settings::{Crowded, Unburied};
#[doc(hidden)]
pub use solo::isolate_thread;

pub use subscribed::Subscribed;

pub(in crate::runtime) use settings::Settings;
use work::{Wanted, Work};

/// The default of [`Consume::drain_time`].
pub const DEFAULT_DRAIN_TIME: Duration = Duration::from_secs(15);

/// The builder of a consumer; it does nothing until [`run`](Self::run) or
/// [`run_until`](Self::run_until).
///
/// Setters never fail; running checks all settings.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// async fn ship(message: Received) -> Result<(), HandlerError> {
///     let order: serde_json::Value = message.json()?;
///     println!("shipping {order}");
///     Ok(())
/// }
///
/// let broker = connect("memory://").await?;
/// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
/// broker.publish("orders", Message::json("one pair of shoes")?).await?;
///
/// // A service waits for traced_broker::shutdown_signal() instead.
/// let shutdown = tokio::time::sleep(Duration::from_millis(50));
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
    settings: Settings,
    wanted: Option<Arc<Wanted>>,
    mode: PhantomData<M>,
}

impl<'a, B: TracedBroker + ?Sized, H> Consume<'a, B, H> {
    pub(crate) fn new(broker: &'a B, subscription: Subscription, handler: H) -> Self {
        let settings = Settings { size: 1, ..Settings::default() };
        Self { broker, subscription, handler, settings, wanted: None, mode: PhantomData }
    }

    pub(in crate::runtime) fn with_settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Runs every handler in its own task, so that handlers that compute use all cores.
    ///
    /// By default, handlers take turns in the task that runs the consumer. That costs less and
    /// suits handlers that mostly wait.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// # broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let compress = async |order: Received| {
    ///     let _sum: u64 = order.payload().iter().map(|byte| u64::from(*byte)).sum();
    ///     Ok::<_, HandlerError>(())
    /// };
    /// let consumer = broker.consume(orders, compress).concurrency(8).in_own_tasks();
    /// assert_eq!(consumer.run_until(shutdown).await?.handled, 1);
    /// # Ok(()) }
    /// ```
    pub fn in_own_tasks(self) -> Consume<'a, B, H, OwnTasks> {
        let Self { broker, subscription, handler, settings, wanted, mode: _ } = self;
        Consume { broker, subscription, handler, settings, wanted, mode: PhantomData }
    }
}

impl<B: TracedBroker + ?Sized, H, M> Consume<'_, B, H, M> {
    /// Sets the maximum number of handlers that run at a time, 1 to 65,535. Default 1.
    ///
    /// A lower prefetch of the subscription is raised to this number.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// # let messages = (0..64).map(|number| Message::new(number.to_string()));
    /// # broker.publish_batch("orders", messages.collect()).await;
    /// let ship = async |_order: Received| Ok::<_, HandlerError>(());
    /// let consumer = broker.consume(orders.clone(), ship).concurrency(32);
    /// assert_eq!(consumer.run_until(shutdown).await?.handled, 64);
    ///
    /// let error = broker.consume(orders, ship).concurrency(0).run().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// # Ok(()) }
    /// ```
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.settings.size = handlers;
        self
    }

    /// Handles messages of one key one after the other, in order, even if one has to be retried;
    /// other keys proceed meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// # use std::sync::{Arc, Mutex};
    /// # let seen = Arc::new(Mutex::new(Vec::new()));
    /// # let retry = Retry::exponential(3).first_delay(Duration::from_millis(10));
    /// broker.publish("orders", Message::new("create").key("order-7")).await?;
    /// broker.publish("orders", Message::new("cancel").key("order-7")).await?;
    ///
    /// // The first attempt fails; the next message of the key waits for the second attempt.
    /// let record = async |order: Received| {
    ///     seen.lock().unwrap().push(order.payload().clone());
    ///     if seen.lock().unwrap().len() == 1 { Err(HandlerError::retry("busy")) } else { Ok(()) }
    /// };
    /// let consumer = broker.consume(orders, record).concurrency(8).ordered_by_key().retry(retry);
    /// assert_eq!(consumer.run_until(shutdown).await?.handled, 2);
    /// assert_eq!(*seen.lock().unwrap(), ["create", "create", "cancel"]);
    /// # Ok(()) }
    /// ```
    pub fn ordered_by_key(mut self) -> Self {
        self.settings.ordered = true;
        self
    }

    /// Sets the maximum duration of one attempt. A handler that takes longer is cancelled and
    /// counts as failed. Default: no limit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// # broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let hang = async |_order: Received| {
    ///     tokio::time::sleep(Duration::from_secs(3600)).await;
    ///     Ok::<_, HandlerError>(())
    /// };
    /// let consumer = broker.consume(orders, hang).time_limit(Duration::from_millis(10));
    /// let report = consumer.retry(Retry::never()).run_until(shutdown).await?;
    /// assert_eq!(report.rejected, 1);
    /// # Ok(()) }
    /// ```
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.settings.time_limit = Some(limit);
        self
    }

    /// Sets the policy for messages whose handler failed. Default: [`Retry::default`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// # broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let fail = async |_order: Received| Err::<(), _>(HandlerError::retry("busy"));
    /// let retry = Retry::exponential(3).first_delay(Duration::from_millis(5));
    /// let report = broker.consume(orders, fail).retry(retry).run_until(shutdown).await?;
    /// assert_eq!((report.retried, report.rejected), (2, 1)); // in "orders.dead" now
    /// # Ok(()) }
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Sets the topic to which rejected messages are copied; the same as
    /// [`Subscription::dead_letter`].
    pub fn dead_letter(mut self, topic: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.dead_letter(topic);
        self
    }

    /// Sets the maximum time for running handlers to finish after the consumer is told to stop.
    /// Default 15 s.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// # broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let hang = async |_order: Received| {
    ///     tokio::time::sleep(Duration::from_secs(3600)).await;
    ///     Ok::<_, HandlerError>(())
    /// };
    /// let consumer = broker.consume(orders, hang).drain_time(Duration::from_millis(10));
    /// let report = consumer.run_until(shutdown).await?;
    /// assert_eq!(report.abandoned, 1); // cancelled, and back at the broker
    /// # Ok(()) }
    /// ```
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.settings.drain = time;
        self
    }

    /// Sets the treatment of a message whose dead letter the broker refuses for good. Default:
    /// [`Unburied::Stop`].
    pub fn when_unburied(mut self, unburied: Unburied) -> Self {
        self.settings.unburied = unburied;
        self
    }

    /// Sets the treatment of a message whose handler failed while too many others wait. Default:
    /// [`Crowded::Wait`].
    pub fn when_crowded(mut self, crowded: Crowded) -> Self {
        self.settings.crowded = crowded;
        self
    }

    /// Handles only messages for which `wanted` returns `true`. The others are acknowledged without
    /// a span and [counted](Report::skipped). Default: all.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// let european = |order: &Received| order.headers().get_str("region") == Some("eu");
    /// broker.publish("orders", Message::new("shoes").header("region", "eu")).await?;
    /// broker.publish("orders", Message::new("a hat").header("region", "us")).await?;
    ///
    /// let ship = async |_order: Received| Ok::<_, HandlerError>(());
    /// let report = broker.consume(orders, ship).filter(european).run_until(shutdown).await?;
    /// assert_eq!((report.handled, report.skipped), (1, 1));
    /// # Ok(()) }
    /// ```
    pub fn filter(mut self, wanted: impl Fn(&Received) -> bool + Send + Sync + 'static) -> Self {
        self.wanted = Some(Arc::new(wanted));
        self
    }

    /// Subscribes now, to run later. Messages published from here on reach the consumer, even on
    /// brokers that keep no messages for groups that do not exist yet.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
    /// # use traced_broker::{ErrorKind, TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # let orders = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(200));
    /// let ship = async |_order: Received| Ok::<_, HandlerError>(());
    /// let workers = broker.consume(orders, ship).subscribed().await?;
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// assert_eq!(workers.run_until(shutdown).await?.handled, 1);
    ///
    /// let invalid = Subscription::new("orders/eu");
    /// let error = broker.consume(invalid, ship).subscribed().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a concurrency outside 1 to
    /// 65,535, or an error of [`subscribe`](TracedBroker::subscribe). Once it runs, a consumer ends
    /// only when it is told to stop or the broker is closed. A lost connection is restored; it is
    /// logged and counted in [`Report::errors`].
    pub async fn subscribed(self) -> Result<Subscribed<H, M>> {
        let Self { broker, subscription, handler, mut settings, wanted, mode: _ } = self;
        let subscription = settings.fit(subscription, broker.capabilities(), "concurrency")?;
        let most_waiting = match subscription.guarantee() {
            Guarantee::AtMostOnce => subscription.prefetch_limit(),
            _ => subscription.prefetch_limit() + subscription.waiting_limit(),
        };
        let deliveries = broker.subscribe(subscription).await?;
        Ok(Subscribed {
            deliveries,
            job: Work { handler, settings, wanted, cancel: CancellationToken::new() },
            most_waiting,
            mode: PhantomData,
        })
    }
}

impl<B: TracedBroker + ?Sized, H, M: HandlerMode<H>> Consume<'_, B, H, M> {
    /// Consumes until the broker is closed.
    ///
    /// # Errors
    /// The errors of [`subscribed`](Self::subscribed).
    pub async fn run(self) -> Result<Report> {
        self.run_until(pending::<()>()).await
    }

    /// Consumes until `shutdown` ends or the broker is closed, then drains.
    ///
    /// # Errors
    /// The errors of [`subscribed`](Self::subscribed).
    pub async fn run_until(self, shutdown: impl Future) -> Result<Report> {
        self.subscribed().await?.run_until(shutdown).await
    }
}

impl<B: TracedBroker + ?Sized, H, M> fmt::Debug for Consume<'_, B, H, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consume")
            .field("subscription", &self.subscription)
            .field("concurrency", &self.settings.size)
            .field("ordered", &self.settings.ordered)
            .field("retry", &self.settings.retry)
            .finish_non_exhaustive()
    }
}
