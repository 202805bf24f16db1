//! Redrive: sends dead letters back to the topics they came from.

use std::fmt;
use std::future::{Future, pending};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::broker::{Delivery, TracedBroker};
use crate::context::propagation::Hop;
use crate::error::Result;
use crate::message::{Message, Subscription, Topic};
use crate::names::header;

/// The default of [`Redrive::idle`].
pub const DEFAULT_IDLE: Duration = Duration::from_secs(5);

/// Maximum number of letters that a [dry run](Redrive::dry_run) reads.
pub const MAX_LOOKED_AT: usize = 10_000;

/// The builder of a redrive; it does nothing until [`run`](Self::run) or
/// [`run_until`](Self::run_until).
///
/// Each dead letter is sent to the topic it [came from](header::DEAD_LETTER_TOPIC), with its
/// creation context and without its dead-letter headers. It is settled when the broker has
/// confirmed the copy, so none is lost; after a crash in between, one may be sent back twice. A
/// letter stays in place if it does not name the topic it came from, or if its timestamp is later
/// than the start of the redrive: a message that fails again at once is not sent back forever.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Message, Received, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
/// let closed = async |_: Received| Err::<(), _>(HandlerError::reject("the warehouse is closed"));
/// let shutdown = tokio::time::sleep(Duration::from_millis(50));
/// broker.consume(workers, closed).run_until(shutdown).await?;
///
/// let redriven = broker.redrive("orders.dead").idle(Duration::from_millis(50)).run().await?;
/// assert_eq!((redriven.sent_back, redriven.left), (1, 0));
/// # Ok(()) }
/// ```
#[must_use = "a redrive does nothing until it is run"]
pub struct Redrive<'a, B: ?Sized> {
    broker: &'a B,
    subscription: Subscription,
    most: u64,
    idle: Duration,
    dry: bool,
    progress: Option<Box<Watcher<'a>>>,
}

type Watcher<'a> = dyn Fn(Redriven) + Send + Sync + 'a;

/// The result of a redrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// Letters that were confirmed at the topic they came from, and settled. In a [dry
    /// run](Redrive::dry_run), letters that would be sent.
    pub sent_back: u64,
    /// Letters that stay in place: they do not name the topic they came from, could not be
    /// published there, or died after the redrive began.
    pub left: u64,
}

impl<'a, B: TracedBroker + ?Sized> Redrive<'a, B> {
    pub(crate) fn new(broker: &'a B, dead_letter_topic: &str) -> Self {
        let subscription = Subscription::new(dead_letter_topic).group("redrive");
        Self { broker, subscription, most: u64::MAX, idle: DEFAULT_IDLE, dry: false, progress: None }
    }

    /// Sets the consumer group that reads the dead letters. Default `redrive`.
    ///
    /// A new group begins at the earliest letter if the broker keeps a
    /// [backlog](crate::Capabilities::backlog) for new groups. If it keeps none (RabbitMQ), name a
    /// group that existed when the letters arrived.
    pub fn group(mut self, group: impl AsRef<str>) -> Self {
        self.subscription = self.subscription.group(group);
        self
    }

    /// Sets the maximum number of letters to send back. Default: no limit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # broker.publish_batch("orders", vec![Message::new("shoes"), Message::new("a hat")]).await;
    /// # let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let closed = async |_: Received| Err::<(), _>(HandlerError::reject("closed"));
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// # broker.consume(workers, closed).run_until(shutdown).await?;
    /// let idle = Duration::from_millis(50);
    /// let redriven = broker.redrive("orders.dead").at_most(1).idle(idle).run().await?;
    /// assert_eq!(redriven.sent_back, 1); // of two
    /// # Ok(()) }
    /// ```
    pub fn at_most(mut self, letters: u64) -> Self {
        self.most = letters;
        self
    }

    /// Sets the time without a letter after which the redrive is done. Default 5 s. Kafka needs
    /// some of it to let a member join its group.
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// Sends no letter back and leaves every letter in place: only reads the letters that the group
    /// would get, up to [`MAX_LOOKED_AT`].
    ///
    /// The letters are taken and given back, which counts as an attempt on brokers that count
    /// attempts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # broker.publish_batch("orders", vec![Message::new("shoes"), Message::new("a hat")]).await;
    /// # let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let closed = async |_: Received| Err::<(), _>(HandlerError::reject("closed"));
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// # broker.consume(workers, closed).run_until(shutdown).await?;
    /// let idle = Duration::from_millis(50);
    /// let dry = broker.redrive("orders.dead").idle(idle).dry_run().run().await?;
    /// assert_eq!(dry.sent_back, 2); // would be sent
    ///
    /// let redriven = broker.redrive("orders.dead").idle(idle).run().await?;
    /// assert_eq!(redriven.sent_back, 2); // are sent
    /// # Ok(()) }
    /// ```
    pub fn dry_run(mut self) -> Self {
        self.dry = true;
        self
    }

    /// Calls `report` after each letter with the counts so far. It must not block.
    pub fn on_progress(mut self, report: impl Fn(Redriven) + Send + Sync + 'a) -> Self {
        self.progress = Some(Box::new(report));
        self
    }

    /// Sends the dead letters back.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use std::time::Duration;
    /// # use traced_broker::{HandlerError, Message, Received, Subscription};
    /// # use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    /// # let broker = connect("memory://").await?;
    /// # broker.publish_batch("orders", vec![Message::new("shoes"), Message::new("a hat")]).await;
    /// # let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    /// # let closed = async |_: Received| Err::<(), _>(HandlerError::reject("closed"));
    /// # let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// # broker.consume(workers, closed).run_until(shutdown).await?;
    /// let idle = Duration::from_millis(50);
    /// broker.publish("orders.dead", Message::new("not a dead letter")).await?;
    /// let redriven = broker.redrive("orders.dead").idle(idle).run().await?;
    /// assert_eq!((redriven.sent_back, redriven.left), (2, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`subscribe`](TracedBroker::subscribe) and of settling. Letters that were sent
    /// back before stay sent back.
    pub async fn run(self) -> Result<Redriven> {
        self.run_until(pending::<()>()).await
    }

    /// Sends dead letters back until there are no more, or until `shutdown` ends; the current
    /// letter is then finished, and no more is taken.
    ///
    /// # Errors
    /// The errors of [`run`](Self::run).
    pub async fn run_until(self, shutdown: impl Future) -> Result<Redriven> {
        let mut subscription = self.subscription.clone();
        if self.dry {
            subscription = subscription.prefetch(self.most.clamp(1, MAX_LOOKED_AT as u64) as usize);
        }
        let room = subscription.prefetch_limit();
        let mut letters = self.broker.subscribe(subscription).await?;
        let mut redriven = Redriven::default();
        let begun = SystemTime::now();
        // Kept, so that they are not redelivered before the end.
        let mut kept = Vec::new();
        let mut shutdown = pin!(shutdown);
        while redriven.sent_back < self.most && kept.len() < room {
            let next = tokio::select! {
                biased;
                _ = &mut shutdown => break,
                next = timeout(self.idle, letters.next()) => next,
            };
            let Ok(Some(letter)) = next else { break };
            let letter = letter?;
            match self.send_back(&letter, begun).await {
                Ok(()) if self.dry => {
                    kept.push(letter);
                    redriven.sent_back += 1;
                }
                Ok(()) => {
                    letter.ack().await?;
                    redriven.sent_back += 1;
                }
                Err(reason) => {
                    tracing::warn!(topic = self.subscription.topic(), reason, "a dead letter is left where it is");
                    kept.push(letter);
                    redriven.left += 1;
                }
            }
            self.progress.iter().for_each(|report| report(redriven));
        }
        drop(letters);
        kept.into_iter().for_each(Delivery::give_back);
        Ok(redriven)
    }

    async fn send_back(&self, letter: &Delivery, begun: SystemTime) -> Result<(), String> {
        let letter = letter.message();
        if letter.timestamp().is_some_and(|timestamp| timestamp.time > begun) {
            return Err("it died after the redrive began".to_owned());
        }
        let origin = letter.headers().get_str(header::DEAD_LETTER_TOPIC).ok_or("it does not say where it came from")?;
        let origin = Topic::new(origin).map_err(|error| error.to_string())?;
        if self.dry {
            return Ok(());
        }
        let mut message = Message::from(letter).hop(Hop::Replay);
        for header in header::DEAD_LETTER {
            message.headers_mut().remove(header);
        }
        self.broker.forward(&origin, message).await.map(drop).map_err(|error| error.to_string())
    }
}

impl<B: ?Sized> fmt::Debug for Redrive<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive")
            .field("subscription", &self.subscription)
            .field("most", &self.most)
            .field("idle", &self.idle)
            .field("dry", &self.dry)
            .finish_non_exhaustive()
    }
}
